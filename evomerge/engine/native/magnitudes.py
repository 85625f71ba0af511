"""Magnitudes of a field by native loops, as bit patterns: all of them, and looked-for ones."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from evomerge.engine.magnitudes import Found, Patterns
from evomerge.engine.native.jobs import PIECE, Native, Piece
from evomerge.engine.native.source import LoopText
from evomerge.methods.interface import Field
from evomerge.methods.program import Program, written

__all__ = ["largest", "place", "scan", "within"]

_FEW = 16  # a piece has so many times fewer elements near a threshold

_LARGEST = LoopText("""
    most = I(0)
    for i in range(uint64(start), uint64(stop)):
        {element}
        most = larger(most, I(bits({r}) & 0x7FFFFFFF))
    return most
""")

_PATTERNS = LoopText(
    """
    for i in range(uint64(start), uint64(stop)):
        {element}
        write_int32(patterns, i - uint64(start), I(bits({r}) & 0x7FFFFFFF))
    return 0
""",
    ("patterns",),
)

_COMPARE = """i = chunk + uint64(k)
                {element}
                pattern = I(bits({r}) & 0x7FFFFFFF)
                more = I(more + I(pattern > most))
                hit = uint64((pattern >= least) & (pattern <= most))
                inside = uint64(inside | (hit << uint64(k)))"""

# The looked-for elements are few: 64 are looked at together, as bits of a word, then those found.
_WITHIN = LoopText(
    """
    above = int64(0)
    found = int64(0)
    least, most = I(low), I(high)
    for chunk in range(uint64(start), uint64(stop), uint64(64)):
        inside = uint64(0)
        more = I(0)
        if chunk + uint64(64) <= uint64(stop):
            for k in range(64):
                {compare}
        else:
            for k in range(stop - int64(chunk)):
                {compare}
        above += more
        while inside != uint64(0):
            i = chunk + lowest_bit(inside)
            inside = uint64(inside & uint64(inside - uint64(1)))
            {element}
            if found < room:
                write_uint32(places, found, uint32(i))
                write_int32(patterns, found, I(bits({r}) & 0x7FFFFFFF))
            found += 1
    write_int64(counts, 0, above)
    write_int64(counts, 1, found)
    return 0
""".replace("{compare}", _COMPARE),
    ("places", "patterns", "counts", "low", "high", "room"),
)

_PLACE = LoopText(
    """
    left = number
    wanted = I(pattern)
    for chunk in range(start, stop, 64):
        end = chunk + 64 if chunk + 64 < stop else stop
        equal = I(0)
        for i in range(uint64(chunk), uint64(end)):
            {element}
            equal = I(equal + I(I(bits({r}) & 0x7FFFFFFF) == wanted))
        if equal < left:
            left -= equal
            continue
        for i in range(uint64(chunk), uint64(end)):
            {element}
            if I(bits({r}) & 0x7FFFFFFF) == wanted:
                left -= 1
                if left == 0:
                    return int64(i)
    return -1
""",
    ("pattern", "number"),
)


def largest(native: Native, tensor: torch.Tensor) -> float | None:
    """Return the largest magnitude of a flat tensor; not finite if one of them is not."""
    program = Program()
    program.results = (program.load(0),)
    job = native.job(_LARGEST, program, [tensor])
    if job is None:
        return None
    pattern = max(native.each(job.run, job.pieces()))
    return float(np.int32(pattern).view(np.float32))


def scan(
    native: Native,
    field: Field,
    inputs: Sequence[torch.Tensor],
    work: Callable[[int, Patterns], Any],
    *,
    length: int = PIECE // 4,
    starts: Iterable[int] | None = None,
) -> list[Any] | None:
    """Give the magnitudes of a field, as bit patterns, to a function.

    Args:
        native: The loops.
        field: Whose.
        inputs: The flat sources.
        work: Called in the threads with the index of the first element and the patterns.
        length: Elements given at a time.
        starts: First elements of the stretches; all of the tensor if not given.

    Returns:
        The results in order.
    """
    job = native.job(_PATTERNS, written(field), inputs)
    if job is None or len(job.parts) > 1:
        return None
    numel = inputs[0].numel()

    def give(piece: Piece) -> Any:
        patterns = np.empty(piece[2] - piece[1], np.int32)
        job.run(piece, patterns)
        return work(piece[1], patterns)

    firsts = range(0, numel, length) if starts is None else starts
    pieces = ((job.parts[0], first, min(first + length, numel)) for first in firsts)
    return native.each(give, pieces)


def within(
    native: Native, field: Field, inputs: Sequence[torch.Tensor], low: int, high: int
) -> Found | None:
    """Look for the magnitudes of a field, as bit patterns, from `low` to `high`.

    Returns:
        How many are above, and the indices and patterns of those inside, in their order.
    """
    job = native.job(_WITHIN, written(field), inputs)
    if job is None:
        return None

    def look(piece: Piece) -> Found:
        counts = np.zeros(2, np.int64)
        room = (piece[2] - piece[1]) // _FEW
        while True:
            places, patterns = np.empty(room, np.uint32), np.empty(room, np.int32)
            job.run(piece, places, patterns, counts, low, high, room)
            if counts[1] <= room:
                break
            room = int(counts[1])
        inside = int(counts[1])
        return int(counts[0]), places[:inside], patterns[:inside]

    found = native.each(look, job.pieces())
    above = sum(part[0] for part in found)
    where, patterns = (np.concatenate([part[k] for part in found]) for k in (1, 2))
    return above, where, patterns


def place(
    native: Native,
    field: Field,
    inputs: Sequence[torch.Tensor],
    pattern: int,
    *,
    number: int,
    stretch: range,
) -> int | None:
    """Return the index of the `number`-th magnitude of a pattern in a stretch."""
    job = native.job(_PLACE, written(field), inputs)
    if job is None or len(job.parts) > 1:
        return None
    return job.run((job.parts[0], stretch.start, stretch.stop), pattern, number)
