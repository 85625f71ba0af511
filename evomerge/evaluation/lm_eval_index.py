"""Finding and loading lm-eval's tasks by name. Part of the adapter to lm-eval."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.errors import EvaluationError, nearest
from evomerge.evaluation.data_files import dataset_overrides
from evomerge.evaluation.lm_eval_requests import loading
from evomerge.evaluation.lm_eval_tasks import LmEvalTask, check_code
from evomerge.evaluation.settings import EvaluationSettings, TaskSettings
from evomerge.evaluation.task_files import NAME, defining_files, own_tasks, runs_code

__all__ = ["load_tasks", "shadowed_names"]


def load_tasks(
    tasks: Sequence[TaskSettings],
    settings: EvaluationSettings,
    *,
    seed: int,
    folder: Path,
    code_confirmed: bool = False,
) -> list[tuple[TaskSettings, list[LmEvalTask]]]:
    """Find and load the tasks, with a group or tag expanded to its own.

    Raises:
        EvaluationError: if a folder, a task or a metric does not exist, or a task cannot load.
    """
    folders = [_task_dir(name, folder) for name in settings.task_dirs]
    with loading(settings, seed):
        index = _Index(folders, settings, code_confirmed)
        return [
            (
                task,
                [
                    LmEvalTask(each, task, settings, seed, code_confirmed=code_confirmed)
                    for each in index.load(task.name)
                ],
            )
            for task in tasks
        ]


def shadowed_names(
    names: Sequence[str], settings: EvaluationSettings, folder: Path
) -> dict[str, Path]:
    """Return which names lm-eval has too, with the files of the user's folders that count.

    Raises:
        EvaluationError: if a folder does not exist.
    """
    mine = defining_files(_task_dir(name, folder) for name in settings.task_dirs)
    if not any(name in mine for name in names):
        return {}
    own, mentioned = own_tasks()
    return {
        name: mine[name][0]
        for name in dict.fromkeys(names)
        if name in mine and (name in own or name in mentioned)
    }


def _task_dir(name: str, folder: Path) -> Path:
    for path in (Path(name).expanduser(), folder / name):
        if path.is_dir():
            return path.resolve()
    raise EvaluationError(
        f"evaluation.task_dirs: {name!r} is a folder neither here nor in {folder.resolve()}"
    )


class _Index:
    """Task names to task objects.

    lm-eval's own index parses 14,000 YAML files, which takes 12 seconds. So the user's folders are
    indexed first, then one of lm-eval's tasks is found by a text search for its ``task:`` line,
    and the whole index is built only for its groups and tags.
    """

    def __init__(
        self, folders: list[Path], settings: EvaluationSettings, code_confirmed: bool
    ) -> None:
        self._paths = folders
        self._folders = [str(folder) for folder in folders]
        self._settings = settings
        self._confirmed = code_confirmed
        self._manager = self._mine = self._make_manager(include_defaults=False)

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        return defining_files(self._paths)

    def _make_manager(self, *, include_defaults: bool) -> Any:
        from lm_eval.tasks import TaskManager

        return TaskManager(
            include_path=self._folders,
            include_defaults=include_defaults,
            metadata=self._settings.lm_eval.get("metadata"),
        )

    def _check_code(self, name: str, *, runs_code: bool) -> None:
        check_code(name, self._settings, runs_code=runs_code, confirmed=self._confirmed)

    def load(self, name: str) -> list[Any]:
        """Return the task objects that a name stands for."""
        if self._has(self._manager, name):
            return self._load(name)
        own, mentioned = own_tasks()
        if name in own and name not in self._manager.all_tasks:
            self._check_code(name, runs_code=runs_code(own[name]))
            return self._objects(name, str(own[name]))
        if name in mentioned or name in self._manager.all_tasks:
            self._manager = self._make_manager(include_defaults=True)
        if name not in self._manager.all_tasks:
            if (path := self._unread(name)) is not None:
                if path.suffix != ".yaml":
                    raise EvaluationError(
                        f"{path}: lm-eval reads task files that end in .yaml only; rename it to "
                        f"have the task {name!r}"
                    )
                self._check_code(name, runs_code=runs_code(path))
                return self._objects(name, str(path))
            places = ", ".join(self._folders) or "no task_dirs"
            raise EvaluationError(
                f"no lm-eval task is named {name!r} ({places} searched, and lm-eval's own); "
                f"{nearest(name, [*self._manager.all_tasks, *own])}"
            )
        return self._load(name)

    def _unread(self, name: str) -> Path | None:
        """Return the user's file that names a task though lm-eval's index skipped it."""
        for folder in self._folders:
            for path in sorted(Path(folder).glob("**/*.y*ml")):
                if name in NAME.findall(path.read_text(encoding="utf-8", errors="replace")):
                    return path
        return None

    def _has(self, manager: Any, name: str) -> bool:
        """Return whether an index has a name and all that it refers to."""
        if name not in manager.all_tasks:
            return False
        if name not in manager.all_groups:
            return True
        members = (manager.task_index[name].cfg or {}).get("task")
        if not isinstance(members, list):
            return False
        return all(isinstance(each, str) and self._has(manager, each) for each in members)

    def _check_single(self, name: str) -> None:
        """Refuse a name of two of the user's files: lm-eval takes one of them without a word.

        Raises:
            EvaluationError: naming the files.
        """
        if len(files := self._files.get(name, [])) > 1:
            raise EvaluationError(
                f"{name!r} is defined twice in evaluation.task_dirs, in {files[0]} and in "
                f"{files[1]}; give one another name, or take it out of the folder"
            )

    def _tagged(self, tag: str) -> list[str]:
        """Return a tag's tasks: of all the user's folders, where one has it."""
        if tag not in self._mine.all_tags:
            return sorted(self._manager.task_index[tag].tags)
        index = self._mine.task_index  # of a tag itself it keeps what the last folder says
        return [name for name in self._mine.all_subtasks if tag in index[name].tags]

    def _load(self, name: str) -> list[Any]:
        entry = self._manager.task_index[name]
        self._check_single(name)
        if name in self._manager.all_tags:
            return [task for each in self._tagged(name) for task in self._load(each)]
        if name in self._manager.all_groups:
            members = (entry.cfg or {}).get("task")
            if set(entry.cfg or {}) == {"group", "task"} and self._has(self._manager, name):
                # A plain list: its tasks are loaded as if they were named one by one.
                return [task for each in members or [] for task in self._load(each)]
            return self._objects(name, name)
        config = entry.cfg or {}
        self._check_code(name, runs_code=bool(config.get("unsafe_code")))
        if overrides := dataset_overrides(config, entry.yaml_path):
            # A group defined on the spot is lm-eval's way to load a task with overrides.
            return self._objects(name, {"group": name, "task": [{"task": name, **overrides}]})
        return self._objects(name, name)

    def _objects(self, name: str, spec: Any) -> list[Any]:
        try:
            found = self._manager.load(spec)
        except Exception as exc:  # a task file can do anything wrong
            raise EvaluationError(
                f"task {name!r} cannot be loaded: {type(exc).__name__}: {exc}"
            ) from exc
        for each in (*found["tasks"], *found["groups"]):
            self._check_single(each)
        return list(found["tasks"].values())
