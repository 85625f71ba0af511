"""A look at the magnitudes of a field: by native loops where there are any, else by blocks."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from evomerge.engine.magnitudes import STRETCH, Found, Patterns, Run, sorted_runs
from evomerge.engine.native import magnitudes, runs
from evomerge.engine.workspace import Result, Workspace
from evomerge.methods.interface import Field

__all__ = ["FieldScan"]

_SAMPLED = 4096
_NO_SIGN = 0x7FFFFFFF


class FieldScan:
    """A field's magnitudes as bit patterns. Implements `evomerge.engine.magnitudes.Scan`."""

    def __init__(self, field: Field, tensors: Sequence[torch.Tensor], space: Workspace) -> None:
        self._field = field
        self._tensors = tensors
        self._space = space
        self._native = space.native

    def __call__(self, work: Callable[[int, Patterns], Result]) -> list[Result]:
        """Give each block, and the flat index of its first element, to a function."""
        if self._native is not None:
            found = magnitudes.scan(self._native, self._field, self._tensors, work)
            if found is not None:
                return found

        def run(space: Workspace) -> Result:
            values = self._field(space)
            return work(space.start, values.view(torch.int32).bitwise_and_(_NO_SIGN).cpu().numpy())

        return self._space.each(self._tensors, run)

    def runs(self) -> list[Run]:
        """Return the different patterns of each `STRETCH`, in the order of the stretches."""
        if self._native is not None:
            found = runs.of_stretches(self._native, self._field, self._tensors, STRETCH)
            if found is not None:
                return found
        return [run for block in self(sorted_runs) for run in block]

    def rising(self) -> Patterns:
        """Return all patterns from the smallest to the largest."""
        found = None
        if self._native is not None:
            found = runs.rising(self._native, self._field, self._tensors)
        if found is None:
            found = np.concatenate(self(lambda _, block: block.copy()))
            found.sort()
        return found

    def within(self, low: int, high: int) -> Found:
        """Return how many are above `high`, and places and patterns of those down to `low`."""
        if self._native is not None:
            found = magnitudes.within(self._native, self._field, self._tensors, low, high)
            if found is not None:
                return found

        def look(start: int, block: Patterns) -> Found:
            inside = np.flatnonzero((block >= low) & (block <= high))
            return int(np.count_nonzero(block > high)), inside + start, block[inside]

        parts = self(look)
        where, patterns = (np.concatenate([part[k] for part in parts]) for k in (1, 2))
        return sum(part[0] for part in parts), where, patterns

    def place(self, pattern: int, number: int, start: int | None) -> int:
        """Return the index of the `number`-th element of a pattern.

        It is in the `STRETCH` elements from `start` on, if that is given.
        """
        numel = self._tensors[0].numel()
        stretch = range(numel) if start is None else range(start, min(start + STRETCH, numel))
        if self._native is not None:
            place = magnitudes.place(
                self._native, self._field, self._tensors, pattern, number=number, stretch=stretch
            )
            if place is not None:
                return place
        if start is None:
            equal = self.within(pattern, pattern)[1]
        else:
            length = min(STRETCH, self._space.block)
            equal = start + np.flatnonzero(self._enter(start, length) == pattern)
        return int(equal[number - 1])

    def some(self, count: int) -> Patterns:
        """Return a sample: the same evenly spread stretches every time."""
        numel = self._tensors[0].numel()
        length = min(_SAMPLED, self._space.block)
        step = max(length, numel // max(1, count // length))
        return self._some(range(0, numel, step), length)

    def _some(self, starts: Iterable[int], length: int) -> Patterns:
        if self._native is not None:
            found = magnitudes.scan(
                self._native,
                self._field,
                self._tensors,
                lambda _, part: part,
                length=length,
                starts=starts,
            )
            if found is not None:
                return np.concatenate(found)
        return np.concatenate([self._enter(start, length) for start in starts])

    def _enter(self, start: int, length: int) -> Patterns:
        def read(space: Workspace) -> Patterns:
            values = self._field(space).view(torch.int32).bitwise_and_(_NO_SIGN)
            patterns: Patterns = values.cpu().numpy().copy()
            return patterns

        return self._space.once(self._tensors, start, read, length)
