"""The texts of native loops, for `evomerge.engine.native_loops` to fill in.

`{element}` stands for the lines that compute a program's results for element `i`, `{r}` for the
name of the first result and `{r2}` for that of the last, `RESULTS` for their number; other names in
braces for lines that there are for each result or input.
"""

from textwrap import indent

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
from evomerge.methods.exact import STRETCH

__all__ = [
    "DIVERGENCE",
    "LARGEST",
    "LEVELS",
    "MERGE",
    "PATTERNS",
    "PLACE",
    "RANKS",
    "RUNS",
    "SUMS",
    "TOTALS",
    "WITHIN",
]

MERGE = """
    most = peak = I(0)
    for i in range(uint64(start), uint64(stop)):
        {element}
        {look}
        rounded = rounder({r})
        peak = larger(peak, I(bits(rounded) & 0x7FFFFFFF))
        writer(out, i, rounded)
    return (int64(most) << 32) | int64(peak)
"""

LARGEST = """
    most = I(0)
    for i in range(uint64(start), uint64(stop)):
        {element}
        most = larger(most, I(bits({r}) & 0x7FFFFFFF))
    return most
"""

TOTALS = """
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

# Each stretch has grids of its own, fit for its largest number, and leaves three integers a result.
SUMS = """
    for begin in range(start, stop, STRETCH):
        finish = begin + STRETCH if begin + STRETCH < stop else stop
        {nothing}
        for i in range(uint64(begin), uint64(finish)):
            {element}
            {largest}
        {grids}
        {clear}
        for chunk in range(begin, finish, 256):
            {begin}
            end = chunk + 256 if chunk + 256 < finish else finish
            for i in range(uint64(chunk), uint64(end)):
                {element}
                {add}
            {end}
        {keep}
        sums += 24 * RESULTS
    return 0
""".replace("STRETCH", str(STRETCH))

_COMPARE = """i = chunk + uint64(k)
                {element}
                pattern = I(bits({r}) & 0x7FFFFFFF)
                more = I(more + I(pattern > most))
                hit = uint64((pattern >= least) & (pattern <= most))
                inside = uint64(inside | (hit << uint64(k)))"""

# The looked-for elements are few: 64 are looked at together, as bits of a word, then those found.
WITHIN = """
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
""".replace("{compare}", _COMPARE)

PLACE = """
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

PATTERNS = """
    for i in range(uint64(start), uint64(stop)):
        {element}
        write_int32(patterns, i - uint64(start), I(bits({r}) & 0x7FFFFFFF))
    return 0
"""

LEVELS = """
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
RANKS = """
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

# Sorts by three digits of 11 bits; the two halves of `keys` take turns, and three sorts end in the
# second, so that the first takes how often each pattern is there.
RUNS = """
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
"""


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

# The steps of `evomerge.engine.divergence`. `powers` holds those of the two rows, and twice as many
# numbers to be added up. The largest number of a row is found by bits that order as integers do,
# those of negative numbers turned round.
DIVERGENCE = f"""
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
"""
