"""Estimates with their errors: means, weighted objectives, paired comparisons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evomerge.errors import EvaluationError, nearest
from evomerge.evaluation.settings import TaskSettings

if TYPE_CHECKING:
    from evomerge.evaluation.scores import ItemScores, TaskItems

__all__ = ["Comparison", "Estimate", "Objective", "compare", "mean", "standard_error"]

CONFIDENCE = 0.95


def mean(values: npt.ArrayLike) -> float:
    """Return the mean over items, exactly rounded, so that the order of the items cannot matter.

    Raises:
        ValueError: if there is no item.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("a mean needs at least one item, got none")
    return math.fsum(data.tolist()) / data.size


def standard_error(values: npt.ArrayLike) -> float:
    """Return the standard error of the mean: sample deviation (n - 1) over sqrt(n).

    A single item says nothing about its spread: nan.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return math.nan
    middle = mean(data)
    squares = math.fsum(((data - middle) ** 2).tolist())
    return math.sqrt(squares / (data.size - 1) / data.size)


@dataclass(frozen=True)
class Estimate:
    """A number known from a sample.

    Attributes:
        value: The estimate.
        stderr: Its standard error.
        items: How many items it rests on.
    """

    value: float
    stderr: float
    items: int


@dataclass(frozen=True)
class Comparison:
    """A paired difference of two candidates' objectives, first minus second.

    Attributes:
        difference: Positive if the first is better.
        stderr: Standard error of ``difference``.
        interval: 95 % confidence interval of ``difference``.
        p_value: Two-sided, for "there is no difference".
        items: How many items both were scored on.
    """

    difference: float
    stderr: float
    interval: tuple[float, float]
    p_value: float
    items: int


@dataclass(frozen=True)
class Objective:
    """The number that a search raises: a weighted sum of task means.

    A task whose metric is better when smaller counts with a minus sign.

    Attributes:
        weights: Weight of each task.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.weights:
            raise EvaluationError("an objective needs at least one task, got none")
        object.__setattr__(self, "weights", dict(self.weights))

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_tasks(cls, tasks: Sequence[TaskSettings]) -> "Objective":
        """Return the objective of a space's tasks; a missing weight is 1 / number of tasks."""
        return cls(
            {task.name: 1 / len(tasks) if task.weight is None else task.weight for task in tasks}
        )

    def estimate(self, scores: "ItemScores") -> Estimate:
        """Return the objective of one candidate.

        Raises:
            EvaluationError: if a task was not scored.
        """
        parts = [
            (weight, mean(task.values), standard_error(task.values), len(task.items))
            for weight, task in self._signed(scores)
        ]
        return Estimate(
            value=math.fsum(weight * value for weight, value, _, _ in parts),
            stderr=math.sqrt(math.fsum((weight * error) ** 2 for weight, _, error, _ in parts)),
            items=sum(count for *_, count in parts),
        )

    def _signed(self, scores: "ItemScores") -> list[tuple[float, "TaskItems"]]:
        signed = []
        for name, weight in self.weights.items():
            if name not in scores.by_task:
                raise EvaluationError(
                    f"the objective's task {name!r} was not scored; {nearest(name, scores.by_task)}"
                )
            task = scores.by_task[name]
            signed.append((weight if task.higher_is_better else -weight, task))
        return signed


def compare(first: "ItemScores", second: "ItemScores", objective: Objective) -> Comparison:
    """Compare two candidates item by item.

    The difference of each task is the mean of the per-item differences; the tasks are combined
    with the objective's weights, their errors as independent ones. The interval and the p-value
    are Student's, with Welch and Satterthwaite's degrees of freedom: for a single task this is the
    paired t-test.

    Raises:
        EvaluationError: if the two were not scored on the same items.
    """
    from scipy import stats

    differences: list[float] = []
    variances: list[float] = []
    freedoms: list[int] = []
    others = dict(objective.weights)
    for (weight, one), name in zip(objective._signed(first), others, strict=True):  # noqa: SLF001
        two = second.by_task.get(name)
        if two is None or set(one.items) != set(two.items):
            got = 0 if two is None else len(two.items)
            raise EvaluationError(
                f"a comparison needs the same items: task {name!r} has {len(one.items)} items in "
                f"the first and {got} in the second, or other ones; score both on the same split"
            )
        paired = one.values - two.select(one.items).values
        differences.append(weight * mean(paired))
        variances.append((weight * standard_error(paired)) ** 2)
        freedoms.append(len(paired) - 1)
    difference = math.fsum(differences)
    variance = math.fsum(variances)
    stderr = math.sqrt(variance)
    items = sum(freedom + 1 for freedom in freedoms)
    if not variance > 0:  # every item has the same difference, or there is a single one
        p_value = math.nan if math.isnan(variance) else float(difference == 0)
        half = math.nan if math.isnan(variance) else 0.0
        return Comparison(
            difference, stderr, (difference - half, difference + half), p_value, items
        )
    # Satterthwaite 1946, equation 17; Welch 1947.
    freedom = variance**2 / math.fsum(
        part**2 / nu for part, nu in zip(variances, freedoms, strict=True)
    )
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * stderr
    p_value = float(2 * stats.t.sf(abs(difference) / stderr, freedom))
    return Comparison(difference, stderr, (difference - half, difference + half), p_value, items)
