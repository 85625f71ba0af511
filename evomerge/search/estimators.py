"""How the score of a candidate on all items is estimated from a part of them.

An estimator learns from trials in the order in which they are told. What it is at one moment is a
function of these alone, so that a resumed run estimates the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from evomerge.evaluation import ItemScores, TaskItems
from evomerge.evaluation.irt import IrtModel, fit_irt
from evomerge.evaluation.sampling import Expectation, SampledScore, Strata, estimate_score
from evomerge.search.expectation import BASELINE_WEIGHT, ItemKnowledge
from evomerge.space.racing import Estimator as EstimatorName

__all__ = ["Estimates", "Estimator", "IrtEstimator", "PlainEstimator", "make_estimator"]

Estimates = Callable[[ItemScores], dict[str, SampledScore]]
"""From what a candidate got to its estimated scores, task by task."""

FIT_GROWTH = 1.25
LEAST_FIT_STEP = 4


class Estimator(Protocol):
    """What is known of the items so far, and what follows for the next candidate."""

    def learn(self, scores: ItemScores) -> None:
        """Take what a told trial got, on the items that it was scored on."""
        ...

    def current(self) -> Estimates:
        """Return the estimates by what is known now; later trials do not change them."""
        ...


def make_estimator(
    name: EstimatorName, strata: Mapping[str, Strata], baselines: Sequence[ItemScores]
) -> Estimator:
    """Return a new estimator.

    Args:
        name: ``search.estimator``.
        strata: Task -> its items, as they are drawn.
        baselines: What baselines got, on all items.
    """
    made = PlainEstimator if name == "plain" else IrtEstimator
    return made(strata, baselines)


class PlainEstimator:
    """Stratified means with a control, which are unbiased.

    Args:
        strata: Task -> its items, as they are drawn.
        baselines: What baselines got, on all items.
    """

    def __init__(self, strata: Mapping[str, Strata], baselines: Sequence[ItemScores]) -> None:
        self._strata = strata
        self._known = ItemKnowledge({task: each.items for task, each in strata.items()})
        for scores in baselines:
            self._learn(scores, BASELINE_WEIGHT)

    def learn(self, scores: ItemScores) -> None:
        """Take what a told trial got, on the items that it was scored on."""
        self._learn(scores, 1.0)

    def current(self) -> Estimates:
        """Return the estimates by what is known now."""
        expectations = {task: self._known.expectation(task) for task in self._strata}
        return partial(_plain_scores, self._strata, expectations)

    def _learn(self, scores: ItemScores, weight: float) -> None:
        levels = {
            task: estimate_score(self._strata[task], self._known.expectation(task), items).level
            for task, items in scores.by_task.items()
        }
        self._known.add(scores, levels, weight=weight)


def _plain_scores(
    strata: Mapping[str, Strata], expectations: Mapping[str, Expectation], scores: ItemScores
) -> dict[str, SampledScore]:
    return {
        task: estimate_score(strata[task], expectations[task], items)
        for task, items in scores.by_task.items()
    }


class IrtEstimator:
    """What was seen, and for the other items the expectation of item-response theory.

    Only for means of values in [0, 1]; other tasks have the plain estimate. The model is fitted to
    the baselines and the first n told trials, where n grows by a quarter.

    Args:
        strata: Task -> its items, as they are drawn.
        baselines: What baselines got, on all items.
    """

    def __init__(self, strata: Mapping[str, Strata], baselines: Sequence[ItemScores]) -> None:
        self._strata = strata
        self._plain = PlainEstimator(strata, baselines)
        self._rows: list[dict[str, npt.NDArray[np.float64] | None]] = []
        self._fits: tuple[int, dict[str, IrtModel]] | None = None
        for scores in baselines:
            self._keep(scores)
        self._num_baselines = len(self._rows)

    def learn(self, scores: ItemScores) -> None:
        """Take what a told trial got, on the items that it was scored on."""
        self._plain.learn(scores)
        self._keep(scores)

    def current(self) -> Estimates:
        """Return the estimates by what is known now."""
        num_told = fitted_trials(len(self._rows) - self._num_baselines)
        if self._fits is None or self._fits[0] != num_told:
            self._fits = num_told, self._fit(self._num_baselines + num_told)
        return partial(_irt_scores, self._strata, self._fits[1], self._plain.current())

    def _keep(self, scores: ItemScores) -> None:
        self._rows.append(
            {task: _row(self._strata[task], items) for task, items in scores.by_task.items()}
        )

    def _fit(self, count: int) -> dict[str, IrtModel]:
        models = {}
        for task in self._strata:
            rows = [row[task] for row in self._rows[:count] if task in row]
            known = [row for row in rows if row is not None]
            if rows and len(known) == len(rows):
                models[task] = fit_irt(np.array(known))
        return models


def fitted_trials(num_told: int) -> int:
    """Return how many of the told trials the model is fitted to: 0, 4, … 20, 25, 32 and so on."""
    count = 0
    while True:
        larger = max(count + LEAST_FIT_STEP, math.ceil(FIT_GROWTH * count))
        if larger > num_told:
            return count
        count = larger


def _row(strata: Strata, items: TaskItems) -> npt.NDArray[np.float64] | None:
    """Return the values by place, nan where there is none; None if the model cannot have them."""
    values = items.values
    if items.aggregation != "mean" or items.weights is not None:
        return None
    if not np.all((values >= 0.0) & (values <= 1.0)):
        return None
    row = np.full(len(strata.items), np.nan)
    row[[strata.places[item] for item in items.items]] = values
    return row


def _irt_scores(
    strata: Mapping[str, Strata],
    models: Mapping[str, IrtModel],
    plain: Estimates,
    scores: ItemScores,
) -> dict[str, SampledScore]:
    found = plain(scores)
    for task, items in scores.by_task.items():
        row = _row(strata[task], items)
        if row is None or task not in models:
            continue
        forecast = models[task].forecast(row)
        score, stderr = found[task].score, found[task].stderr
        # What the items of the task are as a sample of all there could be comes on top.
        beyond = max(0.0, score.stderr**2 - stderr**2)
        total = math.sqrt(forecast.stderr**2 + beyond)
        found[task] = SampledScore(
            replace(score, value=forecast.mean, stderr=total), forecast.stderr, forecast.mean
        )
    return found
