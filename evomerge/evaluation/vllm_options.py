"""The engine options that a space may give to vLLM. Imports no vLLM."""

from collections.abc import Mapping
from typing import Any

__all__ = ["check_engine_options"]

_OWN = {
    "model": "it is the candidate",
    "tokenizer": "it is the candidate's",
    "dtype": "set evaluation.dtype, which means the same for both backends",
    "seed": "the run has one seed, search.seed",
    "load_format": "the candidates' weights come from memory",
    "worker_cls": "evomerge extends vLLM's own worker",
    "worker_extension_cls": "evomerge's own extension merges in vLLM's workers",
    "trust_remote_code": "code that comes with a checkpoint is never run",
    "data_parallel_size": "use evomerge run --workers N, one engine each",
    "enable_lora": "adapters are merged: write model+adapter in the recipe",
    "quantization": (
        "the exported weights are to be those that were scored, and a quantized model is another "
        "one; a proxy that finalists are scored without is not there yet"
    ),
}


def check_engine_options(options: Mapping[str, Any], *, max_length: int | None) -> None:
    """Check that a space's engine options leave alone what evomerge decides.

    Args:
        options: ``evaluation.vllm``.
        max_length: ``evaluation.max_length``.

    Raises:
        ValueError: naming the option and what to do instead.
    """
    for name, value in options.items():
        if name in _OWN and value is not None:
            raise ValueError(f"{name!r} cannot be set for vLLM here: {_OWN[name]}")
    if max_length is not None and options.get("max_model_len") is not None:
        raise ValueError(
            "max_length and vllm.max_model_len are two names of one setting; give one of them"
        )
