"""Reinforced agent merging: average what several models changed, keep what only one changed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.methods.interface import Block, Facts, Kernel, Settings
from evomerge.methods.program import Program

__all__ = ["ram", "ramplus_tl"]


@dataclass(frozen=True, slots=True)
class _Changed:
    """1 where model i changed an element and others did too (`shared`) or did not."""

    inputs: tuple[int, ...]
    i: int
    epsilon: float
    shared: bool

    def identity(self) -> tuple[object, ...]:
        """Return its numbers."""
        return "changed", self.i, self.epsilon, self.shared

    def bound(self, _extremes: Sequence[float]) -> float:
        """Return a number that no element exceeds."""
        return 1.0

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute a block; it takes the scratch from 0 to 2."""
        count = _count(block, len(self.inputs) - 1, self.epsilon, block.scratch(2))
        own = _changed(block, self.i, self.epsilon, block.scratch(0))
        if self.shared:
            count.gt_(1.0)
        else:
            count.eq_(1.0)
        return count.mul_(own)

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        changed = _write_changed(program, len(self.inputs) - 1, self.epsilon)
        wanted = ">" if self.shared else "=="
        return program.let(
            f"where({program.sum(changed)} {wanted} F(1.0), {changed[self.i - 1]}, F(0.0))"
        )


@dataclass(frozen=True, slots=True)
class _Ram:
    """The kernel: changed elements, averaged where shared, times a factor where unique."""

    factors: tuple[float, ...]
    epsilon: float

    def __call__(self, block: Block, out: torch.Tensor) -> None:
        base = block.load(0)
        models = len(self.factors)
        count = _count(block, models, self.epsilon, block.scratch(2))
        unique = torch.eq(count, 1.0, out=block.scratch(3))
        count.clamp_(min=1.0)
        out.zero_()
        for i, factor in enumerate(self.factors, start=1):
            changed = _changed(block, i, self.epsilon, block.scratch(0))
            delta = torch.sub(block.load(i), base, out=block.scratch(1)).mul_(changed)
            out.add_(delta)
            if factor != 1.0:
                out.add_(delta.mul_(unique).mul_(factor - 1.0))
        out.div_(count).add_(base)

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        changed = _write_changed(program, len(self.factors), self.epsilon)
        count = program.sum(changed)
        total = "F(0.0)"
        for i, factor in enumerate(self.factors, start=1):
            delta = program.let(f"{program.task_vector(i)} * {changed[i - 1]}")
            total = program.let(f"{total} + {delta}")
            if factor != 1.0:
                more = program.let(f"where({count} == F(1.0), {delta}, F(0.0))")
                total = program.let(f"{total} + {more} * {program.number(factor - 1.0)}")
        least = program.let(f"at_least({count}, F(1.0))")
        return program.let(f"{total} / {least} + {program.load(0)}")


def ram(settings: Settings, facts: Facts) -> Kernel:
    """Average shared changes and keep unique ones (RAM, arXiv:2601.13572)."""
    del facts
    return _Ram((1.0,) * len(settings.own), settings.number("epsilon"))


def ramplus_tl(settings: Settings, facts: Facts) -> Kernel:
    """The same with unique changes made larger (RAM+, arXiv:2601.13572).

    The factor of a model is `1 + r min(rho, alpha)`, rho the number of its shared changes over
    that of its unique ones in this tensor.
    """
    count, epsilon = len(settings.own), settings.number("epsilon")
    inputs = tuple(range(count + 1))
    changes = [_Changed(inputs, i, epsilon, shared) for i in inputs[1:] for shared in (True, False)]
    totals = facts.totals(changes)
    factors = []
    for shared, unique in zip(totals[::2], totals[1::2], strict=True):
        rho = shared / unique if unique else 0.0
        factors.append(1.0 + settings.number("r") * min(rho, settings.number("alpha")))
    return _Ram(tuple(factors), epsilon)


def _changed(block: Block, i: int, epsilon: float, out: torch.Tensor) -> torch.Tensor:
    torch.sub(block.load(i), block.load(0), out=out)
    return out.abs_().gt_(epsilon)


def _count(block: Block, models: int, epsilon: float, out: torch.Tensor) -> torch.Tensor:
    """Return how many models changed each element; it takes scratch 0."""
    out.zero_()
    for i in range(1, models + 1):
        out.add_(_changed(block, i, epsilon, block.scratch(0)))
    return out


def _write_changed(program: Program, models: int, epsilon: float) -> list[str]:
    """Write 1 for each model that changed the element and 0 for the others."""
    bound = program.number(epsilon)
    return [
        program.let(f"where(abs({program.task_vector(i)}) > {bound}, F(1.0), F(0.0))")
        for i in range(1, models + 1)
    ]
