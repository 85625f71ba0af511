"""Numbers for each element that methods add up or rank: fields over the inputs."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from evomerge.methods.interface import Block, Groups
from evomerge.methods.program import Program
from evomerge.methods.sparsifiers import Sparsifier

__all__ = ["Importance", "Sparse", "TaskVector", "Variance"]


@dataclass(frozen=True, slots=True)
class TaskVector:
    """Task vector i."""

    i: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """The base and input i."""
        return 0, self.i

    def identity(self) -> Hashable:
        """Return its name."""
        return "task vector"

    def bound(self, extremes: Sequence[float]) -> float:
        """Return a number that no element exceeds."""
        return extremes[0] + extremes[self.i]

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute a block."""
        return torch.sub(block.load(self.i), block.load(0), out=block.scratch(2))

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        return program.task_vector(self.i)


@dataclass(frozen=True, slots=True)
class Sparse:
    """What a sparsifier leaves of task vector i.

    Attributes:
        i: The input.
        sparsify: Sets elements of a block to 0.
        name: What distinguishes the sparsifier; None if the field changes with every candidate
            and is not worth keeping.
    """

    i: int
    sparsify: Sparsifier
    name: Hashable = None

    @property
    def inputs(self) -> tuple[int, ...]:
        """The base and input i."""
        return 0, self.i

    def identity(self) -> Hashable:
        """Return the sparsifier's name."""
        return self.name

    def bound(self, extremes: Sequence[float]) -> float:
        """Return a number that no element exceeds."""
        return extremes[0] + extremes[self.i]

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute a block."""
        delta = TaskVector(self.i)(block)
        self.sparsify(block, delta)
        return delta

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        return self.sparsify.write(program, program.task_vector(self.i))


@dataclass(frozen=True, slots=True)
class Variance:
    """How far the task vectors of all models are from each other at an element."""

    inputs: tuple[int, ...]

    def identity(self) -> Hashable:
        """Return its name."""
        return "variance"

    def bound(self, extremes: Sequence[float]) -> float:
        """Return a number that no element exceeds."""
        return (2.0 * (extremes[0] + max(extremes))) ** 2

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute a block; it takes the scratch from 0 to 2."""
        base, count = block.load(0), len(self.inputs) - 1
        mean, term, total = block.scratch(0).zero_(), block.scratch(1), block.scratch(2).zero_()
        for i in self.inputs[1:]:
            mean.add_(torch.sub(block.load(i), base, out=term))
        mean.div_(count)
        for i in self.inputs[1:]:
            torch.sub(block.load(i), base, out=term)
            total.add_(term.sub_(mean).square_())
        return total.div_(count)

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        deltas = [program.task_vector(i) for i in self.inputs[1:]]
        mean = program.let(f"{program.sum(deltas)} / F({len(deltas)})")
        away = [program.let(f"{delta} - {mean}") for delta in deltas]
        squares = [program.let(f"{rest} * {rest}") for rest in away]
        return program.let(f"{program.sum(squares)} / F({len(deltas)})")


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """The change of an element times how much its row's softmax changes.

    Attributes:
        inputs: The two models.
        divergence: float32 of shape (rows,).
        row: Elements in a row.
    """

    inputs: tuple[int, ...]
    divergence: torch.Tensor
    row: int

    def identity(self) -> Hashable:
        """Return its name."""
        return "importance"

    def bound(self, extremes: Sequence[float]) -> float:
        """Return a number that no element exceeds."""
        largest = float(self.divergence.max()) if self.divergence.numel() else 0.0
        return (extremes[0] + extremes[1]) * largest

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute a block; it takes the scratch 2."""
        first, second = self.inputs
        change = torch.sub(block.load(second), block.load(first), out=block.scratch(2)).abs_()
        start, count = block.start, change.numel()
        rows = torch.arange(start, start + count, device=change.device).div_(
            self.row, rounding_mode="floor"
        )
        return change.mul_(self.divergence.index_select(0, rows))

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        first, second = self.inputs
        change = program.let(f"{program.load(second)} - {program.load(first)}")
        divergence = program.of_group(self.divergence, Groups("rows", self.row))
        return program.let(f"abs({change}) * {divergence}")
