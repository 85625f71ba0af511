"""Reinforced agent merging: average what several models changed, keep what only one changed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.methods.interface import Block, Facts, Kernel, Settings

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
    factors = []
    for i in inputs[1:]:
        shared, unique = (
            facts.total(_Changed(inputs, i, epsilon, shared)) for shared in (True, False)
        )
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
