"""Kernels of the two large families as pure functions of whole tensors, for a compiler to fuse.

A kernel of `linear` or `task_vectors` merges blocks with memory that is used again; a formula does
the same operations on the same float32 numbers in the same order, so a compiler that keeps them as
they are gives the same bits. Numbers that change from candidate to candidate are arguments, not
constants: one compiled formula serves all candidates.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from evomerge.methods.draws import ROUNDS, Draws
from evomerge.methods.exact import split_sums
from evomerge.methods.fields import Sparse, TaskVector, Variance
from evomerge.methods.interface import Field, Kernel, Threshold
from evomerge.methods.linear import LinearCombination
from evomerge.methods.sce import Energy
from evomerge.methods.sparsifiers import (
    Clear,
    Drop,
    RankedDrop,
    Selection,
    Sparsifier,
    Trim,
    Window,
    just_below,
)
from evomerge.methods.task_vectors import NO_WEIGHT, TaskVectors

__all__ = ["Formula", "fields_formula", "formula", "sums"]

Tensors = list[torch.Tensor]
Merge = Callable[[Tensors, Tensors, torch.Tensor, torch.Tensor], torch.Tensor]
"""Inputs as float32, more tensors, float32 numbers, int32 numbers -> the merged tensor."""

Step = Callable[[torch.Tensor, Tensors, torch.Tensor, torch.Tensor], torch.Tensor]
"""A task vector and the arguments -> what is left of it."""

_FAR = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Bound:
    """A number that is `upto` for elements up to index `last`, and `beyond` after it."""

    place: int
    upto: float
    beyond: float
    last: int


@dataclass(frozen=True, slots=True)
class _Stream:
    """Random numbers: the offset of the first element, and the stride to the next."""

    place: int
    offset: int
    stride: int


@dataclass(frozen=True, slots=True, eq=False)
class Formula:
    """A kernel as a function.

    Attributes:
        key: What distinguishes it from formulas of another form.
        inputs: Which inputs it takes, in this order.
        function: The computation.
        tensors: More tensors of the inputs' length.
        floats: Numbers, float32 of shape (f,).
        integers: Numbers, int32 of shape (i,).
        bounds: Numbers that change inside the tensor.
        streams: Random numbers that go on inside the tensor.
    """

    key: Hashable
    inputs: tuple[int, ...]
    function: Merge
    tensors: tuple[torch.Tensor, ...]
    floats: torch.Tensor
    integers: torch.Tensor
    bounds: tuple[_Bound, ...] = ()
    streams: tuple[_Stream, ...] = ()

    def parts(self, numel: int) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
        """Yield the stretches in which all numbers are the same: start, stop, and the numbers.

        Among equal magnitudes the earlier ones are kept, so the bound changes inside a tensor.
        """
        ends = {bound.last + 1 for bound in self.bounds if 0 <= bound.last + 1 < numel}
        edges = [0, *sorted(ends - {0}), numel]
        for start, stop in pairwise(edges):
            floats, integers = self.floats.clone(), self.integers.clone()
            for bound in self.bounds:
                floats[bound.place] = bound.upto if start <= bound.last else bound.beyond
            for stream in self.streams:
                first = (stream.offset + start * stream.stride) & 0xFFFFFFFF
                integers[stream.place] = first - (1 << 32) if first >= 1 << 31 else first
            yield start, stop, floats, integers


class _Arguments:
    """Hands out places for the numbers of a formula."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []
        self.bounds: list[_Bound] = []
        self.streams: list[_Stream] = []
        self._floats: list[float] = []
        self._integers: list[int] = []

    def number(self, value: float) -> int:
        self._floats.append(value)
        return len(self._floats) - 1

    def integer(self, value: int) -> int:
        self._integers.append(value)
        return len(self._integers) - 1

    def formula(self, key: Hashable, inputs: tuple[int, ...], function: Merge) -> Formula:
        floats = torch.tensor(self._floats or [0.0], dtype=torch.float32)
        integers = torch.tensor(self._integers or [0], dtype=torch.int32)
        return Formula(
            key,
            inputs,
            function,
            tuple(self.tensors),
            floats,
            integers,
            tuple(self.bounds),
            tuple(self.streams),
        )


def formula(kernel: Kernel) -> Formula | None:
    """Return a kernel as a formula, or None if it has none."""
    if isinstance(kernel, LinearCombination):
        return _linear(kernel)
    if isinstance(kernel, TaskVectors):
        return _task_vectors(kernel)
    return None


def fields_formula(fields: Sequence[Field]) -> Formula | None:
    """Return a task vector, whole or sparse, or the energies of several, as one formula.

    Its function returns the fields below each other; None for any other fields.
    """
    energies = [field for field in fields if isinstance(field, Energy)]
    if energies and len(energies) == len(fields):
        return _energies(energies)
    if len(fields) != 1 or not isinstance(fields[0], TaskVector | Sparse):
        return None
    field, arguments = fields[0], _Arguments()
    step = _sparsifier(field.sparsify if isinstance(field, Sparse) else None, arguments)
    if step is None:
        return None
    name, sparsify = step

    def merge(xs: Tensors, ts: Tensors, f: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return sparsify(xs[1] - xs[0], ts, f, n).unsqueeze(0)

    return arguments.formula(("field", name), (0, field.i), merge)


def _energies(fields: Sequence[Energy]) -> Formula:
    arguments = _Arguments()
    select = _selection(fields[0].selection, arguments)
    chosen = tuple(field.i - 1 for field in fields)

    def merge(xs: Tensors, ts: Tensors, f: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        deltas = [x - xs[0] for x in xs[1:]]
        if select is not None:
            inside = select(_variance(deltas), ts, f, n) != 0.0
            deltas = [torch.where(inside, delta, 0.0) for delta in deltas]
        return torch.stack([deltas[place].square() for place in chosen])

    key = ("energies", chosen, select is not None)
    return arguments.formula(key, fields[0].inputs, merge)


def sums(values: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """Return `split_sums` of each line's magnitudes, float64 of shape (2 lines,).

    The grids are the last two numbers.
    """
    parts = [split_sums(line.abs(), f[-2], f[-1]) for line in values.unbind(0)]
    return torch.stack([half for part in parts for half in part])


def _linear(kernel: LinearCombination) -> Formula:
    arguments = _Arguments()
    used = tuple(i for i, factor in enumerate(kernel.coefficients) if factor != 0.0)
    for i in used:
        arguments.number(kernel.coefficients[i])

    def merge(xs: Tensors, _ts: Tensors, f: torch.Tensor, _n: torch.Tensor) -> torch.Tensor:
        total = xs[0] * f[0]
        for place in range(1, len(xs)):
            total = total + xs[place] * f[place]
        return total

    return arguments.formula(("linear", len(used)), used, merge)


def _task_vectors(kernel: TaskVectors) -> Formula | None:
    arguments = _Arguments()
    steps = [_sparsifier(sparsifier, arguments) for sparsifier in kernel.sparsifiers]
    if any(step is None for step in steps):
        return None
    names = tuple(step[0] for step in steps if step is not None)
    sparsify = [step[1] for step in steps if step is not None]
    select = _selection(kernel.select, arguments)
    gains = [arguments.number(gain) for gain in kernel.gains]
    weights = [arguments.number(weight) for weight in kernel.weights]
    factor = arguments.number(kernel.factor)
    plain, divide = kernel.plain_vote, kernel.normalize

    def merge(xs: Tensors, ts: Tensors, f: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        base = xs[0]
        deltas = [x - base for x in xs[1:]]
        terms = [step(delta, ts, f, n) for step, delta in zip(sparsify, deltas, strict=True)]
        if select is not None:
            inside = select(_variance(deltas), ts, f, n) != 0.0
            terms = [torch.where(inside, term, 0.0) for term in terms]
        if not kernel.elect:
            total = _sum(_scaled(terms, f, gains))
        else:
            votes = terms if plain else _scaled(terms, f, gains)
            sign = torch.where(_sum(votes) >= 0.0, 1.0, -1.0)
            terms = [(vote * sign).clamp(min=0.0) for vote in votes]
            terms = _scaled(terms, f, gains) if plain else terms
            total = _sum(terms) * sign
            if divide:
                shares = [
                    torch.where(term > 0.0, f[weight], 0.0)
                    for term, weight in zip(terms, weights, strict=True)
                ]
                divisor = _sum(shares)
                total = total / torch.where(divisor.abs() < NO_WEIGHT, divisor + 1.0, divisor)
        return total * f[factor] + base

    key = ("task vectors", names, kernel.elect, plain, divide, select is not None)
    return arguments.formula(key, tuple(range(len(names) + 1)), merge)


def _sum(terms: Tensors) -> torch.Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _scaled(terms: Tensors, f: torch.Tensor, gains: list[int]) -> Tensors:
    return [term * f[gain] for term, gain in zip(terms, gains, strict=True)]


def _selection(selection: Selection | None, arguments: _Arguments) -> Step | None:
    if selection is None:
        return None
    assert isinstance(selection.field, Variance)  # noqa: S101 - the only field that selects
    return _largest(selection.threshold, arguments)


def _variance(deltas: Tensors) -> torch.Tensor:
    mean = _sum(deltas) / len(deltas)
    return _sum([(delta - mean).square() for delta in deltas]) / len(deltas)


def _sparsifier(sparsifier: Sparsifier | None, arguments: _Arguments) -> tuple[str, Step] | None:
    if sparsifier is None:
        return "all", lambda delta, *_: delta
    if isinstance(sparsifier, Clear):
        return "none", lambda delta, *_: torch.zeros_like(delta)
    if isinstance(sparsifier, Trim):
        return "trim", _largest(sparsifier.threshold, arguments)
    if isinstance(sparsifier, Window):
        cut = _largest(sparsifier.cut, arguments, rest=True)
        if sparsifier.kept is None:
            return "cut", cut
        kept = _largest(sparsifier.kept.threshold, arguments)
        return "window", lambda delta, ts, f, n: kept(cut(delta, ts, f, n), ts, f, n)
    if isinstance(sparsifier, Drop):
        return "drop", _drop(sparsifier, arguments)
    if isinstance(sparsifier, RankedDrop):
        return "ranked drop", _ranked_drop(sparsifier, arguments)
    return None


def _largest(threshold: Threshold, arguments: _Arguments, *, rest: bool = False) -> Step:
    """Keep the elements up to a threshold, or all others."""
    place = arguments.number(0.0)
    last = _FAR if threshold.last_index is None else threshold.last_index
    magnitude = threshold.magnitude
    arguments.bounds.append(_Bound(place, just_below(magnitude), magnitude, last))

    def step(values: torch.Tensor, _ts: Tensors, f: torch.Tensor, _n: torch.Tensor) -> torch.Tensor:
        inside = values.abs() > f[place]
        return torch.where(inside, 0.0, values) if rest else torch.where(inside, values, 0.0)

    return step


def _drop(sparsifier: Drop, arguments: _Arguments) -> Step:
    draws = _draws(sparsifier.draws, arguments)
    bound = arguments.integer(sparsifier.bound)

    def drop(delta: torch.Tensor, _ts: Tensors, _f: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return torch.where(draws(delta, n) < n[bound], delta, 0.0)

    return drop


def _ranked_drop(sparsifier: RankedDrop, arguments: _Arguments) -> Step:
    draws = _draws(sparsifier.draws, arguments)
    low, step = arguments.integer(sparsifier.low), arguments.integer(sparsifier.step)
    arguments.tensors.append(sparsifier.ranks)
    place = len(arguments.tensors) - 1

    def drop(delta: torch.Tensor, ts: Tensors, _f: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        bound = ts[place].to(torch.int32) * n[step] + n[low]
        return torch.where(draws(delta, n) < bound, delta, 0.0)

    return drop


def _draws(
    draws: Draws, arguments: _Arguments
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Compute `Draws.block` for a stretch of less than 2**31 elements."""
    first_stride, first_offset = draws.start()
    stride, offset = arguments.integer(first_stride), arguments.integer(first_offset)
    arguments.streams.append(_Stream(offset, first_offset, first_stride))

    def numbers(like: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        values = _index(like) * n[stride] + n[offset]
        for shift, multiplier in ROUNDS:
            values = values ^ ((values >> shift) & ((1 << (32 - shift)) - 1))
            if multiplier is not None:
                values = values * multiplier
        return values

    return numbers


def _index(like: torch.Tensor) -> torch.Tensor:
    return torch.arange(like.shape[0], dtype=torch.int32, device=like.device)
