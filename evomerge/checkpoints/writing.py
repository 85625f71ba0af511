"""Writing a checkpoint: shards filled one after the other, beside the goal, renamed at the end."""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from evomerge.checkpoints.direct_file import DirectFile
from evomerge.checkpoints.header import DTYPE_SIZES, encode_header
from evomerge.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = ["ShardedWriter", "TensorSpec", "check_free", "check_space", "write_checkpoint"]

_SYNC_BYTES = 1 << 26
"""How much is written before the disk is told to begin with it."""
_ROOM = 1 << 24
"""Bytes to spare for headers, documents and the file system's own records."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that will be written: its name, type (as torch spells it) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Length of its data."""
        size = DTYPE_SIZES[self.dtype]
        for length in self.shape:
            size *= length
        return size


def check_free(out: Path) -> None:
    """Refuse a goal that holds something.

    Raises:
        CheckpointError: if `out` is a file or a folder that is not empty.
    """
    if out.is_dir():
        if any(out.iterdir()):
            raise CheckpointError(f"{out}: the folder is not empty; choose another or remove it")
    elif out.exists():
        raise CheckpointError(f"{out}: there is a file of this name; choose another")


def check_space(out: Path, num_bytes: int) -> None:
    """Refuse a goal on a disk that is too full.

    Args:
        out: What will be written.
        num_bytes: How large it will be.

    Raises:
        CheckpointError: if the disk has less room.
    """
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < num_bytes:
        raise CheckpointError(
            f"{out}: the model takes {num_bytes / 1e9:.2f} GB and the disk of {place} has "
            f"{free / 1e9:.2f} GB free; make room or choose another disk"
        )


@contextmanager
def write_checkpoint(
    out: Path,
    tensors: Sequence[TensorSpec],
    *,
    shard_bytes: float = 5e9,
    documents: Mapping[str, Mapping[str, Any] | str] | None = None,
    files: Sequence[Path] = (),
) -> Iterator["ShardedWriter"]:
    """Write a checkpoint that appears at `out` complete or not at all.

    Inside the block the caller gives the tensors, in the order of `tensors`, to the writer. On an
    error everything written so far is removed.

    Args:
        out: The folder to make; its parents are made too.
        tensors: All tensors that will be written.
        shard_bytes: Largest size of a shard's data (a larger tensor gets a shard of its own).
        documents: File names and contents, a mapping becoming JSON.
        files: Files and folders to copy; a document of the same name wins.

    Raises:
        CheckpointError: if `out` is not free, or its disk is full or cannot be written.
        ValueError: if tensors are missing at the end.
    """
    check_free(out)
    out = out.absolute()
    size = sum(spec.num_bytes for spec in tensors) + sum(map(_size, files))
    check_space(out, size + _ROOM)
    beside = out.with_name(f"{out.name}.tmp-{secrets.token_hex(4)}")
    with _reporting(out):
        beside.mkdir(parents=True)
    try:
        with ShardedWriter(beside, tensors, shard_bytes) as writer:
            with _reporting(out):
                _write_company(beside, documents or {}, files)
                writer.sync(beside.rglob("*"))
            yield writer
            with _reporting(out):
                writer.finish()
        with _reporting(out):
            _sync(beside)
            check_free(out)
            beside.replace(out)
            _sync(out.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


@contextmanager
def _reporting(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise CheckpointError(f"{out}: cannot be written: {exc.strerror or exc}") from exc


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)


def _write_company(
    folder: Path, documents: Mapping[str, Mapping[str, Any] | str], files: Sequence[Path]
) -> None:
    for file in files:
        if file.is_dir():
            shutil.copytree(file, folder / file.name)
        else:
            shutil.copyfile(file, folder / file.name)
    for name, content in documents.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ShardedWriter:
    """Writes tensors one after the other; nothing but the current tensor is in memory.

    What is written goes to the disk at once, or is brought there by a thread of its own meanwhile,
    so that the end has little to wait for.
    """

    def __init__(self, folder: Path, tensors: Sequence[TensorSpec], shard_bytes: float) -> None:
        """Plan the shards.

        Args:
            folder: Where they go.
            tensors: All tensors in the order in which they will come.
            shard_bytes: Largest size of a shard's data.
        """
        self._folder = folder
        self._shards = _plan_shards(tensors, shard_bytes)
        self._total = sum(spec.num_bytes for spec in tensors)
        self._order = iter([(i, spec) for i, shard in enumerate(self._shards) for spec in shard])
        self._stream: DirectFile | None = None
        self._current = -1
        self._pool = ThreadPoolExecutor(1, "evomerge-sync")
        self._syncs: list[Future[None]] = []
        self._unsynced = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._stream is not None:
            self._stream.close()

    def write(self, name: str, tensor: "torch.Tensor") -> None:
        """Append the next tensor.

        Raises:
            CheckpointError: if the disk is full or fails.
            ValueError: if it is not the next one, or has another type or shape.
        """
        import torch

        shard, spec = next(self._order, (-1, None))
        dtype = str(tensor.dtype).removeprefix("torch.")
        if spec != TensorSpec(name, dtype, tuple(tensor.shape)):
            raise ValueError(f"expected {spec}, got {name} {dtype} {tuple(tensor.shape)}")
        data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
        with _reporting(self._folder / self._file_name(shard)):
            if shard != self._current:
                self._open(shard)
            assert self._stream is not None  # noqa: S101
            self._stream.write(data.numpy())
            self._unsynced += 0 if self._stream.direct else spec.num_bytes
        if self._unsynced >= _SYNC_BYTES and (not self._syncs or self._syncs[-1].done()):
            self.sync([self._folder / self._file_name(shard)])
            self._unsynced = 0

    def sync(self, paths: Iterable[Path]) -> None:
        """Bring files to the disk, in a thread; `finish` waits for it."""
        self._syncs.extend(self._pool.submit(_sync, path) for path in paths)

    def finish(self) -> None:
        """Write the index, and wait until everything is on the disk.

        Raises:
            OSError: if the disk fails.
            ValueError: if tensors are missing.
        """
        missing = next(self._order, None)
        if missing is not None:
            raise ValueError(f"the tensor {missing[1].name!r} was not written")
        self._close()
        if len(self._shards) > 1:
            weight_map = {
                spec.name: self._file_name(i)
                for i, shard in enumerate(self._shards)
                for spec in shard
            }
            index = {"metadata": {"total_size": self._total}, "weight_map": weight_map}
            file = self._folder / "model.safetensors.index.json"
            file.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            self.sync([file])
        for future in self._syncs:
            future.result()

    def _open(self, shard: int) -> None:
        self._close()
        self._stream = DirectFile(self._folder / self._file_name(shard))
        self._current = shard
        entries = {spec.name: (spec.dtype, spec.shape) for spec in self._shards[shard]}
        self._stream.write(np.frombuffer(encode_header(entries), np.uint8))

    def _close(self) -> None:
        if self._stream is not None:
            file = self._folder / self._file_name(self._current)
            with _reporting(file):
                self._stream.finish()
            self.sync([file])

    def _file_name(self, shard: int) -> str:
        count = len(self._shards)
        return (
            "model.safetensors"
            if count == 1
            else f"model-{shard + 1:05d}-of-{count:05d}.safetensors"
        )


def _plan_shards(tensors: Sequence[TensorSpec], shard_bytes: float) -> list[list[TensorSpec]]:
    shards: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in tensors:
        if shards[-1] and filled + spec.num_bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(spec)
        filled += spec.num_bytes
    return shards
