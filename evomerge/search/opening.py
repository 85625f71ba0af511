"""Opening a run that is on disk."""

import json
from pathlib import Path

from evomerge.errors import StudyError
from evomerge.search.directory import RunDirectory
from evomerge.search.records import TrialRecord
from evomerge.search.storage import open_storage
from evomerge.search.study import Study
from evomerge.space import parse_space

__all__ = ["OpenRun", "open_run"]


class OpenRun:
    """A run on disk, for reading.

    Args:
        path: The run directory.

    Raises:
        StudyError: if there is no run, or its study is gone; nothing is made then.
    """

    def __init__(self, path: str | Path) -> None:
        self.directory = RunDirectory(Path(path))
        self.directory.check_is_run()
        settings = self.directory.read_settings()
        self.storage_url: str = settings["storage"] or self.directory.study_url
        self.name: str = settings["name"]
        self.folder = Path(settings.get("folder", "."))
        self.space = parse_space(self.directory.read_space(), name=self.name)
        objectives = tuple(self.space.document.objective)
        # Whoever reads must not leave an empty study behind where there is none.
        storage = open_storage(self.storage_url, create=False)
        try:
            name = settings.get("study", self.name)
            self.study = Study(storage, name, self.space.dimensions, objectives, create=False)
        except StudyError as error:
            raise StudyError(f"{path}: {error}") from error

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.space.document.search.seed

    def trial(self, number: int | None = None) -> TrialRecord:
        """Return a trial, or the winner.

        Raises:
            StudyError: if there is no such trial, or no winner yet.
        """
        if number is None:
            if not self.directory.result.is_file():
                raise StudyError(
                    f"{self.directory.path}: the run has no winner yet; continue it with 'evomerge "
                    "run', or name a trial with --trial N"
                )
            result = json.loads(self.directory.result.read_text(encoding="utf-8"))
            number = int(result["winner"]["trial"])
        record = self.study.records.get(number)
        if record is None:
            last = max(self.study.records, default=None)
            raise StudyError(f"there is no trial {number}; the study has trials 0 to {last}")
        if not record.recipe:
            raise StudyError(f"trial {number} has no recipe: {record.reason}")
        return record


def open_run(path: str | Path) -> OpenRun:
    """Open a run directory for reading."""
    return OpenRun(path)
