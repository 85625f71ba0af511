"""Which elements of a task vector are kept: the first step of the task-vector family."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from evomerge.methods.draws import Draws, keep
from evomerge.methods.interface import Block, Facts, Field, Threshold
from evomerge.methods.program import Program, Written, just_below

__all__ = [
    "Clear",
    "Drop",
    "RankedDrop",
    "Selection",
    "Sparsifier",
    "Trim",
    "Window",
    "trim",
    "window",
]

_MASK = -1  # a slot that no other step takes


class Sparsifier(Protocol):
    """Says which elements of a task vector are kept."""

    def __call__(self, block: Block, delta: torch.Tensor, /) -> None:
        """Set elements of a block, float32 of shape (n,), to 0; uses scratch 0 and 1."""
        ...

    def write(self, program: Program, delta: str) -> str:
        """Write the same for one element; return the name of what is left of it."""
        ...


@dataclass(frozen=True, slots=True)
class Clear:
    """Keep nothing (density 0)."""

    def __call__(self, _block: Block, delta: torch.Tensor) -> None:
        """Clear a block."""
        delta.zero_()

    def write(self, _program: Program, _delta: str) -> str:
        """Write 0."""
        return "F(0.0)"


@dataclass(frozen=True, slots=True)
class Trim:
    """Keep the largest magnitudes (Yadav et al. 2023, step 1)."""

    threshold: Threshold

    def __call__(self, block: Block, delta: torch.Tensor) -> None:
        """Trim a block."""
        magnitude, last = self.threshold.magnitude, self.threshold.last_index
        below = just_below(magnitude)
        cut = delta.numel() if last is None else max(0, last + 1 - block.start)
        if cut >= delta.numel():
            _shrink(delta, below)
            return
        _shrink(delta[:cut], below)
        _shrink(delta[cut:], magnitude)

    def write(self, program: Program, delta: str) -> str:
        """Write the same for one element."""
        bound = program.above(self.threshold)
        return program.let(f"where(abs({delta}) > {bound}, {delta}, F(0.0))")


@dataclass(frozen=True, slots=True)
class Window:
    """Keep the largest magnitudes but the very largest (Davari and Belilovsky 2023, section 3).

    Attributes:
        kept: Ends the window below: with `cut`, what is kept.
        cut: The largest of all, which are dropped.
    """

    kept: Trim | None
    cut: Threshold

    def __call__(self, block: Block, delta: torch.Tensor) -> None:
        """Clear a block outside the window."""
        magnitude, last = self.cut.magnitude, self.cut.last_index
        size = torch.abs(delta, out=block.scratch(0))
        inside = block.integers(1)
        torch.lt(size, magnitude, out=inside)
        if last is not None and last + 1 - block.start < delta.numel():
            start = max(0, last + 1 - block.start)
            torch.le(size[start:], magnitude, out=inside[start:])
        keep(delta, inside)
        if self.kept is not None:
            self.kept(block, delta)

    def write(self, program: Program, delta: str) -> str:
        """Write the same for one element."""
        bound = program.above(self.cut)
        rest = program.let(f"where(abs({delta}) > {bound}, F(0.0), {delta})")
        return rest if self.kept is None else self.kept.write(program, rest)


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop at random (Yu et al. 2024, equation 1).

    Attributes:
        draws: Random numbers.
        bound: A draw below it keeps the element.
    """

    draws: Draws
    bound: int

    def __call__(self, block: Block, delta: torch.Tensor) -> None:
        """Drop elements of a block."""
        scratch = block.integers(1)
        numbers = self.draws.block(block.start, block.iota(), block.integers(0), scratch)
        keep(delta, torch.lt(numbers, self.bound, out=scratch))

    def write(self, program: Program, delta: str) -> str:
        """Write the same for one element."""
        drawn, bound = program.draw(self.draws), program.integer(self.bound)
        return program.let(f"where({drawn} < {bound}, {delta}, F(0.0))")


@dataclass(frozen=True, slots=True, eq=False)
class RankedDrop:
    """Drop at random, large magnitudes less often (Deep et al. 2024, equation 3).

    Attributes:
        draws: Random numbers.
        ranks: Each element's place in its row, of shape (numel,).
        low: A draw below `low + step * rank` keeps the element.
        step: See `low`; neither leaves the range of int32.
    """

    draws: Draws
    ranks: torch.Tensor
    low: int
    step: int

    def __call__(self, block: Block, delta: torch.Tensor) -> None:
        """Drop elements of a block."""
        scratch = block.integers(1)
        numbers = self.draws.block(block.start, block.iota(), block.integers(0), scratch)
        bounds = block.integers(2).copy_(self.ranks[block.start : block.start + delta.numel()])
        keep(delta, torch.lt(numbers, bounds.mul_(self.step).add_(self.low), out=scratch))

    def write(self, program: Program, delta: str) -> str:
        """Write the same for one element."""
        drawn, rank = program.draw(self.draws), program.tensor(self.ranks)
        low, step = program.integer(self.low), program.integer(self.step)
        bound = program.let(f"I(I({rank} * {step}) + {low})")
        return program.let(f"where({drawn} < {bound}, {delta}, F(0.0))")


@dataclass(frozen=True, slots=True)
class Selection:
    """The elements where a field is among the largest, for all task vectors alike."""

    field: Field
    threshold: Threshold

    def mask(self, block: Block) -> torch.Tensor:
        """Return 1 where a block's elements are selected and 0 elsewhere, int32."""
        magnitude, last = self.threshold.magnitude, self.threshold.last_index
        value = self.field(block)
        mask = torch.ge(value, magnitude, out=block.integers(_MASK))
        if last is not None and last + 1 - block.start < value.numel():
            start = max(0, last + 1 - block.start)
            torch.gt(value[start:], magnitude, out=mask[start:])
        return mask

    def write(self, program: Program, value: str) -> str:
        """Write a value where an element is selected and 0 elsewhere."""
        assert isinstance(self.field, Written)  # noqa: S101 - every field that selects is
        size = self.field.write(program)
        return program.let(f"where({size} > {program.above(self.threshold)}, {value}, F(0.0))")


def trim(facts: Facts, threshold: Callable[[int], Threshold], density: float) -> Sparsifier | None:
    """Return what keeps `int(density * n)` elements, at least one; 0 keeps none and 1 all."""
    if density >= 1.0 or facts.numel == 0:
        return None
    if density <= 0.0:
        return Clear()
    return Trim(threshold(max(1, int(density * facts.numel))))


def window(
    facts: Facts, threshold: Callable[[int], Threshold], density: float, gamma: float
) -> Sparsifier | None:
    """Return what drops the `int(gamma * n)` largest and keeps the next `int(density * n)`.

    Where there are not that many left, fewer of the largest are dropped.
    """
    numel, kept = facts.numel, int(density * facts.numel)
    cut = min(int(gamma * numel), numel - kept)
    if kept == 0 and numel:
        return Clear()
    if cut == 0:
        return None if kept == numel else Trim(threshold(kept))
    rest = Trim(threshold(cut + kept)) if cut + kept < numel else None
    return Window(rest, threshold(cut))


def _shrink(delta: torch.Tensor, bound: float) -> None:
    if bound >= 0.0:
        torch.ops.aten.hardshrink.out(delta, bound, out=delta)
