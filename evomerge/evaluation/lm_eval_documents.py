"""The documents of an lm-eval task that may be items. Part of the adapter to lm-eval."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evomerge.errors import EvaluationError, nearest
from evomerge.evaluation.items import content_id
from evomerge.evaluation.settings import Split, TaskSettings

__all__ = ["Documents", "on_dataset_split", "read_documents"]


@dataclass(frozen=True)
class Documents:
    """The documents of one split of a task's data set, as lm-eval numbers them.

    Attributes:
        dataset_split: Its name in the data set; None is the split that the task is evaluated on.
        ids: Content id of each document, duplicates included.
        contents: Content id -> the first document of that content.
        index: Content id -> that document's place.
    """

    dataset_split: str | None
    ids: tuple[str, ...]
    contents: dict[str, Any]
    index: dict[str, int]


def read_documents(task: Any, wanted: TaskSettings, limit: float | None) -> dict[Split, Documents]:
    """Read what each side of a task may take its items from.

    Args:
        task: The lm-eval task.
        wanted: Says which splits of the data set, if not the task's own.
        limit: The first so many documents of each, or a share below 1.

    Returns:
        The two sides; the same object where they are to be divided.

    Raises:
        EvaluationError: if the data set has no such split.
    """
    found: dict[str | None, Documents] = {}
    for name in (wanted.search_split, wanted.holdout_split):
        if name not in found:
            with on_dataset_split(task, name):
                found[name] = _documents(name, list(task.eval_docs), limit)
    return {"search": found[wanted.search_split], "holdout": found[wanted.holdout_split]}


class on_dataset_split:  # noqa: N801 - used as a statement
    """Evaluate a task on another split of its data set inside the block.

    Raises:
        EvaluationError: if the data set has no such split.
    """

    def __init__(self, task: Any, name: str | None) -> None:
        self._task, self._name = task, name
        self._own = task.get_config("test_split")

    def __enter__(self) -> None:
        if self._name is None:
            return
        from lm_eval.api.task import ConfigurableTask

        if getattr(type(self._task), "test_docs", None) is not ConfigurableTask.test_docs:
            raise EvaluationError(
                f"task {self._task.task_name!r} chooses its documents by code of its own, so "
                "search_split and holdout_split cannot; divide its items by search_items and "
                "holdout_items, or name them in search_list and holdout_list"
            )
        names: Iterable[str] = self._task.dataset
        if self._name not in names:
            raise EvaluationError(
                f"task {self._task.task_name!r}: its data set has no split {self._name!r}; "
                f"{nearest(self._name, names)}"
            )
        self._task.set_config("test_split", self._name)

    def __exit__(self, *_: object) -> None:
        self._task.set_config("test_split", self._own)


def _documents(name: str | None, documents: list[Any], limit: float | None) -> Documents:
    if limit is not None:  # by lm-eval's own rule
        count = math.ceil(len(documents) * limit) if limit < 1 else int(limit)
        documents = documents[:count]
    ids = tuple(content_id(document) for document in documents)
    index: dict[str, int] = {}
    for place, item in enumerate(ids):
        index.setdefault(item, place)
    return Documents(name, ids, {item: documents[place] for item, place in index.items()}, index)
