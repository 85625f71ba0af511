"""A config as transformers sees it."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

__all__ = ["DescribedModel", "NotDescribedError", "describe_config", "describe_model"]

# How transformers writes numbers that JSON has not: {"__float__": "Infinity"}.
_FLOAT_KEY = "__float__"
_LONGEST = 200
# What the code of an architecture may raise for a config that it was not made for.
_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class NotDescribedError(Exception):
    """transformers does not know the architecture, or makes nothing of the config."""


def describe_config(config: Mapping[str, Any]) -> Any:
    """Return transformers' config of a `config.json`.

    Raises:
        NotDescribedError: if there is none; with transformers' reason.
    """
    data = _with_floats(dict(config))
    name = data.pop("model_type", None)
    if not isinstance(name, str):
        raise NotDescribedError("it has no model_type")
    from huggingface_hub.errors import StrictDataclassError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from transformers import AutoConfig

            return AutoConfig.for_model(name, **data)
        except (*_ERRORS, StrictDataclassError) as exc:
            raise NotDescribedError(_reason(exc)) from exc


@dataclass(frozen=True, slots=True)
class DescribedModel:
    """The tensors of a model without head, by the names of its modules; files may have others.

    Attributes:
        shapes: Name -> sizes.
        tied: Name -> that of the tensor which it is.
    """

    shapes: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str]


def describe_model(config: Mapping[str, Any]) -> DescribedModel:
    """Return what a model holds, from its config alone: it is made without memory.

    Raises:
        NotDescribedError: if transformers makes no such model; with its reason.
    """
    described = describe_config(config)
    import torch

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        try:
            from transformers import AutoModel

            kind: Any = AutoModel
            model = kind.from_config(described)
        except _ERRORS as exc:
            raise NotDescribedError(_reason(exc)) from exc
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return DescribedModel(shapes, dict(getattr(model, "all_tied_weights_keys", None) or {}))


def _reason(exc: Exception) -> str:
    return shorten(str(exc), _LONGEST) or type(exc).__name__


def _with_floats(value: Any) -> Any:
    """Return a copy of a config with the numbers that JSON has not."""
    if isinstance(value, Mapping):
        if value.keys() == {_FLOAT_KEY}:
            return float(value[_FLOAT_KEY])
        return {key: _with_floats(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_floats(inner) for inner in value]
    return copy.deepcopy(value)
