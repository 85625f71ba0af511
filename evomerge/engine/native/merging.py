"""Merging whole tensors by native loops, while the next one is prepared."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from evomerge.engine.native.jobs import LITTLE, Native, suits
from evomerge.engine.native.source import LoopText
from evomerge.methods.interface import Kernel
from evomerge.methods.program import written

__all__ = ["Merging", "begin_merge"]

_INFINITE = 0x7F800000
_INTEGER = 0xFFFFFFFF

_MERGE = LoopText(
    """
    most = peak = I(0)
    for i in range(uint64(start), uint64(stop)):
        {element}
        {look}
        rounded = rounder({r})
        peak = larger(peak, I(bits(rounded) & 0x7FFFFFFF))
        writer(out, i, rounded)
    return (int64(most) << 32) | int64(peak)
""",
    ("out",),
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
    pieces: Sequence[Future[int]]

    def wait(self) -> tuple[bool, bool]:
        """Wait for the end; return whether what was read, and what was written, is finite."""
        found = [future.result() for future in self.pieces]
        return (
            all(peaks >> 32 < _INFINITE for peaks in found),
            all(peaks & _INTEGER < _INFINITE for peaks in found),
        )


def begin_merge(
    native: Native,
    kernel: Kernel,
    inputs: Sequence[torch.Tensor],
    dtype: torch.dtype,
    out: torch.Tensor,
) -> Merging | None:
    """Begin to merge a whole tensor.

    Args:
        native: The loops.
        kernel: What to do.
        inputs: The flat sources; they must not change until the end.
        dtype: Type to which the result is rounded.
        out: Where it goes, flat.

    Returns:
        What goes on.
    """
    if not suits([out], dtype):
        return None
    program = written(kernel)
    job = native.job(_MERGE, program, inputs, (dtype, out.dtype))
    if job is None or program is None:
        return None
    goal = out.data_ptr()
    alone = out.numel() <= LITTLE
    return Merging(
        tuple(program.inputs),
        [native.begin(job.run, piece, goal, alone=alone) for piece in job.pieces()],
    )
