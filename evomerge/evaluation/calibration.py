"""What a smooth metric says of the reported one, and the blend of both that guides a search.

Right or wrong is one bit an item; the probability of the gold answer says how nearly it was the
other one. How much of the metric a probability is worth differs between tasks, so it is learned:
the best monotone function from the smooth values to the metric, on the items of the baselines
(isotonic regression; Zadrozny and Elkan 2002, "Transforming classifier scores into accurate
multiclass probability estimates"). Its values are on the metric's scale, with a part of the
metric's spread over items. Alone it would be wrong where a candidate's confidence and its answers
disagree; half the metric, half the calibrated value keeps most of the gain.

A climb needs a function with a slope everywhere: a logistic one in the probability's logarithm
(Platt 1999, "Probabilistic outputs for support vector machines"), fitted to the same items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from evomerge.evaluation.scores import ItemScores, TaskItems

__all__ = ["Calibration", "Logistic", "blend", "fit_calibrations"]

Array = npt.NDArray[np.float64]

METRIC_SHARE = 0.5

SLOPES = (0.1, 20.0)
"""Slopes of a logistic function, least and most: where right and wrong are told apart without an
exception, the likeliest slope is infinite, and would leave nothing to climb beside the edge."""


@dataclass(frozen=True)
class Logistic:
    """What a metric in [0, 1] is expected to be, as a function of a probability's logarithm.

    ``1 / (1 + exp(-slope * (log(probability) - middle)))``

    Attributes:
        slope: How sharply it rises.
        middle: Logarithm of the probability that is worth one half.
    """

    slope: float
    middle: float

    @classmethod
    def fit(cls, probabilities: Array, reported: Array) -> "Logistic | None":
        """Return the likeliest function; None if the data say nothing of one.

        Args:
            probabilities: Probabilities, shape ``(n,)``.
            reported: The metric of the same items, the better the larger.
        """
        is_share = len(reported) > 0 and 0.0 <= reported.min() < reported.max() <= 1.0
        if not is_share:
            return None
        at = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
        spread = float(np.std(at))
        if not spread:
            return None

        from scipy.optimize import minimize

        def loss(theta: Array) -> tuple[float, Array]:
            """Return the mean negative log-likelihood, and its gradient."""
            z = theta[0] * at + theta[1]
            error = expit(z) - reported
            return (
                float(np.mean(np.logaddexp(0.0, z) - reported * z)),
                np.array([np.mean(error * at), np.mean(error)]),
            )

        first = 1.0 / spread
        start = [first, float(logit(np.clip(reported.mean(), 0.01, 0.99))) - first * at.mean()]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[SLOPES, (None, None)])
        slope, offset = (float(each) for each in found.x)
        middle = -offset / slope
        if slope <= SLOPES[0] or not at.min() <= middle <= at.max():
            return None
        return cls(slope, middle)


@dataclass(frozen=True)
class Calibration:
    """A monotone function, linear between knots and constant beyond them.

    Attributes:
        at: Smooth values, rising.
        values: What they are worth on the metric's scale.
        logistic: Much the same as a logistic function, where there is one.
    """

    at: tuple[float, ...]
    values: tuple[float, ...]
    logistic: Logistic | None = None

    @classmethod
    def fit(cls, smooth: Array, reported: Array, *, increasing: bool = True) -> "Calibration":
        """Return the function with the least squared error.

        Args:
            smooth: Smooth values, shape ``(n,)``.
            reported: The metric on the same items.
            increasing: Whether the metric is better when the smooth value is larger.
        """
        from scipy.optimize import isotonic_regression

        # Equal smooth values are worth the same.
        at, places, counts = np.unique(smooth, return_inverse=True, return_counts=True)
        means = np.bincount(places, reported) / counts
        fitted = isotonic_regression(means, weights=counts, increasing=increasing)
        first, last = fitted.blocks[:-1], fitted.blocks[1:] - 1
        # Both ends of every block; a block of one item has one.
        knots = np.unique(np.concatenate([first, last]))
        return cls(tuple(at[knots].tolist()), tuple(fitted.x[knots].tolist()))

    def __call__(self, smooth: Array) -> Array:
        """Return what smooth values are worth."""
        return np.interp(smooth, self.at, self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        logistic = None if self.logistic is None else asdict(self.logistic)
        return {"at": list(self.at), "values": list(self.values), "logistic": logistic}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Calibration":
        """Return the calibration of its plain form."""
        logistic = data.get("logistic")
        return cls(
            tuple(data["at"]),
            tuple(data["values"]),
            None if logistic is None else Logistic(**logistic),
        )


def fit_calibrations(tasks: Sequence[str], scored: Sequence[ItemScores]) -> dict[str, Calibration]:
    """Return the calibration of each task, from what baselines got.

    Args:
        tasks: Those whose smooth metric is blended.
        scored: The baselines' items; none gives no calibration.
    """
    found = {}
    for task in tasks:
        both = [(each.smooth[task], each.by_task[task]) for each in scored if task in each.smooth]
        if not both:
            continue
        smooth = np.concatenate([guide.values for guide, _ in both])
        reported = np.concatenate([metric.values for _, metric in both])
        guide, metric = both[0]
        increasing = guide.higher_is_better == metric.higher_is_better
        made = Calibration.fit(smooth, reported, increasing=increasing)
        if guide.metric == "gold_probability":
            better = reported if metric.higher_is_better else 1.0 - reported
            made = replace(made, logistic=Logistic.fit(smooth, better))
        found[task] = made
    return found


def blend(
    scores: ItemScores, tasks: Sequence[str], calibrations: Mapping[str, Calibration]
) -> ItemScores:
    """Return the scores with the blends in the place of the smooth values.

    Args:
        scores: Metrics and smooth values.
        tasks: Those whose smooth metric is blended; without a calibration the metric alone guides.
        calibrations: Task -> what its smooth values are worth.
    """
    guides = dict(scores.smooth)
    for task in tasks:
        smooth = guides.pop(task, None)
        if smooth is not None and task in calibrations:
            guides[task] = _blended(scores.by_task[task], smooth, calibrations[task])
    return ItemScores(scores.by_task, guides)


def _blended(metric: TaskItems, smooth: TaskItems, calibration: Calibration) -> TaskItems:
    worth = calibration(smooth.values)
    return replace(
        metric,
        metric=f"{metric.metric},blend",  # on the scale of the metric, whose range is known
        values=METRIC_SHARE * metric.values + (1.0 - METRIC_SHARE) * worth,
    )
