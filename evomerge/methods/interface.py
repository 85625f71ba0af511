"""What a merge method is given and what it gives back.

A method works in two steps. `method(settings, facts)` turns the numbers of a recipe and static
facts about the whole tensors (norms, thresholds) into a `Kernel`; the kernel merges one block of
elements after the other. All arithmetic is float32 and elementwise, one rounding an operation, so
the bits do not depend on how a tensor is cut into blocks.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from evomerge.methods.draws import Draws

__all__ = [
    "Block",
    "Facts",
    "Field",
    "Groups",
    "Kernel",
    "MergeMethod",
    "Settings",
    "Threshold",
    "Value",
]

Value = float | int | bool | str


@dataclass(frozen=True, slots=True)
class Settings:
    """The resolved parameters of one tensor.

    Attributes:
        shared: Values that hold for all inputs.
        own: Values of each input, in the order of the inputs; the base of task vectors, input 0,
            has none and no entry.
        has_base: Whether input 0 is the base of task vectors.
    """

    shared: Mapping[str, Value]
    own: tuple[Mapping[str, Value], ...]
    has_base: bool = False

    def number(self, name: str) -> float:
        """Return a shared value as a float."""
        return float(self.shared[name])

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return each input's value as a float."""
        return tuple(float(values[name]) for values in self.own)

    def flag(self, name: str) -> bool:
        """Return a shared value as a bool."""
        return bool(self.shared[name])


@dataclass(frozen=True, slots=True)
class Threshold:
    """Which elements are the k largest.

    Attributes:
        magnitude: The k-th largest magnitude.
        last_index: Of the elements that have exactly this magnitude, those up to this flat index
            are in; None for all of them.
    """

    magnitude: float
    last_index: int | None


@dataclass(frozen=True, slots=True)
class Groups:
    """A division of a tensor's elements: rows, columns, or the filters of a convolution.

    Attributes:
        kind: `rows` are `size` neighbours each; `columns` are elements `size` apart.
        size: Elements in a row, or number of columns.
    """

    kind: Literal["rows", "columns"]
    size: int


class Field(Protocol):
    """A number for each element, computed from the inputs: a task vector, a variance.

    A field must be hashable: facts about it are kept under it.
    """

    @property
    def inputs(self) -> tuple[int, ...]:
        """The inputs that it depends on."""
        ...

    def identity(self) -> Hashable:
        """Return what distinguishes it from other fields of the same inputs; None: not kept."""
        ...

    def bound(self, extremes: Sequence[float]) -> float:
        """Return a number that no element exceeds, from the largest magnitude of each input."""
        ...

    def __call__(self, block: "Block") -> torch.Tensor:
        """Return a block of it, float32 of shape (n,), in scratch that the caller may change."""
        ...


class Facts(Protocol):
    """Static facts about the whole input tensors; the task vector of i is input i minus input 0."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the tensor."""
        ...

    @property
    def numel(self) -> int:
        """Number of elements of the tensor."""
        ...

    def gram(self, inputs: Sequence[int], *, deltas: bool = False) -> list[list[float]]:
        """Return the inner products of inputs, or of their task vectors."""
        ...

    def dots(self, i: int, j: int, groups: Groups, *, deltas: bool = False) -> torch.Tensor:
        """Return the inner products of each group, float64 of shape (groups,) on the CPU."""
        ...

    def threshold(self, field: Field, kept: int) -> Threshold:
        """Return what separates the `kept` largest magnitudes of a field."""
        ...

    def ordered(self, field: Field, places: Sequence[int]) -> list[float]:
        """Return the magnitudes of a field that have so many others before them in order.

        For places that do not change from candidate to candidate; `threshold` is for those that do.
        """
        ...

    def total(self, field: Field) -> float:
        """Return the sum of a field's magnitudes."""
        ...

    def totals(self, fields: Sequence[Field]) -> list[float]:
        """Return the sums of the magnitudes of several fields."""
        ...

    def ranks(self, i: int) -> torch.Tensor:
        """Return each element's place in its row by magnitude of task vector i, 0 the smallest.

        A row is the last dimension. Among equals the earlier element has the lower rank. An
        integer tensor of shape (numel,).
        """
        ...

    def divergence(self, i: int, j: int) -> torch.Tensor:
        """Return `KL(softmax(x_i) || softmax(x_j))` of each row, float32 of shape (rows,)."""
        ...

    def draws(self, i: int) -> Draws:
        """Return the random numbers of input i."""
        ...

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor where the inputs are."""
        ...


class Block(Protocol):
    """A stretch of the flattened inputs, and scratch memory of its size.

    Tensors of `load` are read-only. Scratch keeps its content only until the kernel returns.
    """

    @property
    def start(self) -> int:
        """Flat index of the first element."""
        ...

    @property
    def num_inputs(self) -> int:
        """Number of inputs."""
        ...

    def load(self, i: int) -> torch.Tensor:
        """Return input i as float32, shape (n,); one i > 0 at a time."""
        ...

    def scratch(self, slot: int) -> torch.Tensor:
        """Return float32 scratch, shape (n,)."""
        ...

    def integers(self, slot: int) -> torch.Tensor:
        """Return int32 scratch, shape (n,)."""
        ...

    def iota(self) -> torch.Tensor:
        """Return 0, 1, …, n - 1, int32, read-only."""
        ...


Kernel = Callable[[Block, torch.Tensor], None]
"""Merges a block of n elements into the second argument, float32 of shape (n,)."""

MergeMethod = Callable[[Settings, Facts], Kernel]
