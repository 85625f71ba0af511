"""Magnitudes of a field in order, sorted by native loops as bit patterns."""

from collections.abc import Sequence

import numpy as np
import torch

from evomerge.engine.magnitudes import Patterns, Run
from evomerge.engine.native.jobs import Native, Piece
from evomerge.engine.native.source import LoopText
from evomerge.methods.interface import Field
from evomerge.methods.program import written

__all__ = ["of_stretches", "rising"]

# Sorts by three digits of 11 bits; the two halves of `keys` take turns, and three sorts end in the
# second, so that the first takes how often each pattern is there.
_RUNS = LoopText(
    """
    size = uint64(stop) - uint64(start)
    low = uint32(2047)
    for k in range(uint64(0), uint64(6144)):
        write_uint32(counts, k, uint32(0))
    for j in range(uint64(0), size):
        i = uint64(start) + j
        {element}
        key = uint32(bits({r}) & 0x7FFFFFFF)
        write_uint32(keys, j, key)
        k = uint64(key & low)
        write_uint32(counts, k, uint32(read_uint32(counts, k) + uint32(1)))
        k = uint64(2048) + uint64((key >> uint32(11)) & low)
        write_uint32(counts, k, uint32(read_uint32(counts, k) + uint32(1)))
        k = uint64(4096) + uint64(key >> uint32(22))
        write_uint32(counts, k, uint32(read_uint32(counts, k) + uint32(1)))
    here, there = uint64(0), size
    for digit in range(uint64(0), uint64(3)):
        shift = uint32(uint64(11) * digit)
        table = uint64(2048) * digit
        goal = uint32(0)
        for k in range(table, table + uint64(2048)):
            number = read_uint32(counts, k)
            write_uint32(counts, k, goal)
            goal = uint32(goal + number)
        for j in range(here, here + size):
            key = read_uint32(keys, j)
            k = table + uint64((key >> shift) & low)
            goal = read_uint32(counts, k)
            write_uint32(counts, k, uint32(goal + uint32(1)))
            write_uint32(keys, there + uint64(goal), key)
        here, there = there, here
    found = uint64(0)
    first = uint64(0)
    last = read_uint32(keys, here)
    for j in range(uint64(1), size + uint64(1)):
        key = last
        if j < size:
            key = read_uint32(keys, here + j)
        if j == size or key != last:
            write_uint32(keys, found, uint32(j - first))
            write_uint32(keys, here + found, last)
            found = uint64(found + uint64(1))
            first = j
            last = key
    return int64(found)
""",
    ("counts", "keys"),
)


def of_stretches(
    native: Native, field: Field, inputs: Sequence[torch.Tensor], stretch: int
) -> list[Run] | None:
    """Return the different magnitudes of each stretch of a field, as rising bit patterns.

    Args:
        native: The loops.
        field: Whose.
        inputs: The flat sources.
        stretch: Elements in a stretch.

    Returns:
        For each stretch its first element, the patterns, and how often each is there.
    """
    job = native.job(_RUNS, written(field), inputs)
    if job is None or len(job.parts) > 1:
        return None

    def sort(piece: Piece) -> list[Run]:
        numbers, first, stop = piece
        counts, keys = np.empty(3 * 2048, np.uint32), np.empty(2 * stretch, np.int32)
        found = []
        for start in range(first, stop, stretch):
            end = min(start + stretch, stop)
            many = job.run((numbers, start, end), counts, keys)
            patterns = keys[end - start : end - start + many].copy()
            found.append((start, patterns, keys[:many].astype(np.int64)))
        return found

    numel, length = inputs[0].numel(), 16 * stretch
    pieces = [(job.parts[0], k, min(k + length, numel)) for k in range(0, numel, length)]
    return [run for part in native.each(sort, pieces) for run in part]


def rising(native: Native, field: Field, inputs: Sequence[torch.Tensor]) -> Patterns | None:
    """Return all magnitudes of a field, as bit patterns from the smallest to the largest."""
    job = native.job(_RUNS, written(field), inputs)
    if job is None or len(job.parts) > 1:
        return None
    numel = inputs[0].numel()
    counts, keys = np.empty(3 * 2048, np.uint32), np.empty(2 * numel, np.int32)
    many = job.run((job.parts[0], 0, numel), counts, keys)
    return np.repeat(keys[numel : numel + many], keys[:many])
