"""Search by a model of all results so far, each with its error.

A Gaussian process takes a result from few items for as much as it is worth, so that many cheap
results are as good as a few dear ones. Its kernel sees a point twice: by the mean of each group of
numbers (the weight of a model) and by every number (that weight in each layer), so that the former
is learned from few results.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.proposers.base import Told, UnitSpace
from evomerge.proposers.surrogate_kernel import Array
from evomerge.proposers.surrogate_model import (
    Posterior,
    Results,
    choose_informative,
    fit_parameters,
)
from evomerge.proposers.surrogate_points import Features
from evomerge.proposers.surrogate_search import Explorer, UpperBound
from evomerge.space import Value

__all__ = ["SurrogateProposer"]

Known = Sequence[tuple[Mapping[str, Value], Told]]

_LEAST_RESULTS = 4
_WIDTH = 2.0
_NUM_CENTRES = 3
_REFIT_GROWTH = 1.15
_MOST_FITTED = 300
_MOST_MODELLED = 1500
_TAIL = 3.0


@dataclass(frozen=True)
class _Row:
    """One result."""

    features: Array
    value: float | None
    stderr: float


@dataclass(frozen=True)
class _Units:
    """From values to the model's: around 0, spread about 1, very low ones not so low."""

    middle: float
    scale: float
    low: float

    def to_model(self, value: float) -> float:
        short = (self.low - value) / self.scale
        if short > 0.0:
            value = self.low - self.scale * math.log1p(short)
        return (value - self.middle) / self.scale


class SurrogateProposer:
    """Bayesian optimization of one objective, with errors that differ between results.

    Each question is a function of the seed, its number and the log: which points were asked, and
    what was told in which order. Nothing else is kept, so there is nothing else to restore. The
    model's parameters are found again whenever the results have grown by a seventh.

    A failed trial counts as one that is as bad as the worst, with a large error: what fails again
    and again is not asked for again, and one accident is no reason to stay away.

    Args:
        space: Dimensions and the unit cube. A dimension that does not exist at a point is in its
            middle there.
        start: The point to start from, if nothing is known.
        known: Points with known results.
        seed: Seed of the run.
        groups: Names of dimensions that belong together, such as the weights of one model in all
            its layers; by default the space's ``groups``, if it has any.
        num_objectives: One; for messages.

    Raises:
        ValueError: if there are several objectives.
    """

    def __init__(
        self,
        space: UnitSpace,
        *,
        start: Mapping[str, Value],
        known: Known,
        seed: int,
        groups: Sequence[Sequence[str]] | None = None,
        num_objectives: int = 1,
    ) -> None:
        if num_objectives != 1:
            raise ValueError(f"this proposer has one objective, got {num_objectives}")
        if groups is None:
            groups = getattr(space, "groups", ())
        self._features = Features(space, groups)
        self._kernel = self._features.kernel()
        self._seed = seed
        self._start = dict(start)
        self._rows = [_row(self._features.encode(point), told) for point, told in known]
        self._num_first = max(0, _LEAST_RESULTS - len(self._rows))
        self._num_asked = 0
        self._last = -1
        self._pending: dict[int, Array] = {}
        self._fitted: tuple[int, _Units, Array] | None = None

    def ask(self, number: int) -> dict[str, Value]:
        """Return the point where the model is most hopeful; before it knows enough, any point."""
        generator = np.random.default_rng([self._seed, number])
        explorer = Explorer(self._features, generator)
        if not self._rows and self._num_asked == 0:
            point = dict(self._start)
        elif self._num_asked < self._num_first or not self._has_values():
            point = self._features.decode(explorer.anywhere(1)[0][0])
        else:
            pending = np.array([*self._pending.values()]).reshape(-1, self._features.count)
            posterior, _ = self._posterior(pending)
            taken = {each.tobytes() for each in self._pending.values()}
            taken |= {row.features.tobytes() for row in self._rows if row.stderr == 0.0}
            centres = self._centres(posterior)
            point = explorer.highest(UpperBound(posterior, _WIDTH), centres, taken)
        self.recall(number, point)
        return point

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Note a question; its answer is not computed again."""
        if number <= self._last:
            raise RuntimeError(f"numbers of questions rise: got {number} after {self._last}")
        self._last = number
        self._num_asked += 1
        self._pending[number] = self._features.encode(point)

    def tell(self, number: int, told: Told) -> None:
        """Take one result."""
        if told.values is not None and len(told.values) != 1:
            raise ValueError(f"this proposer has one objective, got {len(told.values)} values")
        if number not in self._pending:
            raise RuntimeError(f"trial {number} was not asked, or was told before")
        self._rows.append(_row(self._pending.pop(number), told))

    def should_stop(self) -> str | None:
        """The model always has a next point."""
        return None

    def best_point(self) -> dict[str, Value]:
        """Return the point with the highest expected value; the start if nothing is known."""
        if not self._has_values():
            return dict(self._start)
        posterior, _ = self._posterior()
        generator = np.random.default_rng([self._seed, len(self._rows), 1])
        explorer = Explorer(self._features, generator)
        return explorer.highest(UpperBound(posterior, 0.0), self._centres(posterior), ())

    def expected(self, point: Mapping[str, Value]) -> tuple[float, float]:
        """Return what the model expects of a point, and the standard deviation of that.

        Raises:
            ValueError: before there is a result.
        """
        if not self._has_values():
            raise ValueError("nothing is expected of a point before there is a result")
        posterior, units = self._posterior()
        mean, deviation = posterior.predict(self._features.encode(point)[None])
        return units.middle + units.scale * float(mean[0]), units.scale * float(deviation[0])

    def _has_values(self) -> bool:
        return any(row.value is not None for row in self._rows)

    def _centres(self, posterior: Posterior) -> Array:
        """Return the points with results of which most is expected."""
        points = np.array([row.features for row in self._rows if row.value is not None])
        order = np.argsort(-posterior.mean(points), kind="stable")
        return np.asarray(points[order[:_NUM_CENTRES]])

    def _posterior(self, pending: Array | None = None) -> tuple[Posterior, _Units]:
        units, parameters = self._fit()
        chosen = choose_informative([row.stderr for row in self._rows], _MOST_MODELLED)
        results = _results([self._rows[row] for row in chosen], units)
        return Posterior(self._kernel, parameters, results, pending), units

    def _fit(self) -> tuple[_Units, Array]:
        """Return units and parameters, from the results that there were at the last refit."""
        count = _last_refit(len(self._rows))
        while not any(row.value is not None for row in self._rows[:count]):
            count += 1
        if self._fitted is None or self._fitted[0] != count:
            rows = self._rows[:count]
            units = _units(rows)
            chosen = choose_informative([row.stderr for row in rows], _MOST_FITTED)
            results = _results([rows[row] for row in chosen], units)
            self._fitted = (count, units, fit_parameters(self._kernel, results))
        return self._fitted[1:]


def _row(features: Array, told: Told) -> _Row:
    value = told.value
    if value is None or not math.isfinite(value):
        return _Row(features, None, math.inf)
    stderr = told.stderrs[0] if told.stderrs else 0.0
    return _Row(features, value, stderr if math.isfinite(stderr) else math.inf)


def _units(rows: Sequence[_Row]) -> _Units:
    """Return units in which the values are around 0 and spread about 1."""
    values = np.array([row.value for row in rows if row.value is not None])
    errors = np.array([row.stderr for row in rows if row.value is not None])
    middle, best = float(np.median(values)), float(values.max())
    spread = best - middle or float(values.std()) or 1.0
    low = middle - _TAIL * spread
    scale = float(np.maximum(values, low).std()) or 1.0
    weights = 1.0 / (np.minimum(errors / scale, 1e6) ** 2 + 0.1)
    mean = float(weights @ np.maximum(values, low) / weights.sum())
    return _Units(mean, scale, low)


def _results(rows: Sequence[_Row], units: _Units) -> Results:
    values = [None if row.value is None else units.to_model(row.value) for row in rows]
    worst = min((value for value in values if value is not None), default=0.0)
    errors = np.array([1.0 if row.value is None else row.stderr / units.scale for row in rows])
    return Results(
        np.array([row.features for row in rows]),
        np.array([worst if value is None else value for value in values]),
        np.minimum(errors, 1e3) ** 2,
    )


def _last_refit(count: int) -> int:
    """Return the size of the results at which parameters were found last."""
    size = 1
    while True:
        larger = max(size + 1, math.floor(size * _REFIT_GROWTH))
        if larger > count:
            return size
        size = larger
