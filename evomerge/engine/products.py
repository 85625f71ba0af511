"""Inner products of inputs or of their task vectors, with the same bits on every path.

A product of two float32 numbers is rounded to float32, which is exact for low-precision models; the
products of a stretch are added up exactly, and its sum is one of those that `math.fsum` adds. Short
vectors, where rounding products would matter, and numbers that are too large take float64.
"""

import math
from collections.abc import Sequence

import torch

from evomerge.engine.native import sums
from evomerge.engine.workspace import BLOCK, Workspace
from evomerge.methods.exact import stretch_sums

__all__ = ["inner_products"]


def inner_products(
    pairs: Sequence[tuple[int, int]],
    tensors: Sequence[torch.Tensor],
    space: Workspace,
    *,
    deltas: bool,
) -> list[float]:
    """Return inner products.

    Args:
        pairs: Of which inputs.
        tensors: The inputs, flat.
        space: Its blocks are what float64 sums are cut into.
        deltas: Whether of task vectors.

    Returns:
        One for each pair; not finite if an input is not.
    """
    if tensors[0].numel() > BLOCK:
        found = sums.products(space.native, pairs, tensors, deltas=deltas) if space.native else None
        if found is None:
            found = _added(space.each(tensors, _Products(pairs, deltas, wide=False)), len(pairs))
        if all(map(math.isfinite, found)):
            return found
    return _added(space.each(tensors, _Products(pairs, deltas, wide=True)), len(pairs))


def _added(blocks: Sequence[Sequence[Sequence[float]]], count: int) -> list[float]:
    return [math.fsum(part for block in blocks for part in block[k]) for k in range(count)]


class _Products:
    """The inner products of a block, in parts."""

    def __init__(self, pairs: Sequence[tuple[int, int]], deltas: bool, *, wide: bool) -> None:
        self._pairs = pairs
        self._deltas = deltas
        self._wide = wide

    def __call__(self, space: Workspace) -> list[list[float]]:
        base = space.load(0) if self._deltas else None
        vectors = {}
        for i in dict.fromkeys(k for pair in self._pairs for k in pair):
            vector = space.scratch(i + 1)
            source = space.load(i)
            vector.copy_(source) if base is None else torch.sub(source, base, out=vector)
            vectors[i] = vector.double() if self._wide else vector
        if not self._wide:
            return [stretch_sums(vectors[i] * vectors[j]) for i, j in self._pairs]
        # In one thread the sums of a block are always the same.
        return [[float(torch.dot(vectors[i], vectors[j]))] for i, j in self._pairs]
