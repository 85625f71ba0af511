"""Reading, merging and writing at the same time, in bounded memory.

One thread brings the sources of the next tensors from the disk into the system's file cache, the
caller merges, and one thread writes. An error of a thread is raised in the caller's next step.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import torch

__all__ = ["Memory", "Outputs", "ahead"]

T = TypeVar("T")

_AHEAD_BYTES = 1 << 28
"""How much is fetched before its turn: enough to keep a disk busy, little for a file cache."""


def ahead(
    items: Iterable[T],
    prepare: Callable[[T], None],
    num_bytes: Callable[[T], int],
    limit: int = _AHEAD_BYTES,
) -> Generator[T, None, None]:
    """Yield items in their order, each after it was prepared in a thread.

    Close the generator to stop the thread.

    Args:
        items: What to prepare.
        prepare: Called with one item after the other, in the thread.
        num_bytes: The size of an item.
        limit: Bytes of items prepared before their turn; one item may be larger.

    Raises:
        Exception: what `prepare` raised for the item whose turn it is.
    """
    with ThreadPoolExecutor(1, "evomerge-read") as pool:
        waiting: deque[tuple[T, Future[None]]] = deque()
        held = 0
        try:
            for item in items:
                waiting.append((item, pool.submit(prepare, item)))
                held += num_bytes(item)
                while held > limit and len(waiting) > 1:
                    held -= num_bytes(waiting[0][0])
                    yield _done(*waiting.popleft())
            while waiting:
                yield _done(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _done(item: T, future: "Future[None]") -> T:
    future.result()
    return item


class Memory:
    """A buffer that is used again for tensors of any shape; only what is touched is resident."""

    def __init__(self, num_bytes: int, *, pinned: bool = False) -> None:
        """Reserve it.

        Args:
            num_bytes: Size of the largest tensor it will hold.
            pinned: Whether a GPU copies into it.
        """
        # numpy asks the system for huge pages, which first touches are far cheaper with.
        self._bytes = (
            torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
            if pinned
            else torch.from_numpy(np.empty(num_bytes, np.uint8))
        )

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return the start of the buffer as a tensor; what it held before is lost."""
        count = torch.Size(shape).numel()
        return self._bytes[: count * dtype.itemsize].view(dtype).view(shape)


class Outputs:
    """Two buffers for results: one is filled while the other is written."""

    def __init__(
        self, write: Callable[[str, torch.Tensor], None], largest: int, *, pinned: bool = False
    ) -> None:
        """Start the writing thread.

        Args:
            write: Called with each name and result, in order, in the thread.
            largest: Bytes of the largest result.
            pinned: Whether a GPU copies into the buffers.
        """
        self._write = write
        self._pool = ThreadPoolExecutor(1, "evomerge-write")
        self._buffers = deque(Memory(largest, pinned=pinned) for _ in range(2))
        self._writing: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until everything is written; after an error only for what is being written."""
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future in self._writing:
                future.result()

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return memory for the next result, once a buffer is free.

        Raises:
            Exception: what writing an earlier result raised.
        """
        if len(self._writing) == len(self._buffers):
            self._writing.popleft().result()
        return self._buffers[0].tensor(shape, dtype)

    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Give away the result that was made in the memory of the last `tensor`."""
        self._writing.append(self._pool.submit(self._write, name, tensor))
        self._buffers.rotate()
