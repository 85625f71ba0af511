"""Files past the file cache: the same bytes wherever the system refuses."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.checkpoints import direct_file
from evomerge.checkpoints.direct_file import DirectFile

CHUNK = 1 << 13
PARTS = (0, 1, 4095, 4096, 8192, 3, 100_000, 8191)

pytestmark = pytest.mark.usefixtures("_small_chunks")


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_file, "_CHUNK", CHUNK)


def write(path: Path, parts: tuple[int, ...] = PARTS) -> tuple[bytes, DirectFile]:
    data = np.random.default_rng(0).integers(0, 256, sum(parts), np.uint8)
    file = DirectFile(path)
    for part in np.split(data, np.cumsum(parts)[:-1]):
        file.write(part)
    file.finish()
    return data.tobytes(), file


@pytest.mark.parametrize("parts", [PARTS, (), (5,), (CHUNK,), (CHUNK, 4096), (3 * CHUNK + 1,)])
def test_the_file_holds_what_was_written(tmp_path: Path, parts: tuple[int, ...]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"longer than what follows, or not" * 100)
    data, _ = write(path, parts)
    assert path.read_bytes() == data


def test_a_system_without_direct_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_file, "_DIRECT", 0)
    data, file = write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert not file.direct


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no system refuses what it has not")
def test_a_file_system_that_refuses_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Path, flags: int, mode: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "refused")
        return opened(path, flags, mode)

    monkeypatch.setattr(direct_file.os, "open", refuse)
    data, file = write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert not file.direct


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no system refuses what it has not")
def test_a_file_system_that_refuses_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    appended = os.write

    try:
        handle = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError:
        pytest.skip("the file system of temporary files refuses at once")
    os.close(handle)

    def refuse(handle: int, data: memoryview) -> int:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "refused")
        return appended(handle, data[:5000])  # and writes a part of what it is given

    monkeypatch.setattr(direct_file.os, "write", refuse)
    data, file = write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert not file.direct


@pytest.mark.parametrize("name", ["open", "write"])
def test_other_errors_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(direct_file.os, name, fail)
    with pytest.raises(OSError, match="full"):
        write(tmp_path / "file")


def test_a_file_that_is_given_up_is_closed(tmp_path: Path) -> None:
    file = DirectFile(tmp_path / "file")
    file.write(np.zeros(10, np.uint8))
    file.close()
    file.close()
    assert (tmp_path / "file").stat().st_size == 0
