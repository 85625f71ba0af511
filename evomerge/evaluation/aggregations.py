"""From the kept values of a task's items to its score, as lm-eval aggregates them.

Most aggregations are a smooth function of a ratio of two sums: a mean, a perplexity, bits per byte.
For these each item's influence on the score is known, and with it the standard error (delta
method). All others are computed by lm-eval's own function, and their errors by the bootstrap.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from evomerge.evaluation.scores import TaskItems

__all__ = ["RATIOS", "aggregate", "influences", "is_smooth", "replicates"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Ratio:
    """A score that is a smooth function of sum(values) / sum(weights).

    Attributes:
        apply: The function.
        slope: Its derivative.
    """

    apply: Callable[[Any], Any]
    slope: Callable[[float], float]


def _exp(power: Any) -> Any:
    """Return e to a power, infinite where that is too large for a number."""
    with np.errstate(over="ignore"):
        return np.exp(power)


_IDENTITY = _Ratio(lambda ratio: ratio, lambda _: 1.0)
_PERPLEXITY = _Ratio(lambda ratio: _exp(-ratio), lambda ratio: -float(_exp(-ratio)))

RATIOS: Mapping[str, _Ratio] = {
    "mean": _IDENTITY,
    "nanmean": _IDENTITY,
    "brier_score": _IDENTITY,  # of each item's own Brier score
    "perplexity": _PERPLEXITY,
    "weighted_perplexity": _PERPLEXITY,
    "bits_per_byte": _Ratio(lambda ratio: -ratio / math.log(2), lambda _: -1 / math.log(2)),
}


def is_smooth(task: "TaskItems") -> bool:
    """Return whether each item's influence on the score is known."""
    return task.aggregation in RATIOS


def aggregate(task: "TaskItems") -> float:
    """Return the score of a task.

    Sums are exactly rounded, so the order of the items cannot matter where it is smooth. A
    perplexity may be infinite.

    Raises:
        EvaluationError: if the task's own function fails on these items.
        ValueError: if there is no item.
    """
    if not task.items:
        raise ValueError("a score needs at least one item, got none")
    if is_smooth(task):
        return float(RATIOS[task.aggregation].apply(_ratio(task)))
    return _by_lm_eval(task, range(len(task.items)))


def influences(task: "TaskItems") -> Array:
    """Return what each item pulls the score to, relative to it: their mean is 0.

    The score's standard error is that of their mean.

    Args:
        task: A task for which ``is_smooth``.
    """
    ratio = _ratio(task)
    weights = _weights(task)
    share = math.fsum(weights.tolist()) / len(task.items)
    pulls: Array = (task.values - ratio * weights) / share
    with np.errstate(invalid="ignore"):
        return pulls * RATIOS[task.aggregation].slope(ratio)


def replicates(task: "TaskItems", counts: npt.NDArray[np.int64]) -> Array:
    """Return the score of resampled items.

    Args:
        task: The task.
        counts: How often each item is drawn, shape ``(replicates, items)``.

    Returns:
        Shape ``(replicates,)``; NaN where a sample has no score.
    """
    if is_smooth(task):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratios = (counts @ task.values) / (counts @ _weights(task))
            scores: Array = RATIOS[task.aggregation].apply(ratios)
            return scores
    places = np.arange(len(task.items))
    return np.array([_by_lm_eval(task, np.repeat(places, row).tolist()) for row in counts])


def _weights(task: "TaskItems") -> Array:
    return np.ones(len(task.items)) if task.weights is None else task.weights


def _ratio(task: "TaskItems") -> float:
    below = math.fsum(_weights(task).tolist())
    return math.fsum(task.values.tolist()) / below if below else math.nan


def _by_lm_eval(task: "TaskItems", places: Any) -> float:
    from evomerge.evaluation.lm_eval_aggregations import apply_aggregation

    kept: list[Any]
    if task.details is not None:
        kept = [json.loads(task.details[place]) for place in places]
    else:
        kept = [float(task.values[place]) for place in places]
    return apply_aggregation(task.aggregation, kept)
