"""Arcee fusion: take from the other model what matters most."""

from dataclasses import dataclass

import torch

from evomerge.methods.fields import Importance
from evomerge.methods.interface import Block, Facts, Kernel, Settings

__all__ = ["arcee_fusion"]


@dataclass(frozen=True, slots=True, eq=False)
class _Fusion:
    """Take an element from input 1 where its importance reaches the threshold, else from 0."""

    importance: Importance
    threshold: float

    def __call__(self, block: Block, out: torch.Tensor) -> None:
        taken = torch.ge(self.importance(block), self.threshold, out=block.scratch(0))
        base = block.load(0)
        torch.sub(block.load(1), base, out=out)
        out.mul_(taken)
        out.add_(base)


def arcee_fusion(settings: Settings, facts: Facts) -> Kernel:
    """Fuse the elements of outlying importance (Arcee 2024, mergekit's merge method guide).

    Importance is `|d|` times the divergence between the rows' softmax distributions; the threshold
    is the median plus 1.5 times the distance between the quartiles.
    """
    del settings
    row = facts.shape[-1] if facts.shape else 1
    importance = Importance((0, 1), facts.divergence(1, 0), max(row, 1))
    count = facts.numel
    if not count:
        return _Fusion(importance, 0.0)

    def smallest(share: float) -> float:
        """Return the value with this share of the others below it, rounded down to an element."""
        place = int(share * (count - 1))
        return facts.threshold(importance, count - place).magnitude

    threshold = smallest(0.5) + 1.5 * (smallest(0.75) - smallest(0.25))
    return _Fusion(importance, threshold)
