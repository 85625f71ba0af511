"""Finding and loading lm-eval's tasks by name. Part of the adapter to lm-eval."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from evomerge.errors import EvaluationError, nearest
from evomerge.evaluation.data_files import dataset_overrides
from evomerge.evaluation.lm_eval_requests import loading
from evomerge.evaluation.lm_eval_tasks import LmEvalTask, check_code
from evomerge.evaluation.settings import EvaluationSettings, TaskSettings

__all__ = ["load_tasks"]

NAME = re.compile(r"""^["']?task["']?:[ \t]*["']?([^\s"'\[#]+)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)
LISTED = re.compile(r"""^(?:["']?(?:group|tag)["']?:|[ \t]*-[ \t])(.*)$""", re.MULTILINE)
WORD = re.compile(r"""[^\s"'\[\],#]+""")
INCLUDE = re.compile(r"""^["']?include["']?:[ \t]*["']?([^\s"'#]+)""", re.MULTILINE)
UNSAFE = re.compile(
    r"""^["']?unsafe_code["']?:[ \t]*(?:true|yes|on)\b""", re.MULTILINE | re.IGNORECASE
)


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
        self._folders = [str(folder) for folder in folders]
        self._settings = settings
        self._confirmed = code_confirmed
        self._manager = self._make_manager(include_defaults=False)

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
        own, mentioned = _own_tasks()
        if name in own and name not in self._manager.all_tasks:
            self._check_code(name, runs_code=_runs_code(own[name]))
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
                self._check_code(name, runs_code=_runs_code(path))
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

    def _load(self, name: str) -> list[Any]:
        entry = self._manager.task_index[name]
        if name in self._manager.all_tags:
            return [task for each in sorted(entry.tags) for task in self._load(each)]
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
            return list(self._manager.load(spec)["tasks"].values())
        except Exception as exc:  # a task file can do anything wrong
            raise EvaluationError(
                f"task {name!r} cannot be loaded: {type(exc).__name__}: {exc}"
            ) from exc


@cache
def _own_tasks() -> tuple[dict[str, Path], frozenset[str]]:
    """Return lm-eval's own tasks with their files, and words among which are groups and tags."""
    import lm_eval.tasks

    files: dict[str, Path] = {}
    mentioned: set[str] = set()
    folder = Path(lm_eval.tasks.__file__).parent
    for path in sorted(folder.glob("**/*"), key=Path.as_posix):
        if path.suffix not in ("", ".yaml", ".yml") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".yaml":
            for name in NAME.findall(text):
                files.setdefault(name, path)
        # Templates that tasks include have other suffixes, and tags of their own.
        mentioned.update(*map(WORD.findall, LISTED.findall(text)))
    return files, frozenset(mentioned - set(files))


def _runs_code(path: Path) -> bool:
    """Return whether a task file, or one that it includes, says that it runs generated code."""
    text = path.read_text(encoding="utf-8", errors="replace")
    included = (path.parent / name for name in INCLUDE.findall(text))
    return bool(UNSAFE.search(text)) or any(_runs_code(each) for each in included if each.is_file())
