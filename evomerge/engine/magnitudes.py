"""From a number of elements to keep to the exact threshold of their magnitudes.

float32 magnitudes order as their bit patterns do, so everything here counts integers. What a search
asks again and again is answered from sorted counts, without the data; a merge that asks once gets a
histogram and a second look.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from evomerge.methods.interface import Threshold

__all__ = ["BinnedMagnitudes", "Blocks", "SortedMagnitudes", "row_ranks"]

Blocks = Callable[[int], Iterator[tuple[int, torch.Tensor]]]
"""Gives the blocks of a field from an element on: flat index, and float32 scratch."""

_LOW_BITS = 16
_BINS = 1 << (31 - _LOW_BITS)

Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]


class SortedMagnitudes:
    """All magnitudes from the largest to the smallest, the earlier element first among equals.

    Equal magnitudes of one block are one entry. Low-precision models have few different ones, so
    this takes a fraction of the tensor; where entries would be many, as of float32 models, it takes
    four bytes an element.
    """

    def __init__(self, blocks: Blocks) -> None:
        """Sort the magnitudes of a field."""
        patterns, starts, counts = [_none()], [_none()], [_none()]
        for start, block in blocks(0):
            found, count = np.unique(_patterns(block), return_counts=True)
            patterns.append(found)
            starts.append(np.full(len(found), start, dtype=np.int64))
            counts.append(count)
        entries, first, number = map(np.concatenate, (patterns, starts, counts))
        self._blocks = blocks
        self._total = int(number.sum())
        # Where nearly every element is its own entry, counts and places cost more than they tell.
        self._rising: Integers | None = None
        if 4 * len(entries) > self._total:
            self._rising = np.sort(np.repeat(entries.astype(np.int32), number))
            return
        order = np.lexsort((first, -entries))
        self._patterns = entries[order].astype(np.int32)
        self._starts = first[order]
        self._ends = number[order].cumsum()

    def threshold(self, kept: int) -> Threshold:
        """Return what separates the `kept` largest."""
        if self._rising is not None:
            return self._threshold_of_many(self._rising, kept)
        entry = int(np.searchsorted(self._ends, kept))
        pattern = int(self._patterns[entry])
        last = entry + 1 == len(self._patterns) or self._patterns[entry + 1] != pattern
        if pattern == 0 or (last and self._ends[entry] == kept):
            return Threshold(_magnitude(pattern), None)
        before = int(self._ends[entry - 1]) if entry else 0
        inside = self._blocks(int(self._starts[entry]))
        return Threshold(_magnitude(pattern), _place(inside, pattern, kept - before))

    def _threshold_of_many(self, rising: Integers, kept: int) -> Threshold:
        pattern = int(rising[self._total - kept])
        if pattern == 0 or kept == self._total or rising[self._total - kept - 1] != pattern:
            return Threshold(_magnitude(pattern), None)
        larger = self._total - int(np.searchsorted(rising, pattern, side="right"))
        return Threshold(_magnitude(pattern), _place(self._blocks(0), pattern, kept - larger))


class BinnedMagnitudes:
    """How many magnitudes have which upper bits; the lower ones are read when they are needed."""

    def __init__(self, blocks: Blocks) -> None:
        """Count the magnitudes of a field."""
        counts = np.zeros(_BINS, dtype=np.int64)
        for _, block in blocks(0):
            counts += np.bincount(_patterns(block) >> _LOW_BITS, minlength=_BINS)
        # at_least[b]: elements in bin b or above
        self._at_least: Integers = counts[::-1].cumsum()[::-1]
        self._blocks = blocks

    def threshold(self, kept: int) -> Threshold:
        """Return what separates the `kept` largest."""
        place = int(np.searchsorted(-self._at_least, -kept, side="right")) - 1
        above = int(self._at_least[place + 1]) if place + 1 < _BINS else 0
        patterns, indices = [_none()], [_none()]
        for start, values in self._blocks(0):
            block = _patterns(values)
            found = np.flatnonzero(block >> _LOW_BITS == place)
            patterns.append(block[found])
            indices.append(found + start)
        inside, where = np.concatenate(patterns), np.concatenate(indices)
        rank = len(inside) - (kept - above)
        pattern = int(np.partition(inside, rank)[rank])
        wanted = kept - above - int(np.count_nonzero(inside > pattern))
        equal = where[inside == pattern]
        split = wanted < len(equal) and pattern > 0
        return Threshold(_magnitude(pattern), int(equal[wanted - 1]) if split else None)


def _none() -> Integers:
    return np.zeros(0, dtype=np.int64)


def _place(blocks: Iterator[tuple[int, torch.Tensor]], pattern: int, number: int) -> int:
    """Return the flat index of the element that is the `number`-th with this pattern."""
    for start, block in blocks:
        found = np.flatnonzero(_patterns(block) == pattern)
        if number <= len(found):
            return start + int(found[number - 1])
        number -= len(found)
    raise AssertionError("a pattern that was counted is not there")


def _patterns(values: torch.Tensor) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the bit patterns of the magnitudes; on a CPU in the memory of `values`."""
    patterns: np.ndarray[Any, np.dtype[np.int32]] = (
        values.view(torch.int32).bitwise_and_(0x7FFFFFFF).cpu().numpy()
    )
    return patterns


def _magnitude(pattern: int) -> float:
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
