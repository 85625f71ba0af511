"""Which tensors belong to which layer, for any architecture: from names and the config alone.

A stack of layers shows in the names as one prefix followed by the numbers 0 to n - 1
(`model.layers.0.…`, `gpt_neox.layers.1.…`, `transformer.h.3.…`), where n stands in the config.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "LayerStack",
    "find_layers",
    "is_embedding",
    "is_head",
    "is_head_weight",
    "num_layers_key",
    "text_section",
]

_COUNT_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_TEXT_CONFIGS = ("text_config", "language_config", "llm_config", "text_model_config")
_NUMBERED = re.compile(r"^(.*?)\.(\d+)\.")
_OTHER_TOWERS = re.compile(r"visi|visual|image|audio|video|speech", re.IGNORECASE)
# Layers of other stacks have an `output` too (the attention of a Longformer).
_HEAD = re.compile(r"((^|\.)(lm_head|embed_out|head)|^(\D*\.)?output)\.(weight|bias)$")
_EMBEDDING = re.compile(r"embed|(^|\.)(wte|wpe|project_in)\.|(^|\.)shared\.weight$")


def is_head(name: str) -> bool:
    """Return whether a tensor outside the layers is the output head, by its name."""
    return _HEAD.search(name) is not None


def is_head_weight(name: str) -> bool:
    """Return whether a tensor is the head's matrix, which a tied model takes from its embedding.

    The head's bias is a tensor of its own in a tied model, too.
    """
    return is_head(name) and name.endswith(".weight")


def is_embedding(name: str) -> bool:
    """Return whether a tensor outside the layers stands before them as an embedding, by name."""
    return _EMBEDDING.search(name) is not None and not is_head(name)


@dataclass(frozen=True, slots=True)
class LayerStack:
    """The stack of layers of a checkpoint.

    Attributes:
        prefix: What stands before the layer's number, `model.layers`; empty if there is no stack.
        count: Number of layers.
    """

    prefix: str
    count: int

    @property
    def stem(self) -> str:
        """What stands before the stack and what is beside it: `model.` of `model.layers`."""
        return self.prefix.rpartition(".")[0] + "." if "." in self.prefix else ""

    def split(self, name: str) -> tuple[int, str] | None:
        """Return a tensor's layer and its name inside the layer, or None outside the layers.

        A layer beyond the count (a head for multi-token prediction, say) is returned too: compare
        with `count`.
        """
        start = len(self.prefix)
        if not start or name[:start] != self.prefix or name[start : start + 1] != ".":
            return None
        number, _, rest = name[start + 1 :].partition(".")
        return (int(number), rest) if number.isdecimal() and rest else None

    def join(self, index: int, rest: str) -> str:
        """Return the name of a tensor of layer `index`; the inverse of `split`."""
        return f"{self.prefix}.{index}.{rest}"


def text_section(config: Mapping[str, Any]) -> str | None:
    """Return the key of the language model's config in that of a model with several towers."""
    return next((key for key in _TEXT_CONFIGS if isinstance(config.get(key), Mapping)), None)


def num_layers_key(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the path of the number of layers in a config: `("text_config", "num_hidden_layers")`.

    The language tower's number goes before the one at the top.
    """
    inner = text_section(config)
    if inner is not None:
        for key in _COUNT_KEYS:
            if isinstance(config[inner].get(key), int):
                return inner, key
    return next(((key,) for key in _COUNT_KEYS if isinstance(config.get(key), int)), None)


def find_layers(sizes: Iterable[tuple[str, int]], config: Mapping[str, Any]) -> LayerStack:
    """Find the stack of layers.

    Of several stacks that fit (encoder and decoder, towers), the language tower's, then the
    outermost, then the one with most elements is taken.

    Args:
        sizes: Names and numbers of elements of all tensors.
        config: The content of `config.json`.
    """
    indices: dict[str, set[int]] = {}
    elements: dict[str, int] = {}
    for name, size in sizes:
        match = _NUMBERED.match(name)
        if match is None:
            continue
        prefix = match[1]
        indices.setdefault(prefix, set()).add(int(match[2]))
        elements[prefix] = elements.get(prefix, 0) + size
    wanted = _declared(config)
    fitting = [
        prefix
        for prefix, found in indices.items()
        if (found.issuperset(range(wanted)) if wanted else found == set(range(len(found))))
    ]
    if not fitting:
        return LayerStack("", 0)
    best = min(
        fitting,
        key=lambda prefix: (bool(_OTHER_TOWERS.search(prefix)), -elements[prefix], prefix),
    )
    return LayerStack(best, wanted or len(indices[best]))


def _declared(config: Mapping[str, Any]) -> int | None:
    path = num_layers_key(config)
    if path is None:
        return None
    value: Any = config
    for key in path:
        value = value[key]
    return int(value)
