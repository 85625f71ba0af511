"""Kernels and fields written out as scalar programs, for a compiler to make one loop of.

A kernel merges blocks with memory that is used again; its `write` gives the same operations on the
same float32 numbers in the same order, element by element, as lines of Python in a small language:
`+ - * /`, comparisons, `where(condition, a, b)`, `abs(x)`, `at_least(x, bound)`, `F(number)` for a
float32, `I(expression)` for a 32-bit integer that wraps, and `quotient(a, b)` for how often a
positive integer goes into another. A compiler that keeps the operations as they are gives the same
bits. Numbers that change from candidate to candidate are arguments, not constants, so one compiled
program serves all candidates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from evomerge.methods.draws import ROUNDS, Draws
from evomerge.methods.interface import Groups, Threshold

__all__ = ["Numbers", "Program", "Written", "just_below", "written"]

_FAR = 2**31 - 1


@runtime_checkable
class Written(Protocol):
    """A kernel or field that can be written as a program."""

    def write(self, program: "Program") -> str:
        """Add its lines to a program; return the name of its value."""
        ...


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of a program for the elements from `start` to `stop`.

    Attributes:
        start: First element.
        stop: Element after the last one.
        floats: float32 of shape (f,).
        integers: int32 of shape (i,).
    """

    start: int
    stop: int
    floats: "np.ndarray[tuple[int], np.dtype[np.float32]]"
    integers: "np.ndarray[tuple[int], np.dtype[np.int32]]"


class Program:
    """Lines that compute values for one element, and what they take.

    Attributes:
        lines: Assignments, in order.
        inputs: The inputs they read, as `x0`, `x1`, …: `x` and the place in this list.
        tensors: More tensors, float32, int16 or int32, as `t0`, `t1`, ….
        places: Where each of those is read: the element's place `i`, or an expression of
            its `index`, the same as an int32.
        results: Names of the values that are wanted.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.inputs: list[int] = []
        self.tensors: list[torch.Tensor] = []
        self.places: list[str] = []
        self.results: tuple[str, ...] = ()
        self._known: dict[object, str] = {}
        self._floats: list[float] = []
        self._integers: list[int] = []
        self._bounds: list[tuple[int, float, float, int]] = []

    @property
    def num_numbers(self) -> tuple[int, int]:
        """How many numbers it takes, float32 and int32."""
        return len(self._floats), len(self._integers)

    def key(self) -> tuple[object, ...]:
        """Return what distinguishes it from programs of another form."""
        kinds = tuple(tensor.dtype for tensor in self.tensors)
        lines, places = tuple(self.lines), tuple(self.places)
        return lines, self.results, len(self.inputs), kinds, places, self.num_numbers

    def load(self, i: int) -> str:
        """Return the name of input i's element, float32."""
        if i not in self.inputs:
            self.inputs.append(i)
        return f"x{self.inputs.index(i)}"

    def tensor(self, tensor: torch.Tensor) -> str:
        """Return the name of the element of another tensor of the inputs' length."""
        return self._read(tensor, "i")

    def of_group(self, numbers: torch.Tensor, groups: Groups) -> str:
        """Return the name of the element's number where each group has one, of shape (groups,)."""
        size = self.integer(groups.size)
        row = f"quotient(index, {size})"
        column = f"I(index - I({row} * {size}))"
        return self._read(numbers, row if groups.kind == "rows" else column)

    def _read(self, tensor: torch.Tensor, place: str) -> str:
        self.tensors.append(tensor.contiguous())
        self.places.append(place)
        return f"t{len(self.tensors) - 1}"

    def number(self, value: float) -> str:
        """Return the name of a float32 number."""
        self._floats.append(value)
        return f"f{len(self._floats) - 1}"

    def integer(self, value: int) -> str:
        """Return the name of an int32 number."""
        self._integers.append(value)
        return f"n{len(self._integers) - 1}"

    def let(self, expression: str) -> str:
        """Add a line, unless it is there already; return the name of its value."""
        if expression not in self._known:
            self._known[expression] = f"v{len(self.lines)}"
            self.lines.append(f"{self._known[expression]} = {expression}")
        return self._known[expression]

    def sum(self, values: Sequence[str]) -> str:
        """Return the name of a sum, added from left to right."""
        total = values[0]
        for value in values[1:]:
            total = self.let(f"{total} + {value}")
        return total

    def task_vector(self, i: int) -> str:
        """Return the name of task vector i's element."""
        return self.let(f"{self.load(i)} - {self.load(0)}")

    def above(self, threshold: Threshold) -> str:
        """Return the name of the number that the kept magnitudes of a threshold are larger than.

        It changes inside a tensor, as among equals the earlier ones are kept.
        """
        if id(threshold) in self._known:
            return self._known[id(threshold)]
        name = self._known[id(threshold)] = self.number(0.0)
        last = _FAR if threshold.last_index is None else threshold.last_index
        magnitude = threshold.magnitude
        self._bounds.append((len(self._floats) - 1, just_below(magnitude), magnitude, last))
        return name

    def draw(self, draws: Draws) -> str:
        """Return the name of a random number, as `Draws.block` has it below 2**31 elements."""
        first_stride, first_offset = draws.start()
        stride, offset = self.integer(first_stride), self.integer(first_offset)
        value = self.let(f"I(I(index * {stride}) + {offset})")
        for shift, multiplier in ROUNDS:
            value = self.let(f"I({value} ^ (({value} >> {shift}) & {(1 << (32 - shift)) - 1}))")
            if multiplier is not None:
                value = self.let(f"I({value} * {multiplier})")
        return value

    def parts(self, numel: int) -> Iterator[Numbers]:
        """Yield the stretches in which all numbers are the same."""
        ends = {last + 1 for *_, last in self._bounds if 0 <= last + 1 < numel}
        integers = np.array(self._integers or [0], dtype=np.int32)
        for start, stop in pairwise([0, *sorted(ends - {0}), numel]):
            floats = np.array(self._floats or [0.0], dtype=np.float32)
            for place, upto, beyond, last in self._bounds:
                floats[place] = upto if start <= last else beyond
            yield Numbers(start, stop, floats, integers)


def written(*parts: object) -> Program | None:
    """Return the program of kernels or fields, or None if one of them cannot be written."""
    program = Program()
    results = []
    for part in parts:
        write = getattr(part, "write", None)
        if write is None:
            return None
        results.append(write(program))
    program.results = tuple(results)
    return program if program.inputs else None


def just_below(magnitude: float) -> float:
    """Return the float32 just below: `> it` is `>=` the magnitude."""
    return float(np.nextafter(np.float32(magnitude), np.float32(-1.0)))
