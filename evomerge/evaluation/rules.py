"""How the scores of several tasks become one number."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from evomerge.errors import EvaluationError

if TYPE_CHECKING:
    from evomerge.evaluation.scores import TaskScore

__all__ = ["Improvement", "Rule", "UserFunction", "WeightedSum", "Worst", "improvement"]

Array = npt.NDArray[np.float64]
Scores = Mapping[str, "TaskScore"]

LEAST_SHARE = 0.1
_SHARES = (
    *("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "em", "f1", "mcc"),
    "gold_probability",
)
_BEST_AND_WORST: Mapping[str, tuple[float, float | None]] = {
    **dict.fromkeys(_SHARES, (1.0, 0.0)),
    **dict.fromkeys(("bleu", "chrf", "chrf++"), (100.0, 0.0)),
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity"), (1.0, None)),
    **dict.fromkeys(("bits_per_byte", "gold_bits_per_byte", "brier_score", "ter"), (0.0, None)),
}
"""Metric -> its best value, and its worst where there is one."""

_BELOW_WORST = ("mcc",)
"""Metrics that go below what is the worst to reckon with."""


class Rule(Protocol):
    """A number that is better when larger, from task scores."""

    def value(self, scores: Scores) -> float:
        """Return the number."""
        ...

    def slopes(self, scores: Scores) -> Mapping[str, float] | None:
        """Return its derivative by each task's score; None where there is none to rely on."""
        ...

    def many(self, scores: Scores, resampled: Mapping[str, Array]) -> Array:
        """Return the number for each of many resampled scores, shape ``(samples,)``."""
        ...


def _sign(score: "TaskScore") -> float:
    return 1.0 if score.higher_is_better else -1.0


@dataclass(frozen=True)
class WeightedSum:
    """The sum of the scores times their weights, with a minus where lower is better.

    Attributes:
        weights: Weight of each task.
    """

    weights: Mapping[str, float]

    def value(self, scores: Scores) -> float:
        """Return the sum, exactly rounded."""
        slopes = self.slopes(scores)
        return math.fsum(slope * scores[name].value for name, slope in slopes.items())

    def slopes(self, scores: Scores) -> Mapping[str, float]:
        """Return the weights with their signs."""
        return {name: weight * _sign(scores[name]) for name, weight in self.weights.items()}

    def many(self, scores: Scores, resampled: Mapping[str, Array]) -> Array:
        """Return the sums."""
        slopes = self.slopes(scores)
        sums: Array = np.sum([slope * resampled[name] for name, slope in slopes.items()], axis=0)
        return sums


@dataclass(frozen=True)
class Worst:
    """The smallest score of all tasks, with a minus where lower is better; weights do not count.

    Attributes:
        tasks: The tasks.
    """

    tasks: Sequence[str]

    def value(self, scores: Scores) -> float:
        """Return the smallest."""
        return min(_sign(scores[name]) * scores[name].value for name in self.tasks)

    def slopes(self, scores: Scores) -> None:
        """Return None: near a tie the smallest of two scores has no derivative."""

    def many(self, scores: Scores, resampled: Mapping[str, Array]) -> Array:
        """Return the smallest of each sample."""
        rows = [_sign(scores[name]) * resampled[name] for name in self.tasks]
        smallest: Array = np.min(rows, axis=0)
        return smallest


def improvement(score: "TaskScore", parent: float) -> tuple[float, float]:
    """Return a score's normalized improvement over the best parent's, and its derivative.

    0 is the best parent's level. A gain is divided by the parent's headroom, so 1 is a perfect
    score; a loss by what there was to lose, so -1 is the worst one. Either counts as a tenth of the
    metric's range at least: else one item more than a nearly perfect parent has would outweigh all
    other tasks, and a parent without headroom would leave nothing to divide by. Where the metric's
    best or worst value is not known, the parent's own score is the unit, or 1 if that is 0.

    Args:
        score: A candidate's score.
        parent: The best parent's score.
    """
    best, worst = _BEST_AND_WORST.get(score.metric.partition(",")[0], (None, None))
    headroom = abs(parent) if best is None else abs(best - parent)
    gain = _sign(score) * (score.value - parent)
    unit = headroom if gain >= 0 or worst is None else abs(parent - worst)
    if best is not None and worst is not None:
        unit = max(unit, LEAST_SHARE * abs(best - worst))
    unit = unit or 1.0
    return gain / unit, _sign(score) / unit


@dataclass(frozen=True)
class Improvement:
    """The weighted mean of the tasks' normalized improvements over their best parents.

    Attributes:
        weights: Weight of each task.
        parents: The best parent's score of each task.
    """

    weights: Mapping[str, float]
    parents: Mapping[str, float]

    def value(self, scores: Scores) -> float:
        """Return the mean."""
        shares = self._shares()
        return math.fsum(
            share * improvement(scores[name], self.parents[name])[0]
            for name, share in shares.items()
        )

    def slopes(self, scores: Scores) -> Mapping[str, float]:
        """Return the derivatives on the side where each score lies."""
        return {
            name: share * improvement(scores[name], self.parents[name])[1]
            for name, share in self._shares().items()
        }

    def many(self, scores: Scores, resampled: Mapping[str, Array]) -> Array:
        """Return the means; the parents' scores are fixed numbers."""
        return _one_by_one(self.value, scores, resampled)

    def _shares(self) -> dict[str, float]:
        whole = math.fsum(self.weights.values())
        return {name: weight / whole for name, weight in self.weights.items()}


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's on the task scores.

    Attributes:
        name: As the space names it, for messages.
        function: Task name -> score in, a number out.
        tasks: The tasks that it is given.
    """

    name: str
    function: Callable[[dict[str, "TaskScore"]], float]
    tasks: Sequence[str]

    def value(self, scores: Scores) -> float:
        """Return what the function returns.

        Raises:
            EvaluationError: if it raises, or returns no finite number.
        """
        try:
            result = self.function({name: _possible(scores[name]) for name in self.tasks})
            number = float(result)
        except Exception as exc:  # the function is the user's
            raise EvaluationError(
                f"objective {self.name!r} failed: {type(exc).__name__}: {exc}"
            ) from exc
        if not math.isfinite(number):
            raise EvaluationError(f"objective {self.name!r} returned {number}, not a finite number")
        return number

    def slopes(self, scores: Scores) -> None:
        """Return None: nothing is known of the function."""

    def many(self, scores: Scores, resampled: Mapping[str, Array]) -> Array:
        """Return the function's value for each sample, nan where it has none."""
        return _one_by_one(self._value_or_nan, scores, resampled)

    def _value_or_nan(self, scores: Scores) -> float:
        # The logarithm of a score of 0, say, which the candidate does not have.
        try:
            return self.value(scores)
        except EvaluationError:
            return math.nan


def _possible(score: "TaskScore") -> "TaskScore":
    """Return the nearest score that its metric can have: estimates may lie beyond, as 1.01."""
    name = score.metric.partition(",")[0]
    best, worst = _BEST_AND_WORST.get(name, (None, None))
    value = score.value
    if best is not None:
        value = min(value, best) if score.higher_is_better else max(value, best)
    if worst is not None and name not in _BELOW_WORST:
        value = max(value, worst) if score.higher_is_better else min(value, worst)
    return score if value == score.value else replace(score, value=value)


def _one_by_one(
    value: Callable[[Scores], float], scores: Scores, resampled: Mapping[str, Array]
) -> Array:
    num = len(next(iter(resampled.values())))
    return np.array(
        [
            value({n: replace(scores[n], value=float(resampled[n][i])) for n in resampled})
            for i in range(num)
        ]
    )
