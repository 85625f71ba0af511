"""The task-vector family: one composition of sparsify, consensus and scale.

With task vectors `d_i = x_i - base`:

    out = base + lambda * consensus_i(w_i * sparsify(d_i))

| method | sparsify | consensus |
|---|---|---|
| task_arithmetic | none | sum |
| ties | keep the largest magnitudes | elected sign |
| dare_linear | drop at random, rescale | sum |
| dare_ties | drop at random, rescale | elected sign |
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from evomerge.methods.draws import Draws, drop
from evomerge.methods.interface import Block, Facts, Kernel, Settings, Threshold

__all__ = ["TaskVectors", "dare_linear", "dare_ties", "task_arithmetic", "ties"]

_NO_WEIGHT = 1e-8
_FIRST_TERM = 2  # scratch 0 and 1 belong to sparsifiers and to the election

Sparsifier = Callable[[Block, torch.Tensor], None]
"""Sets elements of a block of a task vector, float32 of shape (n,), to 0."""


@dataclass(frozen=True, slots=True)
class TaskVectors:
    """The kernel of the family; input 0 is the base.

    Attributes:
        weights: w_i of inputs 1, 2, ….
        gains: Factors on the sparse task vectors: w_i times the rescaling.
        sparsifiers: One for each task vector, or None to keep all of it.
        elect: Whether a sign is elected and only what agrees is summed.
        normalize: Whether to divide by the sum of the weights that took part.
        scale: lambda.
    """

    weights: tuple[float, ...]
    gains: tuple[float, ...]
    sparsifiers: tuple[Sparsifier | None, ...]
    elect: bool
    normalize: bool
    scale: float

    def __call__(self, block: Block, out: torch.Tensor) -> None:
        """Merge one block."""
        base = block.load(0)
        if self.elect:
            self._sum_agreeing(block, base, out)
        else:
            self._sum_all(block, base, out)
        if self.scale != 1.0:
            out.mul_(self.scale)
        out.add_(base)

    def _sum_all(self, block: Block, base: torch.Tensor, out: torch.Tensor) -> None:
        for i in range(len(self.weights)):
            term = out if i == 0 else block.scratch(_FIRST_TERM)
            self._weighted(i, block, base, term)
            if i:
                out.add_(term)
        total = sum(self.weights)
        if self.normalize and abs(total) > _NO_WEIGHT:
            out.div_(total)

    def _sum_agreeing(self, block: Block, base: torch.Tensor, out: torch.Tensor) -> None:
        """Elect the sign of the sum and add what has it (Yadav et al. 2023, section 3)."""
        count = len(self.weights)
        terms = [block.scratch(_FIRST_TERM + i) for i in range(count)]
        for i, term in enumerate(terms):
            self._weighted(i, block, base, term)
            out.copy_(term) if i == 0 else out.add_(term)
        # gamma = sgn(sum_i w_i d_i), where a sum of 0 counts as plus
        sign, spare = block.scratch(0), block.scratch(1)
        torch.ge(out, 0.0, out=sign)
        sign.mul_(2.0).sub_(1.0)
        # Times the sign, what agrees is positive: the rest is clamped away and 0 never agrees.
        for i, term in enumerate(terms):
            term.mul_(sign).clamp_(min=0.0)
            out.copy_(term) if i == 0 else out.add_(term)
        out.mul_(sign)
        if self.normalize:
            # The sign is not needed any more: its memory takes the divisor.
            divisor = sign.zero_()
            for weight, term in zip(self.weights, terms, strict=True):
                divisor.add_(torch.gt(term, 0.0, out=spare).mul_(weight))
            torch.abs(divisor, out=spare)
            # Nothing agrees: 0 / (0 + 1)
            divisor.add_(torch.lt(spare, _NO_WEIGHT, out=spare))
            out.div_(divisor)

    def _weighted(self, i: int, block: Block, base: torch.Tensor, term: torch.Tensor) -> None:
        torch.sub(block.load(i + 1), base, out=term)
        sparsifier = self.sparsifiers[i]
        if sparsifier is not None:
            sparsifier(block, term)
        term.mul_(self.gains[i])


@dataclass(frozen=True, slots=True)
class _Trim:
    """Keep the largest magnitudes (Yadav et al. 2023, step 1)."""

    threshold: Threshold
    below: float
    """The float32 just below the threshold, because hardshrink zeroes |d| <= bound."""

    def __call__(self, block: Block, delta: torch.Tensor) -> None:
        last = self.threshold.last_index
        cut = delta.numel() if last is None else max(0, last + 1 - block.start)
        if cut >= delta.numel():
            _shrink(delta, self.below)
            return
        _shrink(delta[:cut], self.below)
        _shrink(delta[cut:], self.threshold.magnitude)


def _shrink(delta: torch.Tensor, bound: float) -> None:
    if bound >= 0.0:
        torch.ops.aten.hardshrink.out(delta, bound, out=delta)


def _trim(threshold: Threshold) -> _Trim:
    below = np.nextafter(np.float32(threshold.magnitude), np.float32(-1.0))
    return _Trim(threshold, float(below))


@dataclass(frozen=True, slots=True)
class _Clear:
    """Keep nothing (density 0)."""

    def __call__(self, _block: Block, delta: torch.Tensor) -> None:
        delta.zero_()


@dataclass(frozen=True, slots=True)
class _Drop:
    """Drop at random (Yu et al. 2024, equation 1)."""

    draws: Draws
    density: float

    def __call__(self, block: Block, delta: torch.Tensor) -> None:
        scratch = block.integers(1)
        numbers = self.draws.block(block.start, block.iota(), block.integers(0), scratch)
        drop(delta, self.density, numbers, scratch)


def task_arithmetic(settings: Settings, facts: Facts) -> Kernel:
    """`out = base + lambda sum_i w_i d_i` (Ilharco et al. 2023, section 2)."""
    del facts
    weights = settings.numbers("weight")
    return _compose(settings, weights, (None,) * len(weights), elect=False)


def ties(settings: Settings, facts: Facts) -> Kernel:
    """Trim, elect sign, disjoint merge (Yadav et al. 2023, section 3).

    A density keeps `int(density * n)` elements, at least one; 0 keeps none and 1 all.
    """
    sparsifiers: list[Sparsifier | None] = []
    for i, values in enumerate(settings.own, start=1):
        density = float(values["density"])
        if density >= 1.0 or facts.numel == 0:
            sparsifiers.append(None)
        elif density <= 0.0:
            sparsifiers.append(_Clear())
        else:
            kept = max(1, int(density * facts.numel))
            sparsifiers.append(_trim(facts.threshold(i, kept)))
    return _compose(settings, settings.numbers("weight"), tuple(sparsifiers), elect=True)


def dare_linear(settings: Settings, facts: Facts) -> Kernel:
    """Drop and rescale (Yu et al. 2024, section 3.2), then the weighted sum."""
    return _dare(settings, facts, elect=False)


def dare_ties(settings: Settings, facts: Facts) -> Kernel:
    """Drop and rescale (Yu et al. 2024, section 3.2), then elect sign and disjoint merge."""
    return _dare(settings, facts, elect=True)


def _dare(settings: Settings, facts: Facts, *, elect: bool) -> Kernel:
    gains: list[float] = []
    sparsifiers: list[Sparsifier | None] = []
    for i, values in enumerate(settings.own, start=1):
        density, gain = float(values["density"]), float(values["weight"])
        if density >= 1.0:
            sparsifiers.append(None)
        elif density <= 0.0:
            sparsifiers.append(_Clear())
        else:
            sparsifiers.append(_Drop(facts.draws(i), density))
            if settings.flag("rescale"):
                gain *= _rescaling(settings.shared["rescale_norm"], facts, i, density)
        gains.append(gain)
    return _compose(settings, tuple(gains), tuple(sparsifiers), elect=elect)


def _rescaling(norm: object, facts: Facts, i: int, density: float) -> float:
    """Return the factor that makes up for what was dropped."""
    if norm == "density":
        return 1.0 / density  # Yu et al. 2024, equation 2: divide by 1 - p
    kept = facts.kept_l1(i, density)
    return facts.l1(i) / kept if kept > 0.0 else 1.0


def _compose(
    settings: Settings,
    gains: tuple[float, ...],
    sparsifiers: tuple[Sparsifier | None, ...],
    *,
    elect: bool,
) -> TaskVectors:
    return TaskVectors(
        weights=settings.numbers("weight"),
        gains=gains,
        sparsifiers=sparsifiers,
        elect=elect,
        normalize=settings.flag("normalize"),
        scale=settings.number("lambda"),
    )
