"""Source text of loops around programs.

A loop goes through elements of flat tensors from `start` to `stop`, once. Its arguments are
integers: addresses of tensors and arrays, and sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.methods.program import Program

__all__ = ["LOOPS", "Source", "loop_source", "type_name"]


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a function called `loop`.

    Attributes:
        text: Python in the part of the language that numba compiles.
        arguments: Names of its arguments, all of them int64.
    """

    text: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Loop:
    """What goes on around the lines of a program.

    Attributes:
        text: Its lines; `{element}` stands for those that compute the results for element `i`,
            `{r}` for the name of the first result and `{r2}` for that of the last, `{look}` for
            those that make `most` the largest pattern of an input's magnitude.
        own: Its own arguments.
    """

    text: str
    own: tuple[str, ...] = ()


_MERGE = """
    most = peak = I(0)
    for i in range(uint64(start), uint64(stop)):
        {element}
        {look}
        rounded = rounder({r})
        peak = larger(peak, I(bits(rounded) & 0x7FFFFFFF))
        writer(out, i, rounded)
    return (int64(most) << 32) | int64(peak)
"""

_LARGEST = """
    most = I(0)
    for i in range(uint64(start), uint64(stop)):
        {element}
        most = larger(most, I(bits({r}) & 0x7FFFFFFF))
    return most
"""

_TOTALS = """
    first, second = read_float32(grids, 0), read_float32(grids, 1)
    near, far = I(bits(first)), I(bits(second))
    {clear}
    for chunk in range(start, stop, 256):
        {begin}
        end = chunk + 256 if chunk + 256 < stop else stop
        for i in range(uint64(chunk), uint64(end)):
            {element}
            {add}
        {end}
    {keep}
    return 0
"""

_COMPARE = """i = chunk + uint64(k)
                {element}
                pattern = I(bits({r}) & 0x7FFFFFFF)
                more = I(more + I(pattern > most))
                hit = uint64((pattern >= least) & (pattern <= most))
                inside = uint64(inside | (hit << uint64(k)))"""

# The looked-for elements are few: 64 are looked at together, as bits of a word, then those found.
_WITHIN = """
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
"""

_PLACE = """
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
"""

_PATTERNS = """
    for i in range(uint64(start), uint64(stop)):
        {element}
        write_int32(patterns, i - uint64(start), I(bits({r}) & 0x7FFFFFFF))
    return 0
"""

_LEVELS = """
    first, second = read_float32(grids, 0), read_float32(grids, 1)
    near, far = int64(bits(first)), int64(bits(second))
    for i in range(uint64(start), uint64(stop)):
        {element}
        level = uint64((int64({r2}) >> shift) + (half >> 1))
        value = abs({r})
        sum = value + first
        rest = (value - (sum - first)) + second
        write_int64(table, level, read_int64(table, level) + int64(bits(sum)) - near)
        level = uint64(level + uint64(half))
        write_int64(table, level, read_int64(table, level) + int64(bits(rest)) - far)
    return 0
"""

# Numbers that are not negative are sorted, as pairs of their bits and their place. First into 2048
# bins of equal width, and inside these by moving each past the larger ones before it, at most
# `moves` in a row: low-precision models have few different numbers, so most are at their place.
# Where that fails, by their bits, digit after digit: `counts` has four digits, and the two halves
# of `pairs` take turns.
_RANKS = """
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

_RANKS_OWN = ("counts", "pairs", "ranks", "row", "moves")

LOOPS = {
    "merge": _Loop(_MERGE, ("out",)),
    "largest": _Loop(_LARGEST),
    "totals": _Loop(_TOTALS, ("grids", "sums")),
    "within": _Loop(
        _WITHIN.replace("{compare}", _COMPARE),
        ("places", "patterns", "counts", "low", "high", "room"),
    ),
    "place": _Loop(_PLACE, ("pattern", "number")),
    "patterns": _Loop(_PATTERNS, ("patterns",)),
    "levels": _Loop(_LEVELS, ("grids", "table", "shift", "half")),
    "ranks16": _Loop(_RANKS.replace("write_ranks", "write_int16"), _RANKS_OWN),
    "ranks32": _Loop(_RANKS.replace("write_ranks", "write_int32"), _RANKS_OWN),
}
"""The loops by name. They take the tensors of the program, its floats and integers, what is their
own, start and stop; `ranks` counts start and stop in rows."""


def type_name(dtype: torch.dtype) -> str:
    """Return a type's name."""
    return str(dtype).removeprefix("torch.")


def loop_source(
    name: str,
    program: Program,
    inputs: Sequence[torch.dtype],
    rounded: torch.dtype | None = None,
    out: torch.dtype | None = None,
) -> Source:
    """Return a loop around a program.

    Args:
        name: Which of `LOOPS`.
        program: What it computes.
        inputs: Types of the program's inputs.
        rounded: Type that a result is rounded to before it is written.
        out: Type that it is written as.
    """
    loop = LOOPS[name]
    element: list[str] = []
    tensors: list[str] = []
    head: list[str] = []
    for letter, types in (("x", inputs), ("t", [tensor.dtype for tensor in program.tensors])):
        for place, dtype in enumerate(types):
            value, address = f"{letter}{place}", f"at_{letter}{place}"
            tensors.append(address)
            element.append(f"{value} = read_{type_name(dtype)}({address}, i)")
    element += ["index = I(i)", *program.lines]
    for count, letter, array in zip(program.num_numbers, "fn", ("float32", "int32"), strict=True):
        head += [f"{letter}{place} = read_{array}({letter}_at, {place})" for place in range(count)]
    # One step of the running maximum for an element: compilers make no vectors of more.
    peak = "I(0)"
    for k in range(len(inputs)):
        peak = f"larger({peak}, I(bits(x{k}) & 0x7FFFFFFF))"
    look = [f"most = larger(most, {peak})"]
    blocks = {"{element}": element, "{look}": look, **_sums(program.results)}
    body = []
    for line in loop.text.strip("\n").splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        body += [indent + inner for inner in blocks.get(line.strip(), [line.strip()])]
    text = "\n".join([*(f"    {line}" for line in head), *body])
    text = text.replace("{r}", program.results[0]).replace("{r2}", program.results[-1])
    if rounded is not None and out is not None:
        text = text.replace("rounder(", f"rounded_{type_name(rounded)}(")
        text = text.replace("writer(", f"write_{type_name(out)}(")
    arguments = (
        *tensors,
        "f_at",
        "n_at",
        *loop.own,
        "start",
        "stop",
    )
    return Source(f"def loop({', '.join(arguments)}):\n{text}\n", arguments)


def _sums(results: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines that add up the magnitudes of results, in two exact parts.

    A part has 22 bits, so the sums of 256 elements are 32-bit integers: half the work of 64.
    """
    add, clear, keep, begin, end = [], [], [], [], []
    for place, value in enumerate(results):
        clear.append(f"coarse{place} = fine{place} = int64(0)")
        begin.append(f"near{place} = far{place} = I(0)")
        add += [
            f"value{place} = abs({value})",
            f"sum{place} = value{place} + first",
            f"rest{place} = (value{place} - (sum{place} - first)) + second",
            f"near{place} = I(near{place} + I(bits(sum{place}) - near))",
            f"far{place} = I(far{place} + I(bits(rest{place}) - far))",
        ]
        end += [f"coarse{place} += int64(near{place})", f"fine{place} += int64(far{place})"]
        keep += [
            f"write_int64(sums, {2 * place}, coarse{place})",
            f"write_int64(sums, {2 * place + 1}, fine{place})",
        ]
    return {"{add}": add, "{clear}": clear, "{keep}": keep, "{begin}": begin, "{end}": end}
