"""Divergences of rows by native loops, by the steps of `evomerge.engine.divergence`."""

from collections.abc import Sequence
from textwrap import indent

import numpy as np
import torch

from evomerge.engine.divergence import (
    EXP_FACTORS,
    FLOOR,
    LEAST,
    LN2,
    LN2_HIGH,
    LN2_LOW,
    LOG_FACTORS,
    ROUND,
    SQRT_HALF,
)
from evomerge.engine.native.jobs import LITTLE, PIECE, Native, Piece
from evomerge.engine.native.source import LoopText
from evomerge.methods.program import Program

__all__ = ["of_rows"]


def _polynomial(x: str, factors: tuple[float, ...]) -> str:
    """Return the value of a polynomial, by Horner's rule."""
    value = repr(factors[0])
    for factor in factors[1:]:
        value = f"({value} * {x} + {factor!r})"
    return value


# Sums the row of numbers that begins at `first`, into its place.
_ADD_HALVES = """
left = size
while left > uint64(1):
    half = uint64((left + uint64(1)) >> uint64(1))
    for j in range(first, uint64(first + left - half)):
        write_float64(powers, j, read_float64(powers, j) + read_float64(powers, half + j))
    left = half
"""

# Start and stop are counted in rows. `powers` holds those of the two rows, and twice as many
# numbers to be added up. The largest number of a row is found by bits that order as integers do,
# those of negative numbers turned round.
_DIVERGENCE = LoopText(
    f"""
    size = uint64(row)
    both = uint64(size + size)
    for line in range(start, stop):
        begin = uint64(line) * size
        most = other = I(-2147483648)
        for i in range(begin, begin + size):
            {{element}}
            pattern = bits({{r}})
            most = larger(most, I(pattern ^ ((pattern >> 31) & 0x7FFFFFFF)))
            pattern = bits({{r2}})
            other = larger(other, I(pattern ^ ((pattern >> 31) & 0x7FFFFFFF)))
        most = I(most ^ ((most >> 31) & 0x7FFFFFFF))
        other = I(other ^ ((other >> 31) & 0x7FFFFFFF))
        top, second = float64(as_float(most)), float64(as_float(other))
        for j in range(uint64(0), size):
            i = begin + j
            {{element}}
            write_float64(powers, j, float64({{r}}) - top)
            write_float64(powers, size + j, float64({{r2}}) - second)
        for j in range(uint64(0), both):
            x = read_float64(powers, j)
            x = {LEAST!r} if x < {LEAST!r} else x
            rounded = x * {1.0 / LN2!r} + {ROUND!r}
            whole = rounded - {ROUND!r}
            rest = (x - whole * {LN2_HIGH!r}) - whole * {LN2_LOW!r}
            scale = as_double((double_bits(rounded) + 1023) << 52)
            power = {_polynomial("rest", EXP_FACTORS)} * scale
            write_float64(powers, j, power)
            write_float64(powers, both + j, power)
        for side in range(2):
            first = uint64(both + uint64(side) * size)
            {indent(_ADD_HALVES, " " * 12).strip()}
        first = both
        share = 1.0 / read_float64(powers, both)
        less = 1.0 / read_float64(powers, both + size)
        for j in range(uint64(0), size):
            p = read_float64(powers, j) * share + {FLOOR!r}
            q = read_float64(powers, size + j) * less + {FLOOR!r}
            ratio = double_bits(p / q)
            shift = int64((ratio - {SQRT_HALF}) >> 52)
            mantissa = as_double(ratio - (shift << 52))
            s = (mantissa - 1.0) / (mantissa + 1.0)
            square = s * s
            value = {_polynomial("square", LOG_FACTORS)} * s + float64(shift) * {LN2!r}
            write_float64(powers, both + j, value * p)
        {indent(_ADD_HALVES, " " * 8).strip()}
        write_float32(goal, uint64(line), F(read_float64(powers, both)))
    return 0
""",
    ("powers", "goal", "row"),
)


def of_rows(
    native: Native, i: int, j: int, inputs: Sequence[torch.Tensor], row: int
) -> torch.Tensor | None:
    """Return the divergence of each row, as `evomerge.engine.divergence` has it.

    Args:
        native: The loops.
        i: The input whose distributions they are of.
        j: The input whose distributions they are from.
        inputs: The flat sources.
        row: Elements in a row.
    """
    program = Program()
    program.results = (program.load(i), program.load(j))
    job = native.job(_DIVERGENCE, program, inputs)
    if job is None:
        return None
    found = np.empty(inputs[0].numel() // row, np.float32)

    def fill(piece: Piece) -> None:
        job.run(piece, np.empty(4 * row), found, row)

    step = max(PIECE // 8 // row, 1)
    pieces = [(job.parts[0], k, min(k + step, len(found))) for k in range(0, len(found), step)]
    native.each(fill, pieces, alone=inputs[0].numel() <= LITTLE)
    return torch.from_numpy(found)
