"""Arcee fusion: take from the other model what matters most."""

from dataclasses import dataclass

import numpy as np
import torch

from evomerge.methods.fields import Importance
from evomerge.methods.interface import Block, Facts, Kernel, Settings
from evomerge.methods.program import Program

__all__ = ["arcee_fusion"]

_QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True, eq=False)
class _Fusion:
    """Take an element from input 1 where its importance reaches the threshold, else from 0.

    Attributes:
        importance: Of each element.
        threshold: A float32.
    """

    importance: Importance
    threshold: float

    def __call__(self, block: Block, out: torch.Tensor) -> None:
        taken = self.importance(block) >= self.threshold
        torch.where(taken, block.load(1), block.load(0), out=out)

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        importance, threshold = self.importance.write(program), program.number(self.threshold)
        base, other = program.load(0), program.load(1)
        return program.let(f"where({importance} >= {threshold}, {other}, {base})")


def arcee_fusion(settings: Settings, facts: Facts) -> Kernel:
    """Fuse the elements of outlying importance (Arcee 2024, mergekit's merge method guide).

    Importance is `|d|` times the divergence between the rows' softmax distributions; the threshold
    is the median plus 1.5 times the distance between the quartiles, each of them rounded down to an
    element.
    """
    del settings
    row = facts.shape[-1] if facts.shape else 1
    importance = Importance((0, 1), facts.divergence(1, 0), max(row, 1))
    if not facts.numel:
        return _Fusion(importance, 0.0)
    places = [int(share * (facts.numel - 1)) for share in _QUARTILES]
    low, median, high = facts.ordered(importance, places)
    return _Fusion(importance, float(np.float32(median + 1.5 * (high - low))))
