"""CMA-ES by pycma, asynchronous and replayable.

Hansen and Ostermeier, Completely derandomized self-adaptation in evolution strategies, 2001;
Hansen, The CMA evolution strategy: a tutorial, arXiv 1604.00772.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evomerge.errors import StudyError
from evomerge.proposers.base import Told, UnitSpace
from evomerge.space import Value

__all__ = ["CmaProposer"]

_SEPARABLE_ABOVE = 100
_EDGE = 0.02


class CmaProposer:
    """CMA-ES in the unit cube.

    Candidates of one distribution are handed out one by one; when they are used up before enough
    results came back, more are drawn from the same distribution. Every ``population`` results, in
    the order in which they are told, update the distribution. When pycma says that it has
    converged, it starts again from the best point with twice the population.

    Args:
        space: Dimensions and the unit cube.
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
        self._best: tuple[float, np.ndarray] | None = None
        self._waiting: list[np.ndarray] = []
        self._drawn = False
        self._asked: dict[int, np.ndarray] = {}
        self._told: list[tuple[np.ndarray, float | None]] = []
        self._strategy = self._make(np.asarray(start, dtype=float), self._population)

    def ask(self, number: int) -> dict[str, Value]:
        """Return the next candidate of the current distribution."""
        if not self._waiting:
            self._draw()
        vector = self._waiting.pop(0)
        self._asked[number] = vector
        return self._space.from_unit(vector[: self._num].tolist())

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Draw again what an earlier process drew, and check that it is the same."""
        mine = self.ask(number)
        for name, value in point.items():
            if not _same(mine[name], value):
                raise StudyError(
                    f"trial {number}: the study holds {name} = {value!r}, the same seed and "
                    f"history now give {mine[name]!r}; the study was made with other search "
                    "settings or another version of pycma: start in a new --out directory"
                )

    def tell(self, number: int, told: Told) -> None:
        """Take one result; update the distribution when there are enough."""
        value = told.value
        if number not in self._asked:
            raise RuntimeError(f"trial {number} was not asked, or was told before")
        vector = self._asked.pop(number)
        self._told.append((vector, value))
        if value is not None and (self._best is None or value > self._best[0]):
            self._best = (value, vector)
        if len(self._told) < self._population:
            return
        batch, self._told = self._told, []
        scores = [score for _, score in batch if score is not None]
        if not scores:
            self._waiting = []
            return
        worst = min(scores)
        # pycma minimizes. A failed trial takes the worst rank of its batch, never a NaN.
        losses = [-score if score is not None else 1.0 - worst for _, score in batch]
        if not self._drawn:
            # Results of an earlier distribution only; pycma wants a draw before each update.
            self._draw()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._strategy.tell([vector for vector, _ in batch], losses)
        self._waiting, self._drawn = [], False
        if self._strategy.stop() and self._best is not None:
            self._population *= 2
            self._strategy = self._make(self._best[1], self._population)

    def should_stop(self) -> str | None:
        """CMA-ES starts again when it has converged: there is always a next point."""
        return None

    def _draw(self) -> None:
        self._waiting = [np.asarray(x) for x in self._strategy.ask(self._population)]
        self._drawn = True

    def _make(self, start: np.ndarray, population: int) -> Any:
        with warnings.catch_warnings():
            # pycma warns at import where matplotlib, which nothing here needs, is not installed.
            warnings.simplefilter("ignore")
            import cma

            # One dimension has no covariance: a second, unused one keeps pycma's formulas legal.
            start = np.clip(start, _EDGE, 1.0 - _EDGE)
            if len(start) == 1:
                start = np.append(start, 0.5)
            options = {
                "bounds": [0.0, 1.0],
                "popsize": population,
                "randn": lambda *shape: self._generator.standard_normal(shape),
                "seed": np.nan,  # leaves numpy's global generator alone
                "CMA_diagonal": self._num > _SEPARABLE_ABOVE,
                "verbose": -9,
                "verb_log": 0,
                "verb_disp": 0,
            }
            return cma.CMAEvolutionStrategy(start.tolist(), self._sigma, options)


def _same(mine: Value, recorded: Value) -> bool:
    if isinstance(mine, float) and isinstance(recorded, int | float):
        return math.isclose(mine, recorded, rel_tol=1e-9, abs_tol=1e-12)
    return mine == recorded
