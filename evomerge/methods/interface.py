"""What a merge method is given and what it gives back.

A method works in two steps. `method(settings, facts)` turns the numbers of a recipe and static
facts about the whole tensors (norms, thresholds) into a `Kernel`; the kernel merges one block of
elements after the other. All arithmetic is float32 and elementwise, one rounding an operation, so
the bits do not depend on how a tensor is cut into blocks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from evomerge.methods.draws import Draws

__all__ = ["Block", "Facts", "Kernel", "MergeMethod", "Settings", "Threshold"]

Value = float | int | bool | str


@dataclass(frozen=True, slots=True)
class Settings:
    """The resolved parameters of one tensor.

    Attributes:
        shared: Values that hold for all inputs.
        own: Values of each input, in the order of the inputs; the base of task vectors, input 0,
            has none and no entry.
    """

    shared: Mapping[str, Value]
    own: tuple[Mapping[str, Value], ...]

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
    """Which elements of a task vector are its k largest in magnitude.

    Attributes:
        magnitude: The k-th largest magnitude.
        last_index: Of the elements that have exactly this magnitude, those up to this flat index
            are kept; None keeps all of them.
    """

    magnitude: float
    last_index: int | None


class Facts(Protocol):
    """Static facts about the whole input tensors; the task vector of i is input i minus input 0."""

    @property
    def numel(self) -> int:
        """Number of elements of the tensor."""
        ...

    def dot(self, i: int, j: int) -> float:
        """Return the inner product of inputs i and j, summed in float64."""
        ...

    def threshold(self, i: int, kept: int) -> Threshold:
        """Return what separates the `kept` largest magnitudes of task vector i."""
        ...

    def draws(self, i: int) -> Draws:
        """Return the random numbers of input i."""
        ...

    def l1(self, i: int) -> float:
        """Return the L1 norm of task vector i."""
        ...

    def kept_l1(self, i: int, density: float) -> float:
        """Return the L1 norm of those elements of task vector i that random dropping keeps."""
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
