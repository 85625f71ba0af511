"""A new file that goes to the disk past the system's file cache.

What a merge writes must be on the disk before it counts, so the cache would be a detour: filling it
takes more processor time than merging, and pushes the sources out of it.
"""

import errno
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

try:
    import fcntl
except ImportError:  # no such system has O_DIRECT
    fcntl = None  # type: ignore[assignment]

__all__ = ["DirectFile"]

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_CHUNK = 1 << 22
"""Bytes written at a time: enough to keep a disk busy, little memory."""
_PAGE = 1 << 12
_DIRECT: int = getattr(os, "O_DIRECT", 0)


class DirectFile:
    """Appends to a new file, past the file cache where system and file system can.

    Attributes:
        direct: Whether it goes past the cache.
    """

    def __init__(self, path: Path) -> None:
        """Make the file, or empty it.

        Raises:
            OSError: if that cannot be.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        self.direct = bool(_DIRECT)
        try:
            self._handle = os.open(path, flags | _DIRECT, 0o666)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            self.direct = False
            self._handle = os.open(path, flags, 0o666)
        # The system wants memory, lengths and places in the file in whole pages.
        self._chunk: Bytes = np.frombuffer(mmap.mmap(-1, _CHUNK), np.uint8)
        self._filled = 0

    def write(self, data: Bytes) -> None:
        """Append bytes.

        Args:
            data: uint8 of shape (n,).

        Raises:
            OSError: if the disk is full or fails.
        """
        done = 0
        while done < len(data):
            count = min(len(data) - done, _CHUNK - self._filled)
            # numpy lets other threads run meanwhile.
            self._chunk[self._filled : self._filled + count] = data[done : done + count]
            self._filled += count
            done += count
            if self._filled == _CHUNK:
                self._append(0, _CHUNK)
                self._filled = 0

    def finish(self) -> None:
        """Write what is left, and close the file.

        Raises:
            OSError: if the disk is full or fails.
        """
        try:
            whole = self._filled - self._filled % _PAGE
            self._append(0, whole)
            if whole < self._filled:
                self._use_cache()
                self._append(whole, self._filled)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file as it is."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _append(self, start: int, stop: int) -> None:
        view = self._chunk.data
        while start < stop:
            try:
                start += os.write(self._handle, view[start:stop])
            except OSError as exc:
                # Some file systems refuse only now; others, after a part of a page was written.
                if exc.errno != errno.EINVAL or not self.direct:
                    raise
                self._use_cache()

    def _use_cache(self) -> None:
        if self.direct:
            flags = fcntl.fcntl(self._handle, fcntl.F_GETFL)
            fcntl.fcntl(self._handle, fcntl.F_SETFL, flags & ~_DIRECT)
            self.direct = False
