"""From a number of elements to keep to the exact threshold of their magnitudes.

float32 magnitudes order as their bit patterns do, so everything here counts integers. What a search
asks again and again is answered from sorted counts, without the data; a merge that asks once takes
a sample and one look.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from evomerge.methods.interface import Threshold

__all__ = [
    "STRETCH",
    "BracketedMagnitudes",
    "Found",
    "Patterns",
    "Run",
    "Scan",
    "SortedMagnitudes",
    "rank_type",
    "row_ranks",
    "sorted_runs",
]

Patterns = np.ndarray[Any, np.dtype[np.int32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Found = tuple[int, np.ndarray[Any, Any], Patterns]
"""How many magnitudes are above, and the places and patterns of those inside."""
Run = tuple[int, Patterns, Integers]
"""First element of a stretch, its different patterns from the smallest, and how often each is
there."""
Result = TypeVar("Result")

_SAMPLES = (1 << 14, 1 << 18)
_SAMPLED = 32  # one element of so many, between these
STRETCH = 1 << 14
"""Elements that are looked at again where equal magnitudes are divided."""


class Scan(Protocol):
    """The magnitudes of a field as bit patterns, block by block."""

    def __call__(self, work: Callable[[int, Patterns], Result]) -> list[Result]:
        """Give each block, and the flat index of its first element, to a function.

        Blocks are memory that is used again; the results are in their order.
        """
        ...

    def runs(self) -> list[Run]:
        """Return the different patterns of each `STRETCH`, in the order of the stretches."""
        ...

    def rising(self) -> Patterns:
        """Return all patterns from the smallest to the largest."""
        ...

    def within(self, low: int, high: int) -> Found:
        """Return how many are above `high`, and places and patterns of those down to `low`."""
        ...

    def place(self, pattern: int, number: int, start: int | None) -> int:
        """Return the index of the `number`-th element of a pattern.

        It is in the `STRETCH` elements from `start` on, if that is given.
        """
        ...

    def some(self, count: int) -> Patterns:
        """Return about `count` elements, the same every time."""
        ...


class SortedMagnitudes:
    """All magnitudes from the largest to the smallest, the earlier element first among equals.

    Equal magnitudes of one stretch are one entry. Low-precision models have few different ones, so
    this takes a fraction of the tensor; where entries would be many, as of float32 models, it takes
    four bytes an element.
    """

    def __init__(self, scan: Scan, numel: int) -> None:
        """Sort the magnitudes of a field of `numel` elements."""
        parts = scan.runs()
        number = sum(len(part[1]) for part in parts)
        self._scan = scan
        self._numel = numel
        # Where nearly every element is its own entry, counts and places cost more than they tell.
        self._rising: Patterns | None = None
        if 4 * number > numel:
            del parts
            self._rising = scan.rising()
            return
        patterns = np.concatenate([np.zeros(0, np.int32), *(part[1] for part in parts)])
        counts = np.concatenate([np.zeros(0, np.int64), *(part[2] for part in parts)])
        starts = np.concatenate([np.full(len(part[1]), part[0], np.int64) for part in parts])
        # The blocks come in their order, which a stable sort keeps among equals.
        order = np.argsort(-patterns, kind="stable")
        self._patterns = patterns[order]
        self._starts = starts[order]
        self._ends: Integers = counts[order].cumsum()

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
        start = int(self._starts[entry])
        return Threshold(_magnitude(pattern), self._place(pattern, kept - before, start))

    def _threshold_of_many(self, rising: Patterns, kept: int) -> Threshold:
        pattern = int(rising[self._numel - kept])
        if pattern == 0 or kept == self._numel or rising[self._numel - kept - 1] != pattern:
            return Threshold(_magnitude(pattern), None)
        larger = self._numel - int(np.searchsorted(rising, pattern, side="right"))
        return Threshold(_magnitude(pattern), self._place(pattern, kept - larger, None))

    def _place(self, pattern: int, number: int, block: int | None) -> int:
        """Return the index of the `number`-th element of a pattern, in a block or in all."""
        return self._scan.place(pattern, number, block)


class BracketedMagnitudes:
    """Finds one threshold with one look at the data, between two values that a sample suggests."""

    def __init__(self, scan: Scan, numel: int) -> None:
        """Take a sample of a field of `numel` elements."""
        self._scan = scan
        self._numel = numel
        self._sample = scan.some(min(max(numel // _SAMPLED, _SAMPLES[0]), _SAMPLES[1]))

    def threshold(self, kept: int) -> Threshold:
        """Return what separates the `kept` largest."""
        size = len(self._sample)
        place = size * (1.0 - kept / self._numel)
        # Neighbours are alike, so a sample of stretches is worth less than one of elements.
        margin = 3.0 * size**0.5 + 16.0
        for width in (margin, 8.0 * margin, float(size)):
            low = self._bound(place - width, 0)
            high = self._bound(place + width, 0x7FFFFFFF)
            found = self._between(low, high, kept)
            if found is not None:
                return found
        raise AssertionError("all elements lie between the smallest and the largest number")

    def _bound(self, place: float, outside: int) -> int:
        inside = 0 <= place < len(self._sample)
        return _smallest(self._sample, int(place)) if inside else outside

    def _between(self, low: int, high: int, kept: int) -> Threshold | None:
        above, where, patterns = self._scan.within(low, high)
        if not above < kept <= above + len(patterns):
            return None
        rank = len(patterns) - (kept - above)
        pattern = _smallest(patterns, rank)
        wanted = kept - above - int(np.count_nonzero(patterns > pattern))
        equal = where[patterns == pattern]
        split = wanted < len(equal) and pattern > 0
        return Threshold(_magnitude(pattern), int(equal[wanted - 1]) if split else None)


def sorted_runs(start: int, block: Patterns) -> list[Run]:
    """Return for each stretch of a block its different patterns and how often each is there."""
    found = []
    for first in range(0, len(block), STRETCH):
        ordered = np.sort(block[first : first + STRETCH])
        places = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        counts = np.diff(places, append=len(ordered))
        found.append((start + first, ordered[places], counts))
    return found


def _smallest(patterns: Patterns, rank: int) -> int:
    """Return the pattern with so many others before it in order.

    Counting is quicker than sorting or partitioning where many are equal.
    """
    low, high = int(patterns.min()), int(patterns.max())
    while low < high:
        middle = (low + high) // 2
        if np.count_nonzero(patterns <= middle) > rank:
            high = middle
        else:
            low = middle + 1
    return low


def _magnitude(pattern: int) -> float:
    return float(np.int32(pattern).view(np.float32))


def rank_type(row: int) -> torch.dtype:
    """Return the shortest type for ranks in rows of so many elements."""
    return torch.int16 if row <= torch.iinfo(torch.int16).max + 1 else torch.int32


def row_ranks(values: torch.Tensor, row: int) -> torch.Tensor:
    """Return each element's place in its row, 0 the smallest, the earlier first among equals.

    Args:
        values: Numbers that are not negative, float32 of shape (n,).
        row: Elements in a row.

    Returns:
        `rank_type(row)` of shape (n,).
    """
    result = torch.empty(values.numel(), dtype=rank_type(row), device=values.device)
    if not values.numel():
        return result
    lines, goal = values.view(-1, row), result.view(-1, row)
    places = torch.arange(row, dtype=result.dtype, device=values.device)
    step = max(1, (1 << 18) // row)

    def rank(start: int) -> None:
        part = lines[start : start + step]
        if part.device.type != "cpu":
            goal[start : start + step].scatter_(
                1, part.argsort(dim=1, stable=True), places.expand(part.shape)
            )
            return
        # Pattern and place in one number: plain sorting, which is several times faster, is stable.
        keys = part.view(torch.int32).numpy().astype(np.int64)
        keys <<= 32
        keys |= np.arange(row)
        keys.sort(axis=1)
        keys &= 0xFFFFFFFF
        np.put_along_axis(goal[start : start + step].numpy(), keys, places.numpy()[None], axis=1)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(rank, range(0, lines.shape[0], step)))
    return result
