"""What a smooth metric says of the reported one, and the blend of both that guides a search.

Right or wrong is one bit an item; the probability of the gold answer says how nearly it was the
other one. How much of the metric a probability is worth differs between tasks, so it is learned:
the best monotone function from the smooth values to the metric, on the items of the baselines
(isotonic regression; Zadrozny and Elkan 2002, "Transforming classifier scores into accurate
multiclass probability estimates"). Its values are on the metric's scale, with a part of the
metric's spread over items. Alone it would be wrong where a candidate's confidence and its answers
disagree; half the metric, half the calibrated value keeps most of the gain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from evomerge.evaluation.scores import ItemScores, TaskItems

__all__ = ["Calibration", "blend", "fit_calibrations"]

Array = npt.NDArray[np.float64]

METRIC_SHARE = 0.5


@dataclass(frozen=True)
class Calibration:
    """A monotone function, linear between knots and constant beyond them.

    Attributes:
        at: Smooth values, rising.
        values: What they are worth on the metric's scale.
    """

    at: tuple[float, ...]
    values: tuple[float, ...]

    @classmethod
    def fit(cls, smooth: Array, reported: Array, *, increasing: bool = True) -> "Calibration":
        """Return the function with the least squared error.

        Args:
            smooth: Smooth values, shape ``(n,)``.
            reported: The metric on the same items.
            increasing: Whether the metric is better when the smooth value is larger.
        """
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
        return {"at": list(self.at), "values": list(self.values)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[float]]) -> "Calibration":
        """Return the calibration of its plain form."""
        return cls(tuple(data["at"]), tuple(data["values"]))


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
        found[task] = Calibration.fit(smooth, reported, increasing=increasing)
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
        metric="blend",
        values=METRIC_SHARE * metric.values + (1.0 - METRIC_SHARE) * worth,
    )
