"""Where the study of a run is kept, and under which name."""

from evomerge.errors import StudyError
from evomerge.search.directory import RunDirectory
from evomerge.search.storage import open_storage, without_password
from evomerge.search.study import Study, create_study
from evomerge.space import Space

__all__ = ["StudyPlace"]


class StudyPlace:
    """Where the study of a run was begun, or where a new one is wanted.

    A run goes on with its own study whether or not its storage is named again. In a storage that
    runs share each has a study of its own: the name of the space, with a number where it is taken.

    Args:
        directory: The run directory.
        storage: URL that is asked for; None means where it was begun, or the run directory.

    Raises:
        StudyError: if the storage cannot be opened, or the run's study is in another one.
    """

    def __init__(self, directory: RunDirectory, storage: str | None) -> None:
        self._directory = directory
        kept = directory.read_settings() if directory.settings.is_file() else None
        before = None if kept is None else kept["storage"]
        self._name: str | None = None if kept is None else kept.get("study", kept["name"])
        self.url = storage or before
        self._storage = open_storage(self.url) if self.url else None
        if self._storage is None or self._name is None or storage is None:
            return
        if without_password(storage) == before:
            return
        try:  # it may have moved, or its server have another name
            self._storage.get_study_id_from_name(self._name)
        except KeyError as error:
            raise StudyError(
                f"--storage {without_password(storage)}: the study of {directory.path} is in "
                f"{before or directory.study_url}; leave --storage out to go on with it, or give "
                "another --out to begin anew"
            ) from error

    def open(self, space: Space) -> Study:
        """Open the study; make it where there is none."""
        objectives = tuple(space.document.objective)
        storage = self._storage or open_storage(self._directory.study_url)
        name = self._name or space.name
        if self._name is None and self.url is not None:
            name = create_study(storage, name, objectives)
        return Study(storage, name, space.dimensions, objectives)
