"""Parts of a model that are merged each in its own way: towers, projectors, encoder and decoder.

Parts show in the names of the tensors: one is named by the prefix of its tensors, `vision_tower` of
`vision_tower.…` or `model.vision_tower.…`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints.checkpoint import Checkpoint
from evomerge.checkpoints.header import TensorInfo
from evomerge.checkpoints.layers import LayerStack, find_layers, is_head
from evomerge.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = ["DEFAULT_PART", "PartCheckpoint", "missing_part", "require_parts", "split_parts"]

DEFAULT_PART = "default"
"""The part of all tensors that are in no other."""

_LANGUAGE_TOWER = "text_decoder"
_WRAPPER = "model."
_MAX_NAMES = 3


class PartCheckpoint(Checkpoint):
    """Some of the tensors of a model, with a stack of layers of their own.

    Attributes:
        whole: The model.
        part: What the part is called.
    """

    def __init__(self, whole: Checkpoint, part: str, names: Sequence[str]) -> None:
        """Take a part.

        Args:
            whole: The model.
            part: What the part is called.
            names: Its tensors.
        """
        self.name = whole.name
        self.path = whole.path
        self.config = whole.config
        self.generation_config = whole.generation_config
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: whole.tensors[name] for name in names}
        )
        self.whole = whole
        self.part = part

    def __repr__(self) -> str:
        return f"PartCheckpoint({self.part!r} of {self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PartCheckpoint, (self.whole, self.part, tuple(self.tensors))

    @cached_property
    def layers_in_config(self) -> bool:
        """Whether the layers that the config counts are in this part."""
        return any(self.whole.layers.split(name) for name in self.tensors)

    @cached_property
    def layers(self) -> LayerStack:
        """The stack of layers: the one that the config counts, else one that the names show."""
        if self.layers_in_config:
            return self.whole.layers
        return find_layers(((name, info.numel) for name, info in self.tensors.items()), {})

    @cached_property
    def tied(self) -> bool:
        """Whether the model's output head is its embedding."""
        return self.whole.tied

    @cached_property
    def token_embedding(self) -> str | None:
        """Name of the tensor with a row for each token, or None if another part has it."""
        name = self.whole.token_embedding
        return name if name in self.tensors else None

    @cached_property
    def num_token_rows(self) -> int | None:
        """Number of rows of the model's token embedding; its head may be in this part."""
        return self.whole.num_token_rows

    def read(self, name: str) -> "torch.Tensor":
        """Read one tensor into new memory."""
        return self.whole.read(name)

    def mapped(self, name: str) -> "torch.Tensor":
        """Return one tensor in the memory of its file where that can be, else read it."""
        return self.whole.mapped(name)

    def fetch(self, name: str) -> None:
        """Bring one tensor from the disk into the system's file cache, and wait for it."""
        self.whole.fetch(name)

    @cached_property
    def _fingerprint(self) -> str:
        return self.whole.fingerprint()


@lru_cache(maxsize=64)
def split_parts(checkpoint: Checkpoint, parts: tuple[str, ...]) -> Mapping[str, PartCheckpoint]:
    """Divide a model; what is in none of the parts is left out.

    A tensor belongs to the part with the longest prefix that fits. `text_decoder` is the language
    tower, whatever its prefix; the head belongs to the part that has the tower's layers. What is
    left belongs to `default`.

    Args:
        checkpoint: The model.
        parts: Names of parts.

    Returns:
        The parts that the model has.
    """
    found: dict[str, list[str]] = {part: [] for part in parts}
    layers = checkpoint.layers
    # Of an encoder and a decoder the names do not say which of them the head is for.
    single = layers.count and not checkpoint.config.get("is_encoder_decoder")
    tower = _owner(layers.join(0, ""), parts, layers) if single else None
    for name in checkpoint.tensors:
        owner = _owner(name, parts, layers)
        if owner is None and is_head(name) and layers.prefix.startswith(_parent(name)):
            owner = tower
        if owner is None and DEFAULT_PART in found:
            owner = DEFAULT_PART
        if owner is not None:
            found[owner].append(name)
    return MappingProxyType(
        {part: PartCheckpoint(checkpoint, part, names) for part, names in found.items() if names}
    )


def require_parts(checkpoint: Checkpoint, parts: tuple[str, ...]) -> None:
    """Check that a model has all of the parts, and nothing else.

    Raises:
        CheckpointError: if it has not, with the parts that it has.
    """
    found = split_parts(checkpoint, parts)
    taken = {name for part in found.values() for name in part.tensors}
    rest = [name for name in checkpoint.tensors if name not in taken]
    missing = [part for part in parts if part not in found]
    if missing:
        raise missing_part(checkpoint, missing[0])
    if rest:
        shown = ", ".join(rest[:_MAX_NAMES]) + (", …" if len(rest) > _MAX_NAMES else "")
        raise CheckpointError(
            f"{len(rest)} tensors of {checkpoint.name} are in no module ({shown}); add a module "
            f"{DEFAULT_PART!r} for all that is in no other"
        )


def missing_part(checkpoint: Checkpoint, part: str) -> CheckpointError:
    """Return the error of a model without a part."""
    prefixes = dict.fromkeys(
        name.removeprefix(_WRAPPER).partition(".")[0] for name in checkpoint.tensors
    )
    return CheckpointError(
        f"{checkpoint.name} has no tensors for the module {part!r}: a module is named by the "
        f"prefix of its tensors, here {', '.join(prefixes)}, or {_LANGUAGE_TOWER} (the language "
        f"tower) or {DEFAULT_PART} (all that is in no other)"
    )


def _parent(name: str) -> str:
    """Return what stands before a head's own name: `language_model` of its `lm_head.weight`."""
    return ".".join(name.split(".")[:-2])


def _owner(name: str, parts: tuple[str, ...], layers: LayerStack) -> str | None:
    """Return the part whose prefix fits best, or None."""
    fits: dict[str, int] = {}
    for part in parts:
        prefixes = [f"{part}.", f"{_WRAPPER}{part}."]
        if part == _LANGUAGE_TOWER and layers.count:
            prefixes.append(layers.stem)
        lengths = [len(prefix) for prefix in prefixes if name.startswith(prefix)]
        if part != DEFAULT_PART and lengths:
            fits[part] = max(lengths)
    return max(fits, key=lambda part: fits[part], default=None)
