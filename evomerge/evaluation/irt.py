"""Item-response theory: how hard each item is, how well it tells candidates apart, who can what.

The two-parameter logistic model: a candidate of ability theta gets item i right with probability
``sigmoid(slope_i * theta + intercept_i)``; the item's discrimination is its slope, its difficulty
``-intercept / slope``. It is fitted by marginal maximum a posteriori (Bock and Aitkin 1981,
"Marginal maximum likelihood estimation of item parameters: application of an EM algorithm"), and a
score on all items is what was seen, and the model's expectation of the rest: p-IRT of
tinyBenchmarks (Polo et al. 2024, arXiv 2402.14992), which MERGE3 (Mencattini et al. 2025, arXiv
2502.10436) uses in a search. Values between 0 and 1 count as that much of a right answer.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

__all__ = ["Forecast", "IrtModel", "fit_irt"]

Array = npt.NDArray[np.float64]

# Abilities are standard normal, on a grid fine enough for a few hundred items.
GRID = np.linspace(-4.0, 4.0, 65)
LOG_PRIOR = -0.5 * GRID**2 - math.log(np.exp(-0.5 * GRID**2).sum())
# Priors of the items: log slope ~ N(0, 0.5²), intercept ~ N(0, 3²).
SLOPE_SPREAD = 0.5
INTERCEPT_SPREAD = 3.0
MOST_ROUNDS = 60
MOST_STEPS = 5
TOLERANCE = 1e-3
LONGEST_STEP = 1.0


@dataclass(frozen=True)
class Forecast:
    """What a candidate has on all items.

    Attributes:
        mean: Mean value over all items.
        stderr: Its error: of the ability, and of the unseen items given it.
    """

    mean: float
    stderr: float


@dataclass(frozen=True, eq=False)
class IrtModel:
    """Items of one task, as fitted.

    Attributes:
        slopes: Discrimination of each item, above 0, shape ``(items,)``.
        intercepts: Of each item, shape ``(items,)``.
    """

    slopes: Array
    intercepts: Array

    @property
    def difficulties(self) -> Array:
        """The ability at which each item is as likely right as wrong, shape ``(items,)``."""
        return -self.intercepts / self.slopes

    def ability(self, values: Array) -> Array:
        """Return the posterior of a candidate's ability on the grid, shape ``(grid,)``.

        Args:
            values: What it got, in [0, 1], nan where it was not scored; shape ``(items,)``.
        """
        seen = ~np.isnan(values)
        posterior: Array = _posteriors(
            np.where(seen, values, 0.0)[None], seen[None].astype(float), self._logits()
        )[0]
        return posterior

    def forecast(self, values: Array) -> Forecast:
        """Return the mean over all items: those seen as they are, the others as expected.

        Args:
            values: What the candidate got, in [0, 1], nan where it was not scored; shape
                ``(items,)``.
        """
        posterior = self.ability(values)
        unseen = np.isnan(values)
        chances = expit(self._logits()[unseen])
        sums = chances.sum(axis=0)
        expected = float(posterior @ sums)
        of_ability = float(posterior @ (sums - expected) ** 2)
        of_items = float(posterior @ (chances * (1.0 - chances)).sum(axis=0))
        total = math.fsum(values[~unseen].tolist()) + expected
        return Forecast(total / len(values), math.sqrt(of_ability + of_items) / len(values))

    def _logits(self) -> Array:
        return self.slopes[:, None] * GRID + self.intercepts[:, None]


def fit_irt(values: Array) -> IrtModel:
    """Fit the items of one task.

    Args:
        values: What candidates got for each item, in [0, 1], nan where one was not scored on it;
            shape ``(candidates, items)``.

    Raises:
        ValueError: if a value is outside [0, 1].
    """
    seen = ~np.isnan(values)
    if values[seen].size and not 0.0 <= values[seen].min() <= values[seen].max() <= 1.0:
        raise ValueError(
            f"item-response theory needs values in [0, 1], got {values[seen].min()} to "
            f"{values[seen].max()}"
        )
    right, scored = np.where(seen, values, 0.0), seen.astype(float)
    shares = (right.sum(axis=0) + 0.5) / (scored.sum(axis=0) + 1.0)
    logs, intercepts = np.zeros(values.shape[1]), np.log(shares / (1.0 - shares))
    for _ in range(MOST_ROUNDS):
        logits = np.exp(logs)[:, None] * GRID + intercepts[:, None]
        weights = _posteriors(right, scored, logits)
        before = logs, intercepts
        logs, intercepts = _maximize(right.T @ weights, scored.T @ weights, *before)
        if max(np.abs(logs - before[0]).max(), np.abs(intercepts - before[1]).max()) < TOLERANCE:
            break
    return IrtModel(np.exp(logs), intercepts)


def _posteriors(right: Array, scored: Array, logits: Array) -> Array:
    """Return the posterior of each candidate's ability, shape ``(candidates, grid)``."""
    # log sigmoid(x) y + log sigmoid(-x) (1 - y) = x y - log(1 + exp(x))
    logs = right @ logits - scored @ np.logaddexp(0.0, logits) + LOG_PRIOR
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    normalized: Array = weights / weights.sum(axis=1, keepdims=True)
    return normalized


def _maximize(right: Array, scored: Array, logs: Array, intercepts: Array) -> tuple[Array, Array]:
    """Return better log slopes and intercepts, by Fisher scoring of each item alone.

    Args:
        right: Expected right answers of each item at each ability, shape ``(items, grid)``.
        scored: Expected answers, shape ``(items, grid)``.
        logs: Log slopes to start from.
        intercepts: Intercepts to start from.
    """
    for _ in range(MOST_STEPS):
        slopes = np.exp(logs)
        chances = expit(slopes[:, None] * GRID + intercepts[:, None])
        misses = right - scored * chances
        information = scored * chances * (1.0 - chances)
        # Derivatives of the logit: slope * theta by the log slope, 1 by the intercept.
        first = slopes * (misses @ GRID) - logs / SLOPE_SPREAD**2
        second = misses.sum(axis=1) - intercepts / INTERCEPT_SPREAD**2
        both = slopes**2 * (information @ GRID**2) + 1.0 / SLOPE_SPREAD**2
        mixed = slopes * (information @ GRID)
        alone = information.sum(axis=1) + 1.0 / INTERCEPT_SPREAD**2
        determinant = both * alone - mixed**2
        step = (alone * first - mixed * second) / determinant
        shift = (both * second - mixed * first) / determinant
        logs = logs + np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        intercepts = intercepts + np.clip(shift, -LONGEST_STEP, LONGEST_STEP)
    return logs, intercepts
