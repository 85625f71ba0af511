"""Source text of loops around programs.

A loop goes through elements of flat tensors from `start` to `stop`, once. Its arguments are
integers: addresses of tensors and arrays, and sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.engine.native_texts import (
    DIVERGENCE,
    LARGEST,
    LEVELS,
    MERGE,
    PATTERNS,
    PLACE,
    RANKS,
    RUNS,
    SUMS,
    TOTALS,
    WITHIN,
)
from evomerge.methods.exact import LOWEST, TOO_LARGE
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
        text: Its lines, of `evomerge.engine.native_texts`.
        own: Its own arguments.
    """

    text: str
    own: tuple[str, ...] = ()


_RANKS_OWN = ("counts", "pairs", "ranks", "row", "moves")

LOOPS = {
    "merge": _Loop(MERGE, ("out",)),
    "largest": _Loop(LARGEST),
    "totals": _Loop(TOTALS, ("grids", "sums")),
    "sums": _Loop(SUMS, ("sums",)),
    "within": _Loop(WITHIN, ("places", "patterns", "counts", "low", "high", "room")),
    "place": _Loop(PLACE, ("pattern", "number")),
    "patterns": _Loop(PATTERNS, ("patterns",)),
    "runs": _Loop(RUNS, ("counts", "keys")),
    "levels": _Loop(LEVELS, ("grids", "table", "shift", "half")),
    "divergence": _Loop(DIVERGENCE, ("powers", "goal", "row")),
    "ranks16": _Loop(RANKS.replace("write_ranks", "write_int16"), _RANKS_OWN),
    "ranks32": _Loop(RANKS.replace("write_ranks", "write_int32"), _RANKS_OWN),
}
"""The loops by name. They take the tensors of the program, its floats and integers, what is their
own, start and stop; `ranks` and `divergence` count start and stop in rows."""


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
    reads = [(f"x{k}", dtype, "i") for k, dtype in enumerate(inputs)]
    for k, (tensor, place) in enumerate(zip(program.tensors, program.places, strict=True)):
        reads.append((f"t{k}", tensor.dtype, f"uint64({place})"))
    for value, dtype, place in reads:
        tensors.append(f"at_{value}")
        element.append(f"{value} = read_{type_name(dtype)}(at_{value}, {place})")
    element = ["index = I(i)", *element, *program.lines]
    for count, letter, array in zip(program.num_numbers, "fn", ("float32", "int32"), strict=True):
        head += [f"{letter}{place} = read_{array}({letter}_at, {place})" for place in range(count)]
    # One step of the running maximum for an element: compilers make no vectors of more.
    peak = "I(0)"
    for k in range(len(inputs)):
        peak = f"larger({peak}, I(bits(x{k}) & 0x7FFFFFFF))"
    look = [f"most = larger(most, {peak})"]
    sums = _stretch_sums(program.results) if name == "sums" else _total_sums(program.results)
    blocks = {"{element}": element, "{look}": look, **sums}
    body = []
    for line in loop.text.strip("\n").splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        body += [indent + inner for inner in blocks.get(line.strip(), [line.strip()])]
    text = "\n".join([*(f"    {line}" for line in head), *body])
    text = text.replace("RESULTS", str(len(program.results)))
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
