"""From a number of elements to keep to the exact threshold of their magnitudes.

float32 magnitudes order as their bit patterns do, so everything here counts integers. A small
tensor is sorted once. A large one gets a histogram of the upper bits; a threshold then needs the
elements of one bin only.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from evomerge.methods.interface import Threshold

__all__ = ["SMALL", "BinnedMagnitudes", "Deltas", "SortedMagnitudes", "row_ranks"]

SMALL = 1 << 16
"""Up to this many elements a tensor's magnitudes are kept sorted."""

Deltas = Callable[[], Iterator[tuple[int, torch.Tensor]]]
"""Gives the blocks of a task vector: flat index of the first element, and float32 scratch."""

_LOW_BITS = 16
_BINS = 1 << (31 - _LOW_BITS)

Integers = np.ndarray[Any, np.dtype[np.int64]]


class SortedMagnitudes:
    """All magnitudes from the largest to the smallest, the earlier element first among equals."""

    def __init__(self, deltas: Deltas) -> None:
        """Sort a task vector's magnitudes."""
        blocks = [_patterns(delta).copy() for _, delta in deltas()]
        patterns = np.concatenate(blocks)
        self._order = np.argsort(-patterns, kind="stable").astype(np.int32)
        self._patterns = patterns[self._order]

    def threshold(self, kept: int) -> Threshold:
        """Return what separates the `kept` largest."""
        pattern = self._patterns[kept - 1]
        split = kept < len(self._patterns) and self._patterns[kept] == pattern and pattern > 0
        return Threshold(_magnitude(pattern), int(self._order[kept - 1]) if split else None)


class BinnedMagnitudes:
    """How many magnitudes have which upper bits; the lower ones are read when they are needed."""

    def __init__(self, deltas: Deltas) -> None:
        """Count a task vector's magnitudes."""
        counts = np.zeros(_BINS, dtype=np.int64)
        for _, delta in deltas():
            counts += np.bincount(_patterns(delta) >> _LOW_BITS, minlength=_BINS)
        # at_least[b]: elements in bin b or above
        self._at_least: Integers = counts[::-1].cumsum()[::-1]
        self._deltas = deltas

    def threshold(self, kept: int) -> Threshold:
        """Return what separates the `kept` largest."""
        place = int(np.searchsorted(-self._at_least, -kept, side="right")) - 1
        above = int(self._at_least[place + 1]) if place + 1 < _BINS else 0
        patterns, indices = [], []
        for start, delta in self._deltas():
            block = _patterns(delta)
            found = np.flatnonzero(block >> _LOW_BITS == place)
            patterns.append(block[found])
            indices.append(found + start)
        inside, where = np.concatenate(patterns), np.concatenate(indices)
        pattern = np.sort(inside)[len(inside) - (kept - above)]
        wanted = kept - above - int(np.count_nonzero(inside > pattern))
        equal = where[inside == pattern]
        split = wanted < len(equal) and pattern > 0
        return Threshold(_magnitude(pattern), int(equal[wanted - 1]) if split else None)


def _patterns(delta: torch.Tensor) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the bit patterns of the magnitudes; on a CPU in the memory of `delta`."""
    patterns: np.ndarray[Any, np.dtype[np.int32]] = (
        delta.view(torch.int32).bitwise_and_(0x7FFFFFFF).cpu().numpy()
    )
    return patterns


def _magnitude(pattern: Any) -> float:
    return float(np.int32(pattern).view(np.float32))


def row_ranks(values: torch.Tensor, row: int) -> torch.Tensor:
    """Return each element's place in its row, 0 the smallest, the earlier first among equals.

    Args:
        values: Numbers that are not negative, float32 of shape (n,).
        row: Elements in a row.

    Returns:
        int16 where a row's places fit, else int32, of shape (n,).
    """
    dtype = torch.int16 if row <= 1 << 15 else torch.int32
    result = torch.empty(values.numel(), dtype=dtype, device=values.device)
    if not values.numel():
        return result
    lines, goal = values.view(-1, row), result.view(-1, row)
    places = torch.arange(row, dtype=dtype, device=values.device)
    step = max(1, (1 << 22) // row)
    for start in range(0, lines.shape[0], step):
        order = lines[start : start + step].argsort(dim=1, stable=True)
        goal[start : start + step].scatter_(1, order, places.expand(order.shape))
    return result
