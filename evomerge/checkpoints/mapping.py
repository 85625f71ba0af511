"""Tensors as their files hold them: mapped into memory, and brought from the disk ahead of use.

A mapping costs no memory of this process: its pages belong to the system's file cache. It lasts as
long as the tensor, and a file that another program cuts short meanwhile kills the process, so it
suits a merge that passes once over its sources and not a bank that lives for days.
"""

import mmap
import os
from typing import TYPE_CHECKING

from evomerge.checkpoints.header import DTYPE_SIZES, TensorInfo
from evomerge.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = ["fetch", "map_tensor"]

_PIECE = 1 << 18
"""Bytes asked for at a time; some systems read no more than this at one request."""


def map_tensor(info: TensorInfo) -> "torch.Tensor | None":
    """Return a tensor whose memory is its file; writing to it does not change the file.

    Returns:
        The tensor, or None where its place in the file does not suit its type.

    Raises:
        CheckpointError: if the file cannot be read or became shorter.
    """
    import torch

    dtype = getattr(torch, info.dtype)
    if not info.num_bytes:
        return torch.empty(info.shape, dtype=dtype)
    if info.offset % DTYPE_SIZES[info.dtype]:
        return None
    first = info.offset - info.offset % mmap.ALLOCATIONGRANULARITY
    try:
        with info.file.open("rb", buffering=0) as stream:
            memory = mmap.mmap(
                stream.fileno(),
                info.offset + info.num_bytes - first,
                access=mmap.ACCESS_COPY,
                offset=first,
            )
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{info.file}: cannot be read: {exc}") from exc
    data = torch.frombuffer(
        memory, dtype=torch.uint8, count=info.num_bytes, offset=info.offset - first
    )
    return data.view(dtype).reshape(info.shape)


def fetch(info: TensorInfo) -> None:
    """Bring a tensor from the disk into the system's file cache, and wait for it.

    Takes no memory of this process, and next to no time where the cache has it already.

    Raises:
        CheckpointError: if the file cannot be read or became shorter.
    """
    stop = info.offset + info.num_bytes
    pieces = [(start, min(start + _PIECE, stop)) for start in range(info.offset, stop, _PIECE)]
    try:
        with info.file.open("rb", buffering=0) as stream:
            handle = stream.fileno()
            if hasattr(os, "posix_fadvise"):
                for start, end in pieces:
                    os.posix_fadvise(handle, start, end - start, os.POSIX_FADV_WILLNEED)
            for _, end in pieces:
                if not os.pread(handle, 1, end - 1):
                    raise CheckpointError(
                        f"{info.file}: cut short while it is read; copy or download it again"
                    )
    except OSError as exc:
        raise CheckpointError(f"{info.file}: cannot be read: {exc.strerror}") from exc
