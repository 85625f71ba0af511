"""Kernels of the surrogate: how alike the scores of two points are.

Rasmussen and Williams, Gaussian processes for machine learning, 2006, sections 4.2 and 5.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Kernel", "Part"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Part:
    """One term of a kernel: a squared exponential of some linear views of the features.

    Attributes:
        views: Features -> what this term sees of them, shape ``(features, columns)``.
        owners: Length scale of each column, shape ``(columns,)``, from 0.
        length: Length scale that is expected before there is data.
        amplitude: Standard deviation that is expected before there is data.
    """

    views: Array
    owners: npt.NDArray[np.int64]
    length: float
    amplitude: float

    @property
    def num_lengths(self) -> int:
        """Number of length scales."""
        return int(self.owners.max()) + 1


class Kernel:
    """A sum of terms.

    Parameters are logarithms in one vector: for each part its amplitude and then its length scales.

    Args:
        parts: The terms.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        sizes = [1 + part.num_lengths for part in parts]
        ends = np.cumsum(sizes)
        self._slices = [
            slice(end - size, end) for end, size in zip(ends.tolist(), sizes, strict=True)
        ]
        self.expected: Array = np.concatenate(
            [np.log([part.amplitude, *[part.length] * part.num_lengths]) for part in self._parts]
        )
        """Parameters that are expected before there is data."""
        self.is_length = np.ones(len(self.expected), dtype=bool)
        """Which parameters are length scales; the others are amplitudes."""
        self.is_length[[place.start for place in self._slices]] = False

    def variance(self, parameters: Array) -> float:
        """Return the variance at a point."""
        return sum(float(np.exp(2.0 * parameters[place.start])) for place in self._slices)

    def matrix(self, parameters: Array, left: Array, right: Array) -> Array:
        """Return the covariances of two sets of points, shape ``(left, right)``."""
        total = np.zeros((len(left), len(right)))
        for part, place in zip(self._parts, self._slices, strict=True):
            total += _term(part, parameters[place], left, right)
        return total

    def parameter_gradient(self, parameters: Array, points: Array, weights: Array) -> Array:
        """Return the gradient of ``sum(weights * matrix)`` for the parameters.

        Args:
            parameters: Where.
            points: Both sets of points, shape ``(points, features)``.
            weights: Symmetric, shape ``(points, points)``.
        """
        gradient = np.empty_like(parameters)
        for part, place in zip(self._parts, self._slices, strict=True):
            mine = parameters[place]
            weighted = weights * _term(part, mine, points, points)
            gradient[place.start] = 2.0 * weighted.sum()
            # d/d log l of exp(-r^2/2) is exp(-r^2/2) (x - y)^2 / l^2 for each of its columns.
            seen = _scaled(part, mine, points)
            rows = weighted.sum(axis=1)
            columns = 2.0 * (rows @ seen**2 - np.einsum("ij,ij->j", seen, weighted @ seen))
            gradient[place.start + 1 : place.stop] = np.bincount(
                part.owners, weights=columns, minlength=part.num_lengths
            )
        return gradient

    def point_gradient(
        self, parameters: Array, left: Array, right: Array, weights: Sequence[Array]
    ) -> list[Array]:
        """Return the gradients of ``sum(weights * matrix, axis=1)`` for the left points.

        Args:
            parameters: Where.
            left: Points, shape ``(left, features)``.
            right: Fixed points, shape ``(right, features)``.
            weights: Several weights, each of a shape that goes with ``(left, right)``.
        """
        gradients = [np.zeros_like(left) for _ in weights]
        for part, place in zip(self._parts, self._slices, strict=True):
            mine = parameters[place]
            term = _term(part, mine, left, right)
            here, there = _scaled(part, mine, left), _scaled(part, mine, right)
            back = part.views.T / np.exp(mine[1:])[part.owners][:, None]
            for row, each in enumerate(weights):
                weighted = each * term
                slopes = weighted @ there - weighted.sum(axis=1)[:, None] * here
                gradients[row] += slopes @ back
        return gradients


def _scaled(part: Part, parameters: Array, points: Array) -> Array:
    return (points @ part.views) / np.exp(parameters[1:])[part.owners]


def _term(part: Part, parameters: Array, left: Array, right: Array) -> Array:
    here, there = _scaled(part, parameters, left), _scaled(part, parameters, right)
    squares = here @ there.T
    squares *= -2.0
    squares += (here**2).sum(axis=1)[:, None]
    squares += (there**2).sum(axis=1)[None, :]
    np.maximum(squares, 0.0, out=squares)
    squares *= -0.5
    np.exp(squares, out=squares)
    squares *= float(np.exp(2.0 * parameters[0]))
    return squares
