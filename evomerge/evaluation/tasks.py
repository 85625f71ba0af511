"""The tasks of a space, loaded once, with their items divided into two splits."""

from collections.abc import Sequence
from pathlib import Path

from evomerge.errors import EvaluationError
from evomerge.evaluation.items import ItemSplit, split_items
from evomerge.evaluation.lm_eval_index import load_tasks
from evomerge.evaluation.lm_eval_tasks import LmEvalTask
from evomerge.evaluation.settings import EvaluationSettings, Split, TaskSettings
from evomerge.evaluation.statistics import Objective

__all__ = ["TaskSet"]


class TaskSet:
    """Loaded tasks and their items. The same arguments give the same items in every process.

    Attributes:
        tasks: Task name -> task, in the order of the space, groups and tags expanded.
        objective: The weighted sum that the space asks for.
        settings: The settings it was loaded with.
    """

    def __init__(
        self,
        tasks: dict[str, LmEvalTask],
        splits: dict[str, ItemSplit],
        objective: Objective,
        settings: EvaluationSettings,
    ) -> None:
        self.tasks = tasks
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
    ) -> "TaskSet":
        """Load tasks and divide their items.

        Args:
            tasks: The tasks of the space.
            settings: How they are evaluated.
            seed: The seed of the search; it decides splits and few-shot examples.
            folder: The space file's folder, where relative ``task_dirs`` may be.

        Raises:
            EvaluationError: if a task or metric does not exist, cannot be used, or has too few
                documents for the splits.
        """
        if not tasks:
            raise EvaluationError("an evaluation needs at least one task, got none")
        loaded: dict[str, LmEvalTask] = {}
        weights: dict[str, float] = {}
        for wanted, members in load_tasks(tasks, settings, seed=seed, folder=folder):
            whole = 1 / len(tasks) if wanted.weight is None else wanted.weight
            for task in members:
                if task.name in loaded:
                    raise EvaluationError(
                        f"task {task.name!r} is there twice (named again by {wanted.name!r}); "
                        "name each task once"
                    )
                loaded[task.name] = task
                weights[task.name] = whole / len(members)
        splits = split_items(
            {name: task.all_ids for name, task in loaded.items()},
            seed=seed,
            search_items=settings.search_items,
            holdout_items=settings.holdout_items,
        )
        return cls(loaded, splits, Objective(weights), settings)

    def items(self, split: Split) -> dict[str, tuple[str, ...]]:
        """Return the item ids of each task on one side."""
        return {name: side.of(split) for name, side in self._splits.items()}
