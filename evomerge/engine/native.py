"""Programs run as native loops: each source is read once and the result written once.

What a loop computes has the same bits as the blocked kernels and facts: every operation is a
float32 operation of its own, in the same order, and sums are exact. Work is cut into pieces for
threads, and a merge goes on while the next tensor is prepared.
"""

import logging
import math
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evomerge.engine.magnitudes import rank_type
from evomerge.engine.native_code import Loop, cache_folder, has_half, load_loop
from evomerge.engine.native_loops import loop_source
from evomerge.errors import PrerequisiteError
from evomerge.methods.draws import LEVEL_SHIFT, LEVELS, Draws
from evomerge.methods.exact import STRETCH, anchors
from evomerge.methods.fields import TaskVector
from evomerge.methods.interface import Field, Kernel
from evomerge.methods.program import Numbers, Program, written

__all__ = ["Merging", "Native", "native_loops", "prompt_threads"]

_LARGEST = 2**31 - 1
_INFINITE = 0x7F800000
_INTEGER = 0xFFFFFFFF
_PIECE = 1 << 20
_LITTLE = 1 << 15
"""Up to so many elements the threads would take longer to begin."""
_TURN_SECONDS = 2e-4
_PAYS = 20_000_000
_FEW = 16  # a piece has so many times fewer elements near a threshold
_MOVES = 3
"""So many moves an element, and sorting by digits would have been as quick."""
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_CHOICES = ("auto", "never", "always")
_log = logging.getLogger(__name__)

Integers = np.ndarray[Any, np.dtype[np.int64]]
Patterns = np.ndarray[Any, np.dtype[np.int32]]
Piece = tuple[Numbers, int, int]


def native_loops(device: torch.device, elements: int) -> "Native | None":
    """Return the native loops for a merge, or None where they would not pay.

    `EVOMERGE_COMPILE` is `auto` (the default), `never` or `always`.

    Args:
        device: Where it happens.
        elements: Number of elements of the merged model.

    Raises:
        PrerequisiteError: if the variable has another value.
    """
    choice = os.environ.get("EVOMERGE_COMPILE", "auto")
    if choice not in _CHOICES:
        raise PrerequisiteError(f"EVOMERGE_COMPILE={choice!r}: want {', '.join(_CHOICES)}")
    if device.type != "cpu" or choice == "never" or (choice == "auto" and elements < _PAYS):
        return None
    return Native()


@contextmanager
def prompt_threads() -> Iterator[None]:
    """Let threads take turns more often: a loop that ends must not wait 5 ms for the next."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _TURN_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class _Job:
    """A loop and what it goes over."""

    def __init__(self, loop: Loop, program: Program, inputs: Sequence[torch.Tensor]) -> None:
        self._loop = loop
        # The loop knows addresses only: the tensors must live as long as the job.
        self._tensors = [*(inputs[i] for i in program.inputs), *program.tensors]
        self._places = [tensor.data_ptr() for tensor in self._tensors]
        self.parts = list(program.parts(self._tensors[0].numel()))

    def pieces(self) -> Iterator[Piece]:
        """Yield stretches for the threads, as many for each."""
        threads = torch.get_num_threads()
        for part in self.parts:
            size = part.stop - part.start
            shares = -(-size // (_PIECE * threads)) * threads if size > _LITTLE else 1
            length = -(-size // shares // 64) * 64
            for start in range(part.start, part.stop, length):
                yield part, start, min(start + length, part.stop)

    def run(self, piece: Piece, *further: "np.ndarray[Any, Any] | int") -> int:
        """Go over a piece, with the loop's own arrays and numbers."""
        numbers, start, stop = piece
        arrays = (numbers.floats, numbers.integers, *further)
        return self._loop(
            *self._places,
            *(x if isinstance(x, int) else x.ctypes.data for x in arrays),
            start,
            stop,
        )


@dataclass(frozen=True, slots=True)
class Merging:
    """A tensor that is being merged.

    Attributes:
        read: The inputs that the loop reads.
        pieces: Each gives the patterns of the largest magnitude that it read (times 2**32) and
            wrote.
    """

    read: tuple[int, ...]
    pieces: "Sequence[Future[int]]"

    def wait(self) -> tuple[bool, bool]:
        """Wait for the end; return whether what was read, and what was written, is finite."""
        found = [future.result() for future in self.pieces]
        return (
            all(peaks >> 32 < _INFINITE for peaks in found),
            all(peaks & _INTEGER < _INFINITE for peaks in found),
        )


class Native:
    """The native loops of one process; its methods return None where a loop cannot do it.

    Attributes:
        folder: Where compiled loops are kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Use the loops in a folder.

        Args:
            folder: Where compiled loops are kept; `cache_folder()` if not given.
        """
        self.folder = folder or cache_folder()
        self._loops: dict[Hashable, Loop | None] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._num_threads = 0

    def merge(
        self, kernel: Kernel, inputs: Sequence[torch.Tensor], dtype: torch.dtype, out: torch.Tensor
    ) -> "Merging | None":
        """Begin to merge a whole tensor.

        Args:
            kernel: What to do.
            inputs: The flat sources; they must not change until the end.
            dtype: Type to which the result is rounded.
            out: Where it goes, flat.

        Returns:
            What goes on.
        """
        if not _suits([out], dtype):
            return None
        program = written(kernel)
        job = self._job("merge", program, inputs, (dtype, out.dtype))
        if job is None or program is None:
            return None
        goal = out.data_ptr()
        alone = out.numel() <= _LITTLE
        return Merging(
            tuple(program.inputs),
            [self._begin(job.run, piece, goal, alone=alone) for piece in job.pieces()],
        )

    def largest(self, tensor: torch.Tensor) -> float | None:
        """Return the largest magnitude of a flat tensor; not finite if one of them is not."""
        program = Program()
        program.results = (program.load(0),)
        job = self._job("largest", program, [tensor])
        if job is None:
            return None
        pattern = max(self._all(job.run, job.pieces()))
        return float(np.int32(pattern).view(np.float32))

    def totals(
        self, fields: Sequence[Field], inputs: Sequence[torch.Tensor], bound: float
    ) -> list[float] | None:
        """Return the sums of the magnitudes of fields.

        Args:
            fields: What to add up.
            inputs: The flat sources.
            bound: No element is larger.
        """
        job = self._job("totals", written(*fields), inputs)
        if job is None:
            return None
        grids = np.array(anchors(bound, torch.float32), dtype=np.float32)

        def add(piece: Piece) -> Integers:
            sums = np.zeros(2 * len(fields), np.int64)
            job.run(piece, grids, sums)
            return sums

        sums = np.sum(self._all(add, job.pieces()), axis=0)
        near, far = np.spacing(grids).tolist()
        return [float(sums[i]) * near + float(sums[i + 1]) * far for i in range(0, len(sums), 2)]

    def products(
        self, pairs: Sequence[tuple[int, int]], inputs: Sequence[torch.Tensor], *, deltas: bool
    ) -> list[float] | None:
        """Return inner products, as `evomerge.engine.products` has them.

        Args:
            pairs: Of which inputs.
            inputs: The flat sources.
            deltas: Whether of task vectors.
        """
        program = Program()
        read = program.task_vector if deltas else program.load
        program.results = tuple(program.let(f"{read(i)} * {read(j)}") for i, j in pairs)
        job = self._job("sums", program, inputs)
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
        return [math.fsum(column) for column in np.concatenate(self._all(add, pieces)).T.tolist()]

    def levels(
        self, i: int, draws: Draws, inputs: Sequence[torch.Tensor], bound: float
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        """Return the exact sums, in two parts, of the magnitudes that each level of draws has.

        Args:
            i: Whose task vector it is about.
            draws: The random numbers.
            inputs: The flat sources.
            bound: No element is larger.
        """
        program = Program()
        program.results = (TaskVector(i).write(program), program.draw(draws))
        job = self._job("levels", program, inputs)
        if job is None:
            return None
        grids = np.array(anchors(bound, torch.float32), dtype=np.float32)

        def add(piece: Piece) -> Integers:
            table = np.zeros(2 * LEVELS, np.int64)
            job.run(piece, grids, table, LEVEL_SHIFT, LEVELS)
            return table

        table = np.sum(self._all(add, job.pieces()), axis=0).reshape(2, LEVELS)
        near, far = np.spacing(grids).tolist()
        return table[0] * near, table[1] * far

    def scan(
        self,
        field: Field,
        inputs: Sequence[torch.Tensor],
        work: Callable[[int, Patterns], Any],
        *,
        length: int = _PIECE // 4,
        starts: Iterable[int] | None = None,
    ) -> list[Any] | None:
        """Give the magnitudes of a field, as bit patterns, to a function.

        Args:
            field: Whose.
            inputs: The flat sources.
            work: Called in the threads with the index of the first element and the patterns.
            length: Elements given at a time.
            starts: First elements of the stretches; all of the tensor if not given.

        Returns:
            The results in order.
        """
        job = self._job("patterns", written(field), inputs)
        if job is None or len(job.parts) > 1:
            return None
        numel = inputs[0].numel()

        def give(piece: Piece) -> Any:
            patterns = np.empty(piece[2] - piece[1], np.int32)
            job.run(piece, patterns)
            return work(piece[1], patterns)

        firsts = range(0, numel, length) if starts is None else starts
        pieces = ((job.parts[0], first, min(first + length, numel)) for first in firsts)
        return self._all(give, pieces)

    def runs(
        self, field: Field, inputs: Sequence[torch.Tensor], stretch: int
    ) -> list[tuple[int, Patterns, Integers]] | None:
        """Return the different magnitudes of each stretch of a field, as rising bit patterns.

        Args:
            field: Whose.
            inputs: The flat sources.
            stretch: Elements in a stretch.

        Returns:
            For each stretch its first element, the patterns, and how often each is there.
        """
        job = self._job("runs", written(field), inputs)
        if job is None or len(job.parts) > 1:
            return None

        def sort(piece: Piece) -> list[tuple[int, Patterns, Integers]]:
            numbers, first, stop = piece
            counts, keys = np.empty(3 * 2048, np.uint32), np.empty(2 * stretch, np.int32)
            found = []
            for start in range(first, stop, stretch):
                end = min(start + stretch, stop)
                many = job.run((numbers, start, end), counts, keys)
                patterns = keys[end - start : end - start + many].copy()
                found.append((start, patterns, keys[:many].astype(np.int64)))
            return found

        numel, length = inputs[0].numel(), 16 * stretch
        pieces = [(job.parts[0], k, min(k + length, numel)) for k in range(0, numel, length)]
        return [run for part in self._all(sort, pieces) for run in part]

    def rising(self, field: Field, inputs: Sequence[torch.Tensor]) -> Patterns | None:
        """Return all magnitudes of a field, as bit patterns from the smallest to the largest."""
        job = self._job("runs", written(field), inputs)
        if job is None or len(job.parts) > 1:
            return None
        numel = inputs[0].numel()
        counts, keys = np.empty(3 * 2048, np.uint32), np.empty(2 * numel, np.int32)
        many = job.run((job.parts[0], 0, numel), counts, keys)
        return np.repeat(keys[numel : numel + many], keys[:many])

    def within(
        self, field: Field, inputs: Sequence[torch.Tensor], low: int, high: int
    ) -> tuple[int, np.ndarray[Any, Any], Patterns] | None:
        """Look for the magnitudes of a field, as bit patterns, from `low` to `high`.

        Returns:
            How many are above, and the indices and patterns of those inside, in their order.
        """
        job = self._job("within", written(field), inputs)
        if job is None:
            return None

        def look(piece: Piece) -> tuple[int, np.ndarray[Any, Any], Patterns]:
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

        found = self._all(look, job.pieces())
        above = sum(part[0] for part in found)
        where, patterns = (np.concatenate([part[k] for part in found]) for k in (1, 2))
        return above, where, patterns

    def place(
        self,
        field: Field,
        inputs: Sequence[torch.Tensor],
        pattern: int,
        number: int,
        stretch: range,
    ) -> int | None:
        """Return the index of the `number`-th magnitude of a pattern in a stretch."""
        job = self._job("place", written(field), inputs)
        if job is None or len(job.parts) > 1:
            return None
        return job.run((job.parts[0], stretch.start, stretch.stop), pattern, number)

    def ranks(self, i: int, inputs: Sequence[torch.Tensor], row: int) -> torch.Tensor | None:
        """Return each element's place in its row by magnitude of task vector i.

        Args:
            i: Whose task vector.
            inputs: The flat sources.
            row: Elements in a row.
        """
        kind = rank_type(row)
        name = "ranks16" if kind == torch.int16 else "ranks32"
        job = self._job(name, written(TaskVector(i)), inputs)
        if job is None:
            return None
        ranks = torch.empty(inputs[0].numel(), dtype=kind)
        goal, rows = ranks.numpy(), len(ranks) // row
        few = all(inputs[k].itemsize == 2 for k in (0, i))
        moves = _MOVES * row if few else 0

        def rank(piece: Piece) -> None:
            counts, pairs = np.empty(2048, np.uint32), np.empty(2 * row, np.uint64)
            job.run(piece, counts, pairs, goal, row, moves)

        step = max(_PIECE // 8 // row, 1)
        starts = range(0, rows, step)
        pieces = [(job.parts[0], first, min(first + step, rows)) for first in starts]
        self._all(rank, pieces, alone=ranks.numel() <= _LITTLE)
        return ranks

    def divergence(
        self, i: int, j: int, inputs: Sequence[torch.Tensor], row: int
    ) -> torch.Tensor | None:
        """Return the divergence of each row, as `evomerge.engine.divergence` has it.

        Args:
            i: The input whose distributions they are of.
            j: The input whose distributions they are from.
            inputs: The flat sources.
            row: Elements in a row.
        """
        program = Program()
        program.results = (program.load(i), program.load(j))
        job = self._job("divergence", program, inputs)
        if job is None:
            return None
        found = np.empty(inputs[0].numel() // row, np.float32)

        def fill(piece: Piece) -> None:
            job.run(piece, np.empty(4 * row), found, row)

        step = max(_PIECE // 8 // row, 1)
        pieces = [(job.parts[0], k, min(k + step, len(found))) for k in range(0, len(found), step)]
        self._all(fill, pieces, alone=inputs[0].numel() <= _LITTLE)
        return torch.from_numpy(found)

    def _job(
        self,
        name: str,
        program: Program | None,
        inputs: Sequence[torch.Tensor],
        goal: tuple[torch.dtype, torch.dtype] | None = None,
    ) -> _Job | None:
        if program is None or not program.inputs or not _suits(inputs):
            return None
        types = tuple(inputs[i].dtype for i in program.inputs)
        key = (name, program.key(), types, goal)
        if key not in self._loops:
            rounded, out = goal or (None, None)
            try:
                loop = load_loop(loop_source(name, program, types, rounded, out), self.folder)
            except Exception as error:  # noqa: BLE001 - whatever a compiler does, there is a way
                _log.warning("a loop could not be compiled, the slower way is taken: %s", error)
                self._loops[key] = None
            else:
                self._loops[key] = loop
        found = self._loops[key]
        return None if found is None else _Job(found, program, inputs)

    def _begin(self, work: Callable[..., Any], *arguments: Any, alone: bool) -> "Future[Any]":
        """Give work to the threads; do it now if there is one only, or it is little."""
        threads = torch.get_num_threads()
        if threads == 1 or alone:
            done: Future[Any] = Future()
            done.set_result(work(*arguments))
            return done
        if self._pool is None or threads != self._num_threads:
            self._pool = ThreadPoolExecutor(threads, "evomerge-loop")
            self._num_threads = threads
        return self._pool.submit(work, *arguments)

    def _all(
        self, work: Callable[[Piece], Any], pieces: Iterable[Piece], *, alone: bool | None = None
    ) -> list[Any]:
        todo = list(pieces)
        if alone is None:
            alone = sum(stop - start for _, start, stop in todo) <= _LITTLE
        return [future.result() for future in [self._begin(work, p, alone=alone) for p in todo]]


def _suits(tensors: Sequence[torch.Tensor], rounded: torch.dtype = torch.float32) -> bool:
    types = {rounded, *(tensor.dtype for tensor in tensors)}
    return (
        0 < tensors[0].numel() <= _LARGEST
        and types.issubset(_TYPES)
        and (torch.float16 not in types or has_half())
        and all(x.is_contiguous() and x.device.type == "cpu" for x in tensors)
    )
