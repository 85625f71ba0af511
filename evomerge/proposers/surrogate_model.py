"""Gaussian process over noisy results: what is expected of a point, and how surely.

Rasmussen and Williams, Gaussian processes for machine learning, 2006, algorithm 2.1 and section
5.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from evomerge.proposers.surrogate_kernel import Array, Kernel

__all__ = ["Posterior", "Results", "choose_informative", "fit_parameters"]

_NUGGET = 1e-6
_JITTER = 0.1
_AMPLITUDE_SPREAD = 1.0
_LENGTH_SPREAD = 0.7
_MAX_STEPS = 40
_WIDEST = 4.0


@dataclass(frozen=True, eq=False)
class Results:
    """What is known, in units of the model: values around 0 that spread by about 1.

    Attributes:
        points: Features, shape ``(results, features)``.
        values: Shape ``(results,)``.
        variances: Squared standard errors of the values, shape ``(results,)``.
    """

    points: Array
    values: Array
    variances: Array

    def take(self, rows: Sequence[int]) -> "Results":
        """Return some of the results."""
        chosen = list(rows)
        return Results(self.points[chosen], self.values[chosen], self.variances[chosen])


def choose_informative(variances: Sequence[float], count: int) -> list[int]:
    """Return which results to keep where they are too many, in their order.

    Half are those with the smallest errors, of equal ones the latest; the others are spread evenly
    over the rest, so that no time of the run is forgotten. Values do not count: keeping the best
    would keep those which luck made the best.

    Args:
        variances: Squared standard errors.
        count: How many.
    """
    total = len(variances)
    if total <= count:
        return list(range(total))
    ranked = sorted(range(total), key=lambda row: (variances[row], -row))
    surest, rest = ranked[: count // 2], sorted(ranked[count // 2 :])
    wanted = count - len(surest)
    spread = [rest[(2 * place + 1) * len(rest) // (2 * wanted)] for place in range(wanted)]
    return sorted([*surest, *spread])


def fit_parameters(kernel: Kernel, results: Results) -> Array:
    """Return the most probable parameters: the kernel's, then the log of a noise of all results.

    Their priors are normal around what the kernel expects. The answer depends on nothing else than
    the arguments.

    Args:
        kernel: The kernel.
        results: At least one.
    """
    expected = np.append(kernel.expected, np.log(_JITTER))
    spreads = np.where(kernel.is_length, _LENGTH_SPREAD, _AMPLITUDE_SPREAD)
    spreads = np.append(spreads, _AMPLITUDE_SPREAD)
    count = len(results.values)

    def loss(parameters: Array) -> tuple[float, Array]:
        jitter = float(np.exp(2.0 * parameters[-1]))
        matrix = kernel.matrix(parameters[:-1], results.points, results.points)
        matrix[np.diag_indices(count)] += results.variances + jitter + _NUGGET
        factor = _factorize(matrix)
        weights = linalg.cho_solve((factor, True), results.values, check_finite=False)
        # W of equation 5.9: inverse minus the outer product of the weights.
        inverse = linalg.cho_solve((factor, True), np.eye(count), check_finite=False)
        inverse -= np.outer(weights, weights)
        offsets = (parameters - expected) / spreads
        value = 0.5 * float(results.values @ weights) + float(np.log(np.diag(factor)).sum())
        slopes = 0.5 * kernel.parameter_gradient(parameters[:-1], results.points, inverse)
        gradient = np.append(slopes, jitter * np.trace(inverse)) + offsets / spreads
        return value + 0.5 * float(offsets @ offsets), gradient

    bounds = [
        (middle - _WIDEST * spread, middle + _WIDEST * spread)
        for middle, spread in zip(expected, spreads, strict=True)
    ]
    found = optimize.minimize(
        loss,
        expected,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _MAX_STEPS, "ftol": 1e-6},
    )
    return np.asarray(found.x, dtype=np.float64)


class Posterior:
    """What the results say of other points.

    Args:
        kernel: The kernel.
        parameters: What ``fit_parameters`` found.
        results: At least one.
        pending: Points whose results are still to come, shape ``(pending, features)``. They lower
            the error around them as results would that are what is expected (the "kriging
            believer" of Ginsbourger, Le Riche and Carraro, 2010), and change no expected value.
    """

    def __init__(
        self, kernel: Kernel, parameters: Array, results: Results, pending: Array | None = None
    ) -> None:
        self._kernel = kernel
        self._parameters = parameters[:-1]
        self._variance = kernel.variance(self._parameters)
        jitter = float(np.exp(2.0 * parameters[-1])) + _NUGGET
        known = results.points
        extra = np.empty((0, known.shape[1])) if pending is None else pending
        noise = np.concatenate([results.variances, np.zeros(len(extra))]) + jitter
        self._points = np.concatenate([known, extra])
        matrix = kernel.matrix(self._parameters, self._points, self._points)
        matrix[np.diag_indices(len(self._points))] += noise
        self._factor = _factorize(matrix)
        count = len(known)
        weights = linalg.cho_solve(
            (self._factor[:count, :count], True), results.values, check_finite=False
        )
        self._weights = np.concatenate([weights, np.zeros(len(extra))])

    def mean(self, points: Array) -> Array:
        """Return what is expected at points, shape ``(points,)``."""
        mean: Array = self._kernel.matrix(self._parameters, points, self._points) @ self._weights
        return mean

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return what is expected at points, and its standard deviation without noise."""
        across = self._kernel.matrix(self._parameters, points, self._points)
        half = linalg.solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        return across @ self._weights, self._deviation((half**2).sum(axis=0))

    def predict_with_slopes(self, points: Array) -> tuple[Array, Array, Array, Array]:
        """Return mean and deviation, and the gradients of both, shape ``(points, features)``."""
        across = self._kernel.matrix(self._parameters, points, self._points)
        solved = linalg.cho_solve((self._factor, True), across.T, check_finite=False).T
        deviation = self._deviation(np.einsum("ij,ij->i", across, solved))
        slopes, falls = self._kernel.point_gradient(
            self._parameters, points, self._points, [self._weights[None, :], solved]
        )
        return across @ self._weights, deviation, slopes, -falls / deviation[:, None]

    def _deviation(self, explained: Array) -> Array:
        return np.asarray(np.sqrt(np.maximum(self._variance - explained, 1e-10)))


def _factorize(matrix: Array) -> Array:
    """Return the lower Cholesky factor; rounding may make a larger diagonal necessary."""
    extra = _NUGGET
    while True:
        try:
            factor = linalg.cholesky(matrix, lower=True, check_finite=False)
            return np.asarray(factor, dtype=np.float64)
        except linalg.LinAlgError:
            matrix = matrix + extra * np.eye(len(matrix))
            extra *= 10.0
