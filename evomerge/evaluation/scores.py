"""Per-item results of one candidate: immutable and picklable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evomerge.errors import EvaluationError
from evomerge.evaluation.aggregations import aggregate
from evomerge.evaluation.objectives import score_error

__all__ = ["ItemScores", "TaskItems", "TaskScore"]


@dataclass(frozen=True)
class TaskScore:
    """Summary of one task.

    Attributes:
        metric: The metric as the space names it.
        value: The score: a mean over the items, or what the metric's aggregation makes of them.
        stderr: Standard error of ``value``; nan for a single item.
        items: How many items.
        higher_is_better: Whether a larger value is a better one.
    """

    metric: str
    value: float
    stderr: float
    items: int
    higher_is_better: bool = True


@dataclass(frozen=True, eq=False)
class TaskItems:
    """The items of one task and what a candidate got for each.

    Attributes:
        metric: The metric as the space names it.
        higher_is_better: Whether a larger value is a better one.
        items: Item ids, each once.
        values: What is summed: the metric of each item, or the numerator of a ratio; float64,
            shape ``(len(items),)``, read-only. NaN where ``details`` hold what is kept.
        aggregation: lm-eval's name of what makes the score from the items.
        weights: Denominators of a ratio (words, bytes), shape ``(len(items),)``; None means 1.
        details: JSON of what is kept of each item, for metrics that are no number for one item.
    """

    metric: str
    higher_is_better: bool
    items: tuple[str, ...]
    values: npt.NDArray[np.float64]
    aggregation: str = "mean"
    weights: npt.NDArray[np.float64] | None = None
    details: tuple[str, ...] | None = None
    _summaries: dict[int, TaskScore] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        items = tuple(self.items)
        object.__setattr__(self, "items", items)
        for name in ("values", "weights"):
            if getattr(self, name) is None:
                continue
            values = np.array(getattr(self, name), dtype=np.float64)
            if values.shape != (len(items),):
                raise ValueError(
                    f"{len(items)} items need as many {name}, got shape {values.shape}"
                )
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if self.details is not None and len(self.details) != len(items):
            raise ValueError(f"{len(items)} items need as many details, got {len(self.details)}")
        if len(set(items)) != len(items):
            raise ValueError("each item may appear once only")

    def __eq__(self, other: object) -> bool:
        """Equal if metric, items and the bits of all values are."""
        return (
            isinstance(other, TaskItems)
            and (self.kind, self.items, self.details) == (other.kind, other.items, other.details)
            and self.values.tobytes() == other.values.tobytes()
            and _bytes(self.weights) == _bytes(other.weights)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def kind(self) -> tuple[str, bool, str]:
        """Metric, whether larger is better, and aggregation: what values have in common."""
        return self.metric, self.higher_is_better, self.aggregation

    def summary(self, seed: int = 0) -> TaskScore:
        """Return score, standard error and count; computed once, for a bootstrap takes seconds.

        Args:
            seed: Seed of the bootstrap, for metrics whose error needs one.
        """
        if seed not in self._summaries:
            self._summaries[seed] = TaskScore(
                self.metric,
                aggregate(self),
                score_error(self, seed),
                len(self.items),
                self.higher_is_better,
            )
        return self._summaries[seed]

    def select(self, items: Sequence[str]) -> "TaskItems":
        """Return these items only, in this order.

        Raises:
            EvaluationError: if one of them was not scored.
        """
        place = {item: i for i, item in enumerate(self.items)}
        if missing := [item for item in items if item not in place]:
            raise EvaluationError(f"item {missing[0]!r} was not scored ({len(missing)} such items)")
        rows = [place[item] for item in items]
        return replace(
            self,
            items=tuple(items),
            values=self.values[rows],
            weights=None if self.weights is None else self.weights[rows],
            details=None if self.details is None else tuple(self.details[row] for row in rows),
        )

    def join(self, other: "TaskItems") -> "TaskItems":
        """Return the items of both, which must be different ones.

        Raises:
            ValueError: if the metrics differ or an item is in both.
        """
        if self.kind != other.kind:
            raise ValueError(f"metrics {self.kind} and {other.kind} differ")
        weights, details = None, None
        if self.weights is not None and other.weights is not None:
            weights = np.concatenate([self.weights, other.weights])
        if self.details is not None and other.details is not None:
            details = self.details + other.details
        return replace(
            self,
            items=self.items + other.items,
            values=np.concatenate([self.values, other.values]),
            weights=weights,
            details=details,
        )


def _bytes(values: npt.NDArray[np.float64] | None) -> bytes:
    return b"" if values is None else values.tobytes()


@dataclass(frozen=True)
class ItemScores:
    """Per-item results, task by task.

    Attributes:
        by_task: The results of each task, in the order of the space.
        smooth: Task -> the smooth metric that guides the search in its place, if it has one.
    """

    by_task: Mapping[str, TaskItems]
    smooth: Mapping[str, TaskItems] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_task", dict(self.by_task))
        object.__setattr__(self, "smooth", dict(self.smooth))

    __hash__ = None  # type: ignore[assignment]

    @property
    def num_items(self) -> int:
        """Items over all tasks."""
        return sum(len(task.items) for task in self.by_task.values())

    def tasks(self, seed: int = 0) -> dict[str, TaskScore]:
        """Return the summary of each task."""
        return {name: task.summary(seed) for name, task in self.by_task.items()}

    def guiding(self) -> "ItemScores":
        """Return what guides the search: a task's smooth metric where it has one."""
        return ItemScores({**self.by_task, **self.smooth})

    def merge(self, other: "ItemScores") -> "ItemScores":
        """Return the results of both, whose items must be different ones.

        Raises:
            ValueError: if a task's metrics differ or an item is in both.
        """
        return ItemScores(_join(self.by_task, other.by_task), _join(self.smooth, other.smooth))

    def select(self, items: Mapping[str, Sequence[str]]) -> "ItemScores":
        """Return the results of these items of these tasks.

        Raises:
            EvaluationError: if a task or an item was not scored.
        """
        if missing := [name for name in items if name not in self.by_task]:
            raise EvaluationError(f"task {missing[0]!r} was not scored; got {list(self.by_task)}")
        return ItemScores(
            {name: self.by_task[name].select(ids) for name, ids in items.items()},
            {
                name: self.smooth[name].select(ids)
                for name, ids in items.items()
                if name in self.smooth
            },
        )

    def to_parquet(self, path: Path) -> None:
        """Write one row an item; the file appears whole or not at all."""
        from evomerge.evaluation.item_files import write_items

        write_items(self, path)

    @classmethod
    def from_parquet(cls, path: Path) -> "ItemScores":
        """Read what ``to_parquet`` wrote.

        Raises:
            EvaluationError: if the file is missing or is something else.
        """
        from evomerge.evaluation.item_files import read_items

        return read_items(path)


def _join(first: Mapping[str, TaskItems], second: Mapping[str, TaskItems]) -> dict[str, TaskItems]:
    joined = dict(first)
    for name, task in second.items():
        joined[name] = joined[name].join(task) if name in joined else task
    return joined
