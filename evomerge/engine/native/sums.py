"""Sums by native loops: exact, or of stretches on grids of their own."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from evomerge.engine.native.jobs import Native, Piece
from evomerge.engine.native.source import LoopText
from evomerge.methods.draws import LEVEL_SHIFT, LEVELS, Draws
from evomerge.methods.exact import LOWEST, STRETCH, TOO_LARGE, anchors
from evomerge.methods.fields import TaskVector
from evomerge.methods.interface import Field
from evomerge.methods.program import Program, written

__all__ = ["levels", "products", "totals"]

Integers = np.ndarray[Any, np.dtype[np.int64]]


def _total_sums(results: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines that add up the magnitudes of results, in two exact parts."""
    keep = []
    for place in range(len(results)):
        keep += [
            f"write_int64(sums, {2 * place}, coarse{place})",
            f"write_int64(sums, {2 * place + 1}, fine{place})",
        ]
    return {**_parts([(f"abs({value})", "") for value in results]), "{keep}": keep}


def _stretch_sums(results: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines that add up results, each with grids of its own."""
    nothing, largest, grids, keep = [], [], [], []
    for place, value in enumerate(results):
        nothing.append(f"most{place} = I(0)")
        largest.append(f"most{place} = larger(most{place}, I(bits({value}) & 0x7FFFFFFF))")
        grids += [
            f"if most{place} >= {TOO_LARGE}:",
            "    return 1",
            # As in evomerge.methods.exact: 3 * 2**power, and that times 2**-22.
            f"power{place} = larger(I((most{place} >> 23) - 126), I({LOWEST}))",
            f"near{place} = I(((power{place} + 128) << 23) | 0x400000)",
            f"far{place} = I(near{place} - (22 << 23))",
            f"first{place}, second{place} = as_float(near{place}), as_float(far{place})",
        ]
        parts = (f"coarse{place}", f"fine{place}", f"int64(power{place})")
        keep += [f"write_int64(sums, {3 * place + k}, {part})" for k, part in enumerate(parts)]
    return {
        **_parts([(value, str(place)) for place, value in enumerate(results)]),
        "{nothing}": nothing,
        "{largest}": largest,
        "{grids}": grids,
        "{keep}": keep,
    }


def _parts(values: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the lines that split numbers into two parts on grids and add these up.

    A part has 22 bits, so the sums of 256 elements are 32-bit integers: half the work of 64.

    Args:
        native: The loops.
        values: Expressions, and what the names of their grids end in.
    """
    add, clear, begin, end = [], [], [], []
    for place, (value, grid) in enumerate(values):
        clear.append(f"coarse{place} = fine{place} = int64(0)")
        begin.append(f"high{place} = low{place} = I(0)")
        add += [
            f"value{place} = {value}",
            f"sum{place} = value{place} + first{grid}",
            f"rest{place} = (value{place} - (sum{place} - first{grid})) + second{grid}",
            f"high{place} = I(high{place} + I(bits(sum{place}) - near{grid}))",
            f"low{place} = I(low{place} + I(bits(rest{place}) - far{grid}))",
        ]
        end += [f"coarse{place} += int64(high{place})", f"fine{place} += int64(low{place})"]
    return {"{add}": add, "{clear}": clear, "{begin}": begin, "{end}": end}


_TOTALS = LoopText(
    """
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
""",
    ("grids", "sums"),
    _total_sums,
)

# Each stretch has grids of its own, fit for its largest number, and leaves three integers a result.
_SUMS = LoopText(
    """
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
""".replace("STRETCH", str(STRETCH)),
    ("sums",),
    _stretch_sums,
)

_LEVELS = LoopText(
    """
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
""",
    ("grids", "table", "shift", "half"),
)


def totals(
    native: Native, fields: Sequence[Field], inputs: Sequence[torch.Tensor], bound: float
) -> list[float] | None:
    """Return the sums of the magnitudes of fields.

    Args:
        native: The loops.
        fields: What to add up.
        inputs: The flat sources.
        bound: No element is larger.
    """
    job = native.job(_TOTALS, written(*fields), inputs)
    if job is None:
        return None
    grids = np.array(anchors(bound, torch.float32), dtype=np.float32)

    def add(piece: Piece) -> Integers:
        sums = np.zeros(2 * len(fields), np.int64)
        job.run(piece, grids, sums)
        return sums

    sums = np.sum(native.each(add, job.pieces()), axis=0)
    near, far = np.spacing(grids).tolist()
    return [float(sums[i]) * near + float(sums[i + 1]) * far for i in range(0, len(sums), 2)]


def products(
    native: Native,
    pairs: Sequence[tuple[int, int]],
    inputs: Sequence[torch.Tensor],
    *,
    deltas: bool,
) -> list[float] | None:
    """Return inner products, as `evomerge.engine.products` has them.

    Args:
        native: The loops.
        pairs: Of which inputs.
        inputs: The flat sources.
        deltas: Whether of task vectors.
    """
    program = Program()
    read = program.task_vector if deltas else program.load
    program.results = tuple(program.let(f"{read(i)} * {read(j)}") for i, j in pairs)
    job = native.job(_SUMS, program, inputs)
    if job is None:
        return None

    def add(piece: Piece) -> np.ndarray[Any, Any]:
        lines = -(-(piece[2] - piece[1]) // STRETCH)
        sums = np.zeros((lines, len(pairs), 3), np.int64)
        fits = job.run(piece, sums) == 0
        coarse, fine, power = np.moveaxis(sums, 2, 0)
        found = np.ldexp(coarse, power - 22) + np.ldexp(fine, power - 44)
        return found if fits else np.full_like(found, np.nan)

    numel, length = inputs[0].numel(), 16 * STRETCH
    pieces = [(job.parts[0], k, min(k + length, numel)) for k in range(0, numel, length)]
    return [math.fsum(column) for column in np.concatenate(native.each(add, pieces)).T.tolist()]


def levels(
    native: Native, i: int, draws: Draws, inputs: Sequence[torch.Tensor], bound: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Return the exact sums, in two parts, of the magnitudes that each level of draws has.

    Args:
        native: The loops.
        i: Whose task vector it is about.
        draws: The random numbers.
        inputs: The flat sources.
        bound: No element is larger.
    """
    program = Program()
    program.results = (TaskVector(i).write(program), program.draw(draws))
    job = native.job(_LEVELS, program, inputs)
    if job is None:
        return None
    grids = np.array(anchors(bound, torch.float32), dtype=np.float32)

    def add(piece: Piece) -> Integers:
        table = np.zeros(2 * LEVELS, np.int64)
        job.run(piece, grids, table, LEVEL_SHIFT, LEVELS)
        return table

    table = np.sum(native.each(add, job.pieces()), axis=0).reshape(2, LEVELS)
    near, far = np.spacing(grids).tolist()
    return table[0] * near, table[1] * far
