"""The run directory: its files, its lock, and who may use it."""

import fcntl
import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import yaml

from evomerge.errors import StudyError
from evomerge.files import replacing

__all__ = ["RunDirectory", "write_atomically"]


def write_atomically(path: Path, text: str) -> None:
    """Write a file beside, flush it to the disk and rename it: it is whole or not there."""
    with replacing(path) as file:
        file.write(text.encode())


class RunDirectory:
    """A run's files.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def space(self) -> Path:
        """The space as it was run."""
        return self.path / "space.yml"

    @property
    def study_url(self) -> str:
        """Storage URL of the default study."""
        return f"sqlite:///{self.path / 'study.db'}"

    @property
    def best(self) -> Path:
        """The winner's recipe."""
        return self.path / "best.yml"

    @property
    def result(self) -> Path:
        """The result for scripts."""
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def cache(self) -> Path:
        """Results by recipe, so that none is scored twice."""
        return self.path / "cache"

    @property
    def settings(self) -> Path:
        """Where the study is kept and under which name."""
        return self.path / "run.json"

    def items(self, number: int, split: str) -> Path:
        """Per-item scores of a trial."""
        return self.path / "items" / f"{number:05d}.{split}.parquet"

    def create(self) -> None:
        """Make the directory.

        Raises:
            StudyError: if it cannot be made, or holds something else.
        """
        try:
            (self.path / "items").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"--out {self.path}: cannot be made: {error.strerror}") from error

    def check_is_run(self) -> None:
        """Raise a StudyError if there is no run here."""
        if not self.space.is_file():
            raise StudyError(
                f"{self.path}: not a run directory (it has no space.yml); give the directory that "
                "'evomerge run' printed"
            )

    def read_space(self) -> dict[str, Any]:
        """Return the space as plain data."""
        data = yaml.safe_load(self.space.read_text(encoding="utf-8"))
        return dict(data)

    def read_settings(self) -> dict[str, Any]:
        """Return where the study is kept and under which name."""
        if not self.settings.is_file():
            raise StudyError(f"{self.settings}: missing; the run was not started by 'evomerge run'")
        return dict(json.loads(self.settings.read_text(encoding="utf-8")))

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Keep where the study is kept and under which name."""
        write_atomically(self.settings, json.dumps(settings, indent=2) + "\n")

    def lock(self) -> "_Lock":
        """Return a lock that one process holds; the system frees it when the process ends."""
        return _Lock(self.path / ".lock")


class _Lock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        self._file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise StudyError(
                f"{self._path.parent}: another evomerge process works in this directory; wait for "
                "it, stop it, or use another --out"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
