"""Places of elements in their rows by magnitude, by native loops."""

from collections.abc import Sequence

import numpy as np
import torch

from evomerge.engine.magnitudes import rank_type
from evomerge.engine.native.jobs import LITTLE, PIECE, Native, Piece
from evomerge.engine.native.source import LoopText
from evomerge.methods.fields import TaskVector
from evomerge.methods.program import written

__all__ = ["of_task_vector"]

_MOVES = 3
"""So many moves an element, and sorting by digits would have been as quick."""

# Numbers that are not negative are sorted, as pairs of their bits and their place. First into 2048
# bins of equal width, and inside these by moving each past the larger ones before it, at most
# `moves` in a row: low-precision models have few different numbers, so most are at their place.
# Where that fails, by their bits, digit after digit: `counts` has four digits, and the two halves
# of `pairs` take turns.
_TEXT = """
    size = uint64(row)
    low, place = uint64(255), uint64(0xFFFFFFFF)
    for line in range(start, stop):
        begin = uint64(line) * size
        left = moves
        most = I(0)
        if left > 0:
            for i in range(begin, begin + size):
                {element}
                most = larger(most, I(bits({r}) & 0x7FFFFFFF))
        if most > 0x0D800000 and most < 0x7F800000:
            factor = F(2047.0) / as_float(most)
            for k in range(uint64(0), uint64(2048)):
                write_uint32(counts, k, uint32(0))
            for i in range(begin, begin + size):
                {element}
                k = uint64(uint32(abs({r}) * factor))
                write_uint32(counts, k, uint32(read_uint32(counts, k) + uint32(1)))
            goal = uint32(0)
            for k in range(uint64(0), uint64(2048)):
                number = read_uint32(counts, k)
                write_uint32(counts, k, goal)
                goal = uint32(goal + number)
            for j in range(uint64(0), size):
                i = begin + j
                {element}
                k = uint64(uint32(abs({r}) * factor))
                goal = read_uint32(counts, k)
                write_uint32(counts, k, uint32(goal + uint32(1)))
                key = uint64(uint32(bits({r}) & 0x7FFFFFFF))
                write_uint64(pairs, uint64(goal), (key << uint64(32)) | j)
            for j in range(uint64(1), size):
                pair = read_uint64(pairs, j)
                k = j
                before = read_uint64(pairs, j - uint64(1))
                while before > pair:
                    write_uint64(pairs, k, before)
                    k = uint64(k - uint64(1))
                    left -= 1
                    if k == uint64(0) or left <= 0:
                        break
                    before = read_uint64(pairs, k - uint64(1))
                write_uint64(pairs, k, pair)
            if left > 0:
                for j in range(uint64(0), size):
                    write_ranks(ranks, begin + (read_uint64(pairs, j) & place), I(j))
                continue
        for k in range(uint64(0), uint64(1024)):
            write_uint32(counts, k, uint32(0))
        for j in range(uint64(0), size):
            i = begin + j
            {element}
            key = uint64(uint32(bits({r}) & 0x7FFFFFFF))
            write_uint64(pairs, j, (key << uint64(32)) | j)
            k = key & low
            write_uint32(counts, k, uint32(read_uint32(counts, k) + uint32(1)))
            k = uint64(256) + ((key >> uint64(8)) & low)
            write_uint32(counts, k, uint32(read_uint32(counts, k) + uint32(1)))
            k = uint64(512) + ((key >> uint64(16)) & low)
            write_uint32(counts, k, uint32(read_uint32(counts, k) + uint32(1)))
            k = uint64(768) + (key >> uint64(24))
            write_uint32(counts, k, uint32(read_uint32(counts, k) + uint32(1)))
        here, there = uint64(0), size
        for digit in range(uint64(0), uint64(4)):
            shift = uint64(32) + uint64(8) * digit
            table = uint64(256) * digit
            k = table + ((read_uint64(pairs, here) >> shift) & low)
            if uint64(read_uint32(counts, k)) == size:
                continue
            goal = uint32(0)
            for k in range(table, table + uint64(256)):
                number = read_uint32(counts, k)
                write_uint32(counts, k, goal)
                goal = uint32(goal + number)
            for j in range(here, here + size):
                pair = read_uint64(pairs, j)
                k = table + ((pair >> shift) & low)
                goal = read_uint32(counts, k)
                write_uint32(counts, k, uint32(goal + uint32(1)))
                write_uint64(pairs, there + uint64(goal), pair)
            here, there = there, here
        for j in range(uint64(0), size):
            write_ranks(ranks, begin + (read_uint64(pairs, here + j) & place), I(j))
    return 0
"""

_OWN = ("counts", "pairs", "ranks", "row", "moves")
_RANKS = {
    kind: LoopText(_TEXT.replace("write_ranks", f"write_{name}"), _OWN)
    for kind, name in ((torch.int16, "int16"), (torch.int32, "int32"))
}
"""By the type of ranks. Start and stop are counted in rows."""


def of_task_vector(
    native: Native, i: int, inputs: Sequence[torch.Tensor], row: int
) -> torch.Tensor | None:
    """Return each element's place in its row by magnitude of task vector i.

    Args:
        native: The loops.
        i: Whose task vector.
        inputs: The flat sources.
        row: Elements in a row.
    """
    kind = rank_type(row)
    job = native.job(_RANKS[kind], written(TaskVector(i)), inputs)
    if job is None:
        return None
    ranks = torch.empty(inputs[0].numel(), dtype=kind)
    goal, rows = ranks.numpy(), len(ranks) // row
    few = all(inputs[k].itemsize == 2 for k in (0, i))
    moves = _MOVES * row if few else 0

    def rank(piece: Piece) -> None:
        counts, pairs = np.empty(2048, np.uint32), np.empty(2 * row, np.uint64)
        job.run(piece, counts, pairs, goal, row, moves)

    step = max(PIECE // 8 // row, 1)
    starts = range(0, rows, step)
    pieces = [(job.parts[0], first, min(first + step, rows)) for first in starts]
    native.each(rank, pieces, alone=ranks.numel() <= LITTLE)
    return ranks
