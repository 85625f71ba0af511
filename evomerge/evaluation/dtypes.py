"""The type a live model computes in."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evomerge.errors import EvaluationError

if TYPE_CHECKING:
    import torch

__all__ = ["compute_dtype"]


def compute_dtype(wanted: str, config: Mapping[str, Any], device_type: str) -> "torch.dtype":
    """Return the type.

    Args:
        wanted: ``evaluation.dtype``; ``"auto"`` is float32 on a CPU, elsewhere the config's own.
        config: The merged model's ``config.json``.
        device_type: ``"cpu"``, ``"cuda"``, …

    Raises:
        EvaluationError: if the config names no type.
    """
    import torch

    if wanted == "auto":
        own = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
        wanted = "float32" if device_type == "cpu" else own.removeprefix("torch.")
    dtype = getattr(torch, wanted, None)
    if not isinstance(dtype, torch.dtype):
        raise EvaluationError(f"config.json: no such dtype: {wanted!r}; set evaluation.dtype")
    return dtype
