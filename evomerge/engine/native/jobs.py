"""Loops of one process: compiled when they are first wanted, given to threads piece by piece."""

import logging
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evomerge.engine.native.code import Loop, cache_folder, has_half, load_loop
from evomerge.engine.native.source import LoopText, loop_source
from evomerge.methods.program import Numbers, Program

__all__ = ["LITTLE", "PIECE", "Job", "Native", "Piece", "prompt_threads", "suits"]

PIECE = 1 << 20
"""Elements that a thread is given at a time, at most."""
LITTLE = 1 << 15
"""Up to so many elements the threads would take longer to begin."""

_LARGEST = 2**31 - 1
_TURN_SECONDS = 2e-4
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_log = logging.getLogger(__name__)

Piece = tuple[Numbers, int, int]
"""The numbers of a stretch, and its first element and the one after the last."""


@contextmanager
def prompt_threads() -> Iterator[None]:
    """Let threads take turns more often: a loop that ends must not wait 5 ms for the next."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _TURN_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Job:
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
            shares = -(-size // (PIECE * threads)) * threads if size > LITTLE else 1
            length = -(-size // shares // 64) * 64
            for start in range(part.start, part.stop, length):
                yield part, start, min(start + length, part.stop)

    def run(self, piece: Piece, *further: np.ndarray[Any, Any] | int) -> int:
        """Go over a piece, with the loop's own arrays and numbers."""
        numbers, start, stop = piece
        arrays = (numbers.floats, numbers.integers, *further)
        return self._loop(
            *self._places,
            *(x if isinstance(x, int) else x.ctypes.data for x in arrays),
            start,
            stop,
        )


class Native:
    """The native loops of one process.

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

    def job(
        self,
        around: LoopText,
        program: Program | None,
        inputs: Sequence[torch.Tensor],
        goal: tuple[torch.dtype, torch.dtype] | None = None,
    ) -> Job | None:
        """Prepare a loop.

        Args:
            around: What goes on around the program.
            program: What is computed for each element; None where that cannot be written.
            inputs: The flat sources.
            goal: The types that results are rounded to and written as, if they are.
        """
        if program is None or not program.inputs or not suits(inputs):
            return None
        types = tuple(inputs[i].dtype for i in program.inputs)
        key = (around, program.key(), types, goal)
        if key not in self._loops:
            rounded, out = goal or (None, None)
            try:
                loop = load_loop(loop_source(around, program, types, rounded, out), self.folder)
            except Exception as error:  # noqa: BLE001 - whatever a compiler does, there is a way
                _log.warning("a loop could not be compiled, the slower way is taken: %s", error)
                self._loops[key] = None
            else:
                self._loops[key] = loop
        found = self._loops[key]
        return None if found is None else Job(found, program, inputs)

    def begin(self, work: Callable[..., Any], *arguments: Any, alone: bool) -> Future[Any]:
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

    def each(
        self, work: Callable[[Piece], Any], pieces: Iterable[Piece], *, alone: bool | None = None
    ) -> list[Any]:
        """Give pieces to the threads and wait; return the results in their order.

        Args:
            work: What to do with a piece.
            pieces: The pieces.
            alone: Whether to do all of it now; if they have few elements, if not given.
        """
        todo = list(pieces)
        if alone is None:
            alone = sum(stop - start for _, start, stop in todo) <= LITTLE
        return [future.result() for future in [self.begin(work, p, alone=alone) for p in todo]]


def suits(tensors: Sequence[torch.Tensor], rounded: torch.dtype = torch.float32) -> bool:
    """Return whether loops can go over flat tensors, and round to a type."""
    types = {rounded, *(tensor.dtype for tensor in tensors)}
    return (
        0 < tensors[0].numel() <= _LARGEST
        and types.issubset(_TYPES)
        and (torch.float16 not in types or has_half())
        and all(x.is_contiguous() and x.device.type == "cpu" for x in tensors)
    )
