"""Source text of loops around programs.

A loop goes through elements of flat tensors from `start` to `stop`, once. Its arguments are
integers: addresses of tensors and arrays, and sizes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from evomerge.methods.program import Program

__all__ = ["LoopText", "Source", "loop_source", "type_name"]


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
class LoopText:
    """What goes on around the lines of a program.

    In its lines `{element}` stands for those that compute a program's results for element `i`,
    `{look}` for those that keep the largest pattern of the inputs in `most`, `{r}` for the name of
    the first result and `{r2}` for that of the last, `RESULTS` for their number, `rounder` and
    `writer` for the conversion and the store of a result.

    Attributes:
        text: Its lines.
        own: Its own arguments: they come after the tensors of the program, its floats and integers,
            and before start and stop.
        further: Gives lines that stand for other names in braces, from the names of the results.
    """

    text: str
    own: tuple[str, ...] = ()
    further: Callable[[Sequence[str]], dict[str, list[str]]] | None = None


def type_name(dtype: torch.dtype) -> str:
    """Return a type's name."""
    return str(dtype).removeprefix("torch.")


def loop_source(
    loop: LoopText,
    program: Program,
    inputs: Sequence[torch.dtype],
    rounded: torch.dtype | None = None,
    out: torch.dtype | None = None,
) -> Source:
    """Return a loop around a program.

    Args:
        loop: What goes on around the program.
        program: What it computes.
        inputs: Types of the program's inputs.
        rounded: Type that a result is rounded to before it is written.
        out: Type that it is written as.
    """
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
    further = loop.further(program.results) if loop.further is not None else {}
    blocks = {"{element}": element, "{look}": look, **further}
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
