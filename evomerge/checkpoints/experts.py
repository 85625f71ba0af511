"""Experts, which files have in one tensor or one by one.

transformers 5 has all experts of a layer in two parameters, `gate_up_proj` (gate first) and
`down_proj`; files of many architectures have three matrices for each expert.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints.checkpoint import Checkpoint
from evomerge.checkpoints.header import TensorInfo

if TYPE_CHECKING:
    import torch

__all__ = ["ParameterPlace", "ParameterPlaces", "StackedCheckpoint", "stack_experts"]

# The names that experts have in files of their own, by the parameter that transformers makes.
_PARTS = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
_NUMBER = re.compile(r"(?:^|\.)(\d+\..*)$")
_OTHER_NAMES = (".block_sparse_moe.", ".mlp.")


@dataclass(frozen=True, slots=True)
class ParameterPlace:
    """Where a parameter is in a model's files, as its module has it.

    Attributes:
        count: Number of experts; 1 for a plain matrix.
        rows: Rows of an expert.
        columns: Columns of an expert.
        tensors: The tensors that hold it: the expert whose tensor each is (None for all), and the
            place of its first row.
    """

    count: int
    rows: int
    columns: int
    tensors: Mapping[str, tuple[int | None, int]]


class ParameterPlaces:
    """Finds parameters of modules among the tensors of a model's files."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self._tensors = tensors
        self._by_tail: dict[str, list[str]] = {}
        for name in tensors:
            self._by_tail.setdefault(_tail(name), []).append(name)

    def find(self, module: str, parameter: str) -> ParameterPlace | None:
        """Return where a parameter is; None if it is not there, or more than once."""
        name = self._name(f"{module}.{parameter}")
        if name is not None:
            shape = self._tensors[name].shape
            if len(shape) not in (2, 3):
                return None
            rows, columns = shape[-2:]
            count = shape[0] if len(shape) == 3 else 1
            return ParameterPlace(count, rows, columns, {name: (None, 0)})
        for parts in _PARTS.get(parameter, ()):
            found = self._experts(module, parts)
            if found:
                return found
        return None

    def _experts(self, module: str, parts: tuple[str, ...]) -> ParameterPlace | None:
        tensors: dict[str, tuple[int | None, int]] = {}
        shapes = set()
        count = 0
        while True:
            names = [self._name(f"{module}.{count}.{part}.weight") for part in parts]
            if None in names:
                break
            start = 0
            for name in names:
                shape = self._tensors[str(name)].shape
                shapes.add(shape)
                tensors[str(name)] = (count, start)
                start += shape[0]
            count += 1
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            return None
        rows, columns = next(iter(shapes))
        return ParameterPlace(count, rows * len(parts), columns, tensors)

    def _name(self, wanted: str) -> str | None:
        if wanted in self._tensors:
            return wanted
        names = self._by_tail.get(_tail(wanted), [])
        return names[0] if len(names) == 1 else None


def _tail(name: str) -> str:
    """Return a name from its first number on, the experts' module under one name."""
    match = _NUMBER.search(name)
    return (match[1] if match else name).replace(*_OTHER_NAMES)


class StackedCheckpoint(Checkpoint):
    """A checkpoint with the experts of a layer in one tensor, where its files have them one by one.

    Attributes:
        single: The checkpoint.
    """

    def __init__(
        self, single: Checkpoint, stacks: Mapping[str, tuple[ParameterPlace, bool]]
    ) -> None:
        """Put experts together.

        Args:
            single: The checkpoint.
            stacks: Name of each new tensor -> its place in the files, and whether an expert's
                columns come before its rows.
        """
        self.name = single.name
        self.single = single
        self.path = single.path
        self.config = single.config
        self.generation_config = single.generation_config
        self._stacks = stacks
        infos = dict(single.tensors)
        for name, (place, turned) in stacks.items():
            parts = [infos.pop(part) for part in place.tensors]
            sizes = (place.columns, place.rows) if turned else (place.rows, place.columns)
            size = sum(part.num_bytes for part in parts)
            infos[name] = replace(parts[0], shape=(place.count, *sizes), num_bytes=size)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(infos)

    def __repr__(self) -> str:
        return f"StackedCheckpoint({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return StackedCheckpoint, (self.single, self._stacks)

    def read(self, name: str) -> "torch.Tensor":
        """Read one tensor, of all experts if it is one of theirs."""
        if name not in self._stacks:
            return self.single.read(name)
        import torch

        info = self.tensors[name]
        place, turned = self._stacks[name]
        result = torch.empty(info.shape, dtype=getattr(torch, info.dtype))
        for part, (expert, start) in place.tensors.items():
            tensor = self.single.mapped(part)
            goal = result[expert or 0]
            rows = (goal.mT if turned else goal)[start : start + tensor.shape[0]]
            rows.copy_(tensor)
        return result

    def mapped(self, name: str) -> "torch.Tensor":
        """Return one tensor in the memory of its file where that can be, else read it."""
        return self.read(name) if name in self._stacks else self.single.mapped(name)

    def fetch(self, name: str) -> None:
        """Bring one tensor from the disk into the system's file cache, and wait for it."""
        parts = self._stacks[name][0].tensors if name in self._stacks else (name,)
        for part in parts:
            self.single.fetch(part)

    @cached_property
    def _fingerprint(self) -> str:
        return self.single.fingerprint()


def stack_experts(checkpoint: Checkpoint, wanted: Mapping[str, tuple[int, ...]]) -> Checkpoint:
    """Return a checkpoint with the experts of a layer in one tensor where others have them so.

    Args:
        checkpoint: The checkpoint.
        wanted: Names of its tensors as others have them, and the shapes there.
    """
    places = ParameterPlaces(checkpoint.tensors)
    found: dict[str, ParameterPlace] = {}
    for name, shape in wanted.items():
        module, _, parameter = name.rpartition(".")
        if name not in checkpoint.tensors and parameter in _PARTS and len(shape) == 3:
            place = places.find(module, parameter)
            if place is not None:
                found[name] = place
    turns = {
        (wanted[name] == (place.count, place.columns, place.rows))
        for name, place in found.items()
        if place.rows != place.columns
    }
    if len(turns) != 1:
        return checkpoint
    turned = turns.pop()
    return StackedCheckpoint(checkpoint, {name: (place, turned) for name, place in found.items()})
