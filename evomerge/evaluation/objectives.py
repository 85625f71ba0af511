"""Objectives: what a search raises, with its standard error, and paired comparisons of two."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evomerge.errors import EvaluationError, nearest
from evomerge.evaluation.aggregations import influences, is_smooth, replicates
from evomerge.evaluation.clusters import Resampler, clustered_error
from evomerge.evaluation.rules import Rule, WeightedSum
from evomerge.evaluation.statistics import Comparison, Estimate, difference_of

if TYPE_CHECKING:
    from evomerge.evaluation.scores import ItemScores, TaskItems, TaskScore

__all__ = ["Objective", "compare", "score_error"]

SAMPLES = 1000
SLOW_SAMPLES = 200
TEXT_SAMPLES = 100
TEXT_METRICS = ("bleu", "chrf", "chrf++", "ter")


@dataclass(frozen=True)
class Objective:
    """A number that a search raises, from the scores of some tasks.

    Its error is found by the delta method where the rule and all tasks are smooth, else by a seeded
    bootstrap over items. An item that several tasks use counts once.

    Attributes:
        weights: Weight of each of its tasks.
        rule: How the scores become one number; by default the weighted sum.
        seed: Seed of the bootstrap.
    """

    weights: Mapping[str, float]
    rule: Rule | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.weights:
            raise EvaluationError("an objective needs at least one task, got none")
        object.__setattr__(self, "weights", dict(self.weights))

    __hash__ = None  # type: ignore[assignment]

    @property
    def _rule(self) -> Rule:
        return WeightedSum(self.weights) if self.rule is None else self.rule

    def estimate(self, scores: "ItemScores") -> Estimate:
        """Return the objective of one candidate.

        Raises:
            EvaluationError: if a task was not scored, or the rule fails on the scores.
        """
        tasks = self._tasks(scores)
        points = self._points(tasks)
        value = self._value(points)
        slopes = self._slopes(tasks, points)
        if slopes is not None:
            parts = [(tasks[n].items, influences(tasks[n]), slope) for n, slope in slopes.items()]
            stderr, _ = clustered_error(parts)
        else:
            stderr = _spread(self._resampled(tasks, points, _num_samples(tasks)))
        count = sum(len(task.items) for task in tasks.values())
        return Estimate(value, stderr, count)

    def combine(
        self, points: "Mapping[str, TaskScore]", errors: Mapping[str, float]
    ) -> tuple[float, float]:
        """Return the objective of task scores that are estimates of their own, and its error.

        Tasks count as independent of each other.

        Args:
            points: Task -> score.
            errors: Task -> its error.

        Raises:
            EvaluationError: if the rule fails on the scores.
        """
        value = self._value(points)
        slopes = self._rule.slopes(points)
        if slopes is not None:
            return value, math.hypot(*(slope * errors[name] for name, slope in slopes.items()))
        generator = np.random.default_rng(self.seed)
        draws = {
            name: points[name].value + errors[name] * generator.standard_normal(SLOW_SAMPLES)
            for name in self.weights
        }
        return value, _spread(self._rule.many(points, draws))

    def _value(self, points: "Mapping[str, TaskScore]") -> float:
        for name in self.weights:
            if not math.isfinite(points[name].value):
                raise EvaluationError(
                    f"task {name!r}: {points[name].metric} is {points[name].value}, which is no "
                    "score to compare: the log-likelihoods are too low"
                )
        return self._rule.value(points)

    def _tasks(self, scores: "ItemScores") -> "dict[str, TaskItems]":
        for name in self.weights:
            if name not in scores.by_task:
                raise EvaluationError(
                    f"the objective's task {name!r} was not scored; {nearest(name, scores.by_task)}"
                )
        return {name: scores.by_task[name] for name in self.weights}

    def _points(self, tasks: "Mapping[str, TaskItems]") -> "dict[str, TaskScore]":
        return {name: task.summary(self.seed) for name, task in tasks.items()}

    def _slopes(
        self, tasks: "Mapping[str, TaskItems]", points: "Mapping[str, TaskScore]"
    ) -> Mapping[str, float] | None:
        if not all(is_smooth(task) for task in tasks.values()):
            return None
        return self._rule.slopes(points)

    def _resampled(
        self,
        tasks: "Mapping[str, TaskItems]",
        points: "Mapping[str, TaskScore]",
        count: int,
    ) -> npt.NDArray[np.float64]:
        """Return the objective of resampled items; the same items give the same samples."""
        draws = Resampler({n: t.items for n, t in tasks.items()}, seed=self.seed, count=count)
        scores = {name: replicates(task, draws.counts(task.items)) for name, task in tasks.items()}
        return self._rule.many(points, scores)


def compare(first: "ItemScores", second: "ItemScores", objective: Objective) -> Comparison:
    """Compare two candidates item by item.

    What each item adds to the difference of the objectives gives its error. The interval and the
    p-value are Student's, with Satterthwaite's degrees of freedom: for one task that is a mean,
    this is the paired t-test. Where the rule or a task is not smooth, the items are resampled, the
    same for both candidates, and the error is the spread of the differences.

    Raises:
        EvaluationError: if the two were not scored on the same items.
    """
    mine = objective._tasks(first)  # noqa: SLF001
    theirs = {name: _same_items(name, task, second) for name, task in mine.items()}
    points, others = objective._points(mine), objective._points(theirs)  # noqa: SLF001
    count = sum(len(task.items) for task in mine.values())
    difference = objective._value(points) - objective._value(others)  # noqa: SLF001
    slopes = objective._slopes(mine, points)  # noqa: SLF001
    other_slopes = objective._slopes(theirs, others)  # noqa: SLF001
    if slopes is None or other_slopes is None:
        num = _num_samples(mine)
        draws = objective._resampled(mine, points, num)  # noqa: SLF001
        other_draws = objective._resampled(theirs, others, num)  # noqa: SLF001
        return difference_of(difference, _spread(draws - other_draws), count)
    parts = [
        (
            task.items,
            slopes[name] * influences(task) - other_slopes[name] * influences(theirs[name]),
            1.0,
        )
        for name, task in mine.items()
    ]
    stderr, freedom = clustered_error(parts)
    return difference_of(difference, stderr, count, freedom)


def _same_items(name: str, task: "TaskItems", scores: "ItemScores") -> "TaskItems":
    other = scores.by_task.get(name)
    if other is None or set(task.items) != set(other.items):
        got = 0 if other is None else len(other.items)
        raise EvaluationError(
            f"a comparison needs the same items: task {name!r} has {len(task.items)} items in the "
            f"first and {got} in the second, or other ones; score both on the same split"
        )
    return other.select(task.items)


def score_error(task: "TaskItems", seed: int) -> float:
    """Return the standard error of one task's score; nan for a single item."""
    if is_smooth(task):
        return clustered_error([(task.items, influences(task), 1.0)])[0]
    if len(task.items) < 2:
        return math.nan
    draws = Resampler({"": task.items}, seed=seed, count=_num_samples({"": task}))
    return _spread(replicates(task, draws.counts(task.items)))


def _num_samples(tasks: "Mapping[str, TaskItems]") -> int:
    """Return how many bootstrap samples the aggregations can afford."""
    names = {task.aggregation for task in tasks.values() if not is_smooth(task)}
    if names & set(TEXT_METRICS):
        return TEXT_SAMPLES
    return SLOW_SAMPLES if names else SAMPLES


def _spread(draws: npt.NDArray[np.float64]) -> float:
    finite = draws[np.isfinite(draws)]
    return float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
