"""CMA-ES by pycma, asynchronous and replayable.

Hansen and Ostermeier, Completely derandomized self-adaptation in evolution strategies, 2001;
Hansen, The CMA evolution strategy: a tutorial, arXiv 1604.00772.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evomerge.proposers.base import Told, UnitSpace
from evomerge.proposers.pending import Pending, check_told
from evomerge.proposers.points import check_same
from evomerge.space import Dimension, Value

__all__ = ["CmaProposer"]

_SEPARABLE_ABOVE = 100
_EDGE = 0.02
_SLOWEST = 0.5
_MEMORY = 0.7
_SMALLEST_STEP = 0.2

Result = tuple[np.ndarray, float | None, float]
"""Vector, value and standard error of one result."""


class CmaProposer:
    """CMA-ES in the unit cube.

    Candidates of one distribution are handed out one by one; when they are used up before enough
    results came back, more are drawn from the same distribution. Every ``population`` results, in
    the order in which they are told, update the distribution, whose new centre is the next
    candidate. When pycma says that it has converged, it starts again from the best point with twice
    the population.

    A whole number or an option of a choice takes its part of the unit interval. The distribution
    learns from the middle of the part, not from where in it the draw fell, and its step stays a
    fifth of a part at least.

    Where standard errors are told, the share of the values' variance that is not noise sets how far
    the centre moves, as a learning rate from 0.5 to 1: under noise the distribution stays nearer to
    an optimum, and comes slower to a far one.

    Args:
        space: Dimensions and the unit cube; conditions are not known to it.
        start: Vector in the unit cube, shape ``(dimensions,)``.
        sigma: First step size, as a share of each range.
        population: Results in an update; by default 4 + 3 ln(dimensions).
        seed: Seed of the draws.
    """

    def __init__(
        self,
        space: UnitSpace,
        *,
        start: Sequence[float],
        sigma: float,
        population: int | None,
        seed: int,
    ) -> None:
        self._space = space
        self._sigma = sigma
        self._generator = np.random.default_rng(seed)
        self._num = len(space.dimensions)
        self._population = population or 4 + math.floor(3 * math.log(self._num))
        self._smallest = [_smallest_step(dimension) for dimension in space.dimensions]
        self._best: tuple[float, np.ndarray] | None = None
        self._signal = 1.0
        self._centre: np.ndarray | None = None
        self._waiting: list[np.ndarray] = []
        self._drawn = False
        self._pending: Pending[tuple[np.ndarray, bool]] = Pending()
        self._told: list[Result] = []
        self._strategy = self._make(np.asarray(start, dtype=float), self._population)

    def ask(self, number: int) -> dict[str, Value]:
        """Return the centre of a new distribution, then candidates drawn from it."""
        is_draw = self._centre is None
        if self._centre is not None:
            vector, self._centre = self._centre, None
        else:
            if not self._waiting:
                self._draw()
            vector = self._waiting.pop(0)
        point = self._space.from_unit(vector[: self._num].tolist())
        vector = self._middle(vector, point)
        self._pending.add(number, (vector, is_draw))
        return point

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Draw again what an earlier process drew, and check that it is the same."""
        check_same(number, self.ask(number), point, "pycma")

    def tell(self, number: int, told: Told) -> None:
        """Take one result; update the distribution when there are enough."""
        check_told(told, 1)
        vector, is_draw = self._pending.take(number)
        value = told.value
        stderr = told.stderrs[0] if told.stderrs else 0.0
        if value is not None and (self._best is None or value > self._best[0]):
            self._best = (value, vector)
        if is_draw:
            self._told.append((vector, value, stderr))
        if len(self._told) >= self._population:
            batch, self._told = self._told, []
            self._update(batch)

    def should_stop(self) -> str | None:
        """CMA-ES starts again when it has converged: there is always a next point."""
        return None

    def _update(self, batch: list[Result]) -> None:
        scores = [value for _, value, _ in batch if value is not None]
        if not scores:
            self._waiting = []
            return
        worst = min(scores)
        # pycma minimizes. A failed trial takes the worst rank of its batch, never a NaN.
        losses = [1.0 - worst if value is None else -value for _, value, _ in batch]
        if not self._drawn:
            # Results of an earlier distribution only; pycma wants a draw before each update.
            self._draw()
        self._measure_noise(batch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            # A share of 1/2 and more moves the centre as without noise.
            self._strategy.sp.cmean = min(1.0, max(_SLOWEST, 2.0 * self._signal))
            self._strategy.tell([vector for vector, _, _ in batch], losses)
        self._waiting, self._drawn = [], False
        if self._strategy.stop() and self._best is not None:
            self._population *= 2
            self._strategy = self._make(self._best[1], self._population)
            return
        self._centre = np.asarray(self._strategy.result.xfavorite, dtype=float)

    def _measure_noise(self, batch: list[Result]) -> None:
        """Update the running share of the values' variance that is not their standard error's."""
        scored = [(value, stderr) for _, value, stderr in batch if value is not None]
        values, stderrs = np.array(scored).T
        variance = float(np.var(values, ddof=1)) if len(values) > 1 else 0.0
        noise = float(np.mean(stderrs**2))
        share = 1.0 if noise == 0.0 else 0.0
        if 0.0 < noise < variance:
            share = 1.0 - noise / variance
        self._signal = _MEMORY * self._signal + (1.0 - _MEMORY) * share

    def _draw(self) -> None:
        self._waiting = [np.asarray(x) for x in self._strategy.ask(self._population)]
        self._drawn = True

    def _middle(self, vector: np.ndarray, point: Mapping[str, Value]) -> np.ndarray:
        """Return a vector with whole numbers and choices in the middle of their parts."""
        middle = vector.copy()
        middle[: self._num] = [
            unit if dimension.kind == "float" else dimension.to_unit(point[dimension.name])
            for dimension, unit in zip(self._space.dimensions, vector, strict=False)
        ]
        return middle

    def _make(self, start: np.ndarray, population: int) -> Any:
        with warnings.catch_warnings():
            # pycma warns at import where matplotlib, which nothing here needs, is not installed.
            warnings.simplefilter("ignore")
            import cma

            # One dimension has no covariance: a second, unused one keeps pycma's formulas legal.
            start, smallest = np.clip(start, _EDGE, 1.0 - _EDGE), self._smallest
            if self._num == 1:
                start, smallest = np.append(start[:1], 0.5), [*smallest, 0.0]
            options = {
                "bounds": [0.0, 1.0],
                "popsize": population,
                "minstd": smallest,
                "randn": lambda *shape: self._generator.standard_normal(shape),
                "seed": np.nan,  # leaves numpy's global generator alone
                "CMA_diagonal": self._num > _SEPARABLE_ABOVE,
                "verbose": -9,
                "verb_log": 0,
                "verb_disp": 0,
            }
            return cma.CMAEvolutionStrategy(start.tolist(), self._sigma, options)


def _smallest_step(dimension: Dimension) -> float:
    """Return the smallest step size along a dimension, as a share of its range."""
    if dimension.kind == "float":
        return 0.0
    is_choice = dimension.kind == "choice"
    parts = len(dimension.choices) if is_choice else dimension.high - dimension.low + 1
    return _SMALLEST_STEP / parts
