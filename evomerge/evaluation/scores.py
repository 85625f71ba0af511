"""Per-item results of one candidate: immutable, picklable, and a compact file on disk."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evomerge.errors import EvaluationError
from evomerge.evaluation.statistics import mean, standard_error

__all__ = ["ItemScores", "TaskItems", "TaskScore"]


@dataclass(frozen=True)
class TaskScore:
    """Summary of one task.

    Attributes:
        metric: The metric as the space names it.
        value: Mean over the items.
        stderr: Standard error of ``value``; nan for a single item.
        items: How many items.
    """

    metric: str
    value: float
    stderr: float
    items: int


@dataclass(frozen=True, eq=False)
class TaskItems:
    """The items of one task and what a candidate got for each.

    Attributes:
        metric: The metric as the space names it.
        higher_is_better: Whether a larger value is a better one.
        items: Item ids, each once.
        values: float64, shape ``(len(items),)``, read-only.
    """

    metric: str
    higher_is_better: bool
    items: tuple[str, ...]
    values: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        items = tuple(self.items)
        if values.shape != (len(items),):
            raise ValueError(f"{len(items)} items need as many values, got shape {values.shape}")
        if len(set(items)) != len(items):
            raise ValueError("each item may appear once only")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "items", items)

    def __eq__(self, other: object) -> bool:
        """Equal if metric, items and the bits of all values are."""
        return (
            isinstance(other, TaskItems)
            and (self.metric, self.higher_is_better, self.items)
            == (other.metric, other.higher_is_better, other.items)
            and self.values.tobytes() == other.values.tobytes()
        )

    __hash__ = None  # type: ignore[assignment]

    def summary(self) -> TaskScore:
        """Return mean, standard error and count."""
        return TaskScore(
            self.metric, mean(self.values), standard_error(self.values), len(self.items)
        )

    def select(self, items: Sequence[str]) -> "TaskItems":
        """Return these items only, in this order.

        Raises:
            EvaluationError: if one of them was not scored.
        """
        place = {item: i for i, item in enumerate(self.items)}
        if missing := [item for item in items if item not in place]:
            raise EvaluationError(f"item {missing[0]!r} was not scored ({len(missing)} such items)")
        rows = [place[item] for item in items]
        return TaskItems(self.metric, self.higher_is_better, tuple(items), self.values[rows])


@dataclass(frozen=True)
class ItemScores:
    """Per-item results, task by task.

    Attributes:
        by_task: The results of each task, in the order of the space.
    """

    by_task: Mapping[str, TaskItems]

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_task", dict(self.by_task))

    __hash__ = None  # type: ignore[assignment]

    @property
    def num_items(self) -> int:
        """Items over all tasks."""
        return sum(len(task.items) for task in self.by_task.values())

    def tasks(self) -> dict[str, TaskScore]:
        """Return the summary of each task."""
        return {name: task.summary() for name, task in self.by_task.items()}

    def merge(self, other: "ItemScores") -> "ItemScores":
        """Return the results of both, whose items must be different ones.

        Raises:
            ValueError: if a task's metrics differ or an item is in both.
        """
        merged = dict(self.by_task)
        for name, new in other.by_task.items():
            old = merged.get(name)
            if old is None:
                merged[name] = new
                continue
            if (old.metric, old.higher_is_better) != (new.metric, new.higher_is_better):
                raise ValueError(f"task {name!r}: metrics {old.metric!r} and {new.metric!r} differ")
            values = np.concatenate([old.values, new.values])
            merged[name] = TaskItems(
                old.metric, old.higher_is_better, old.items + new.items, values
            )
        return ItemScores(merged)

    def select(self, items: Mapping[str, Sequence[str]]) -> "ItemScores":
        """Return the results of these items of these tasks.

        Raises:
            EvaluationError: if a task or an item was not scored.
        """
        if missing := [name for name in items if name not in self.by_task]:
            raise EvaluationError(f"task {missing[0]!r} was not scored; got {list(self.by_task)}")
        return ItemScores({name: self.by_task[name].select(ids) for name, ids in items.items()})

    def to_parquet(self, path: Path) -> None:
        """Write one row an item: task, metric, higher_is_better, item, value.

        The file appears whole or not at all: written beside, synchronized, renamed.
        """
        import pyarrow as pa
        from pyarrow import parquet

        columns: dict[str, list[Any]] = {
            key: [] for key in ("task", "metric", "higher_is_better", "item")
        }
        for name, task in self.by_task.items():
            count = len(task.items)
            columns["task"] += [name] * count
            columns["metric"] += [task.metric] * count
            columns["higher_is_better"] += [task.higher_is_better] * count
            columns["item"] += task.items
        table: dict[str, Any] = {
            "task": pa.array(columns["task"], pa.string()).dictionary_encode(),
            "metric": pa.array(columns["metric"], pa.string()).dictionary_encode(),
            "higher_is_better": pa.array(columns["higher_is_better"], pa.bool_()),
            "item": pa.array(columns["item"], pa.string()),
            "value": pa.array(
                np.concatenate([np.empty(0), *(task.values for task in self.by_task.values())]),
                pa.float64(),
            ),
        }
        path = Path(path)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                parquet.write_table(pa.table(table), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

    @classmethod
    def from_parquet(cls, path: Path) -> "ItemScores":
        """Read what ``to_parquet`` wrote.

        Raises:
            EvaluationError: if the file is missing or is something else.
        """
        import pyarrow as pa
        from pyarrow import parquet

        try:
            rows = parquet.read_table(path).to_pydict()
            columns = [rows[key] for key in ("task", "metric", "higher_is_better", "item", "value")]
        except (OSError, KeyError, pa.ArrowInvalid) as exc:
            raise EvaluationError(f"{path}: not a file of per-item results: {exc}") from exc
        heads: dict[str, tuple[str, bool]] = {}
        items: dict[str, list[str]] = {}
        values: dict[str, list[float]] = {}
        for task, metric, higher, item, value in zip(*columns, strict=True):
            heads.setdefault(task, (metric, higher))
            items.setdefault(task, []).append(item)
            values.setdefault(task, []).append(value)
        return cls(
            {
                task: TaskItems(metric, higher, tuple(items[task]), np.array(values[task]))
                for task, (metric, higher) in heads.items()
            }
        )
