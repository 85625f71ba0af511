"""The tasks of a space, loaded once, with their items divided into two splits."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.errors import EvaluationError
from evomerge.evaluation.item_lists import read_item_list
from evomerge.evaluation.items import ItemSource, ItemSplit, split_items
from evomerge.evaluation.lm_eval_index import load_tasks
from evomerge.evaluation.lm_eval_tasks import LmEvalTask
from evomerge.evaluation.objectives import Objective
from evomerge.evaluation.settings import EvaluationSettings, Split, TaskSettings
from evomerge.evaluation.vllm_options import without_resources

__all__ = ["TaskSet"]

PROMPT_SETTINGS = (
    "apply_chat_template",
    "fewshot_as_multiturn",
    "system_instruction",
    "lm_eval",
)


class TaskSet:
    """Loaded tasks and their items. The same arguments give the same items in every process.

    Attributes:
        tasks: Task name -> task, in the order of the space, groups and tags expanded.
        members: Task, group or tag as the space names it -> its tasks.
        objective: The weighted sum of all tasks.
        settings: The settings it was loaded with.
    """

    def __init__(
        self,
        tasks: dict[str, LmEvalTask],
        splits: dict[str, ItemSplit],
        members: Mapping[str, tuple[str, ...]],
        objective: Objective,
        settings: EvaluationSettings,
    ) -> None:
        self.tasks = tasks
        self.members = dict(members)
        self.objective = objective
        self.settings = settings
        self._splits = splits

    @classmethod
    def load(
        cls,
        tasks: Sequence[TaskSettings],
        settings: EvaluationSettings,
        *,
        seed: int,
        folder: Path = Path(),
        code_confirmed: bool = False,
    ) -> "TaskSet":
        """Load tasks and divide their items.

        Args:
            tasks: The tasks of the space.
            settings: How they are evaluated.
            seed: The seed of the search; it decides splits and few-shot examples.
            folder: The space file's folder, where relative ``task_dirs`` may be.
            code_confirmed: The user has said, outside the space, that tasks may run code.

        Raises:
            EvaluationError: if a task or metric does not exist, cannot be used, or has too few
                documents for the splits.
        """
        if not tasks:
            raise EvaluationError("an evaluation needs at least one task, got none")
        loaded: dict[str, LmEvalTask] = {}
        weights: dict[str, float] = {}
        found: dict[str, tuple[str, ...]] = {}
        sources: dict[str, ItemSource] = {}
        expanded = load_tasks(
            tasks, settings, seed=seed, folder=folder, code_confirmed=code_confirmed
        )
        for wanted, members in expanded:
            whole = 1 / len(tasks) if wanted.weight is None else wanted.weight
            found[wanted.name] = tuple(task.name for task in members)
            for task in members:
                if task.name in loaded:
                    first = next(name for name, tasks in found.items() if task.name in tasks)
                    raise EvaluationError(
                        f"task {task.name!r} is there twice, by {first!r} and by {wanted.name!r}; "
                        "name each task once"
                    )
                loaded[task.name] = task
                weights[task.name] = whole / len(members)
                sources[task.name] = _source(task, wanted, folder, alone=len(members) == 1)
        splits = split_items(
            sources,
            seed=seed,
            search_items=settings.search_items,
            holdout_items=settings.holdout_items,
        )
        return cls(loaded, splits, found, Objective(weights), settings)

    def items(self, split: Split) -> dict[str, tuple[str, ...]]:
        """Return the item ids of each task on one side."""
        return {name: side.of(split) for name, side in self._splits.items()}

    @property
    def climbable(self) -> tuple[str, ...]:
        """Tasks with a probability of the gold answer to climb."""
        return tuple(
            name
            for name, task in self.tasks.items()
            if task.smooth is not None and task.smooth.kind == "gold_probability"
        )

    @property
    def answers(self) -> dict[str, int]:
        """Tokens that an answer may have, of each task that asks for one."""
        limits = ((name, task.answer_limit) for name, task in self.tasks.items())
        return {name: limit for name, limit in limits if limit is not None}

    def keys(self, *, device: str) -> dict[str, str]:
        """Return a hash of all that decides an item's result beside the weights, task by task.

        A proxy is left out: what it scores is kept apart.

        Args:
            device: Kind of device that scores, ``cpu`` or ``cuda``.
        """
        included = {"backend", "dtype", "compile", "max_length", *PROMPT_SETTINGS}
        settings = self.settings.model_dump(mode="json", include=included)
        if self.settings.backend == "vllm":
            settings["vllm"] = without_resources(self.settings.deciding().vllm)
        found = {}
        for name, task in self.tasks.items():
            items = [*self._splits[name].search, *self._splits[name].holdout]
            content = [settings, device, task.content(), task.draws(items)]
            found[name] = _digest(content)
        return found

    def identities(self) -> dict[str, str]:
        """Return a hash of what a run may not change in a task, task by task.

        Other prompts, metrics, examples or items make another task; other libraries, another
        device or another place of its files do not.
        """
        return {
            name: _digest(
                [task.definition(), self._splits[name].search, self._splits[name].holdout]
            )
            for name, task in self.tasks.items()
        }


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _source(task: LmEvalTask, wanted: TaskSettings, folder: Path, *, alone: bool) -> ItemSource:
    """Return what a task's items may be taken from, lists read and checked."""
    lists: dict[Split, tuple[str, ...] | None] = {"search": None, "holdout": None}
    paths: dict[Split, str | None] = {"search": wanted.search_list, "holdout": wanted.holdout_list}
    for side, path in paths.items():
        if path is None:
            continue
        if not alone:
            raise EvaluationError(
                f"{wanted.name!r} stands for several tasks, and {side}_list is for one: list its "
                "tasks one by one"
            )
        candidates = set(task.candidates(side))
        lists[side] = read_item_list(path, folder, task.name, task.sides[side].ids, candidates)
    return ItemSource(
        task.candidates("search"), task.candidates("holdout"), lists["search"], lists["holdout"]
    )
