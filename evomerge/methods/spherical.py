"""Means on the sphere: linear combinations whose factors follow from the inner products.

Every step of these methods stays in the span of the models, so vectors are held as their factors
and lengths come from the matrix of inner products.
"""

import math
from collections.abc import Sequence

import numpy as np

from evomerge.methods.interface import Facts, Kernel, Settings
from evomerge.methods.linear import LinearCombination
from evomerge.methods.task_vectors import TaskVectors

__all__ = [
    "Vector",
    "combine",
    "gram",
    "karcher",
    "karcher_factors",
    "multislerp",
    "multislerp_factors",
]

_ZERO = 1e-12

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Vector = np.ndarray[tuple[int], np.dtype[np.float64]]


def multislerp(settings: Settings, facts: Facts) -> Kernel:
    """Interpolate on the sphere (mergekit, merge method guide); task vectors if there is a base.

    The tangents at the mean direction, its own projections, sum to nothing, so the interpolation
    is that direction itself: `out = (sum_i w_i |x_i|) m / |m|`, `m = sum_i w_i x_i / |x_i|`.
    """
    weights = np.array(settings.numbers("weight"))
    if settings.flag("normalize_weights") and abs(weights.sum()) > _ZERO:
        weights = weights / weights.sum()
    factors = multislerp_factors(gram(settings, facts), weights, settings.number("eps"))
    return combine(settings, factors)


def multislerp_factors(gram: Matrix, weights: Vector, eps: float) -> tuple[float, ...]:
    """Return the factors of the models.

    Args:
        gram: Inner products of the models.
        weights: Their weights.
        eps: Where the mean direction is shorter, opposed models cancel and have no mean on the
            sphere; then the weighted sum is taken.
    """
    lengths = np.sqrt(np.diag(gram))
    directions = np.where(lengths > _ZERO, weights / np.maximum(lengths, _ZERO), 0.0)
    length = math.sqrt(max(float(directions @ gram @ directions), 0.0))
    if length < eps:
        return tuple(weights.tolist())
    return tuple((directions * (float(weights @ lengths) / length)).tolist())


def karcher(settings: Settings, facts: Facts) -> Kernel:
    """Karcher mean of the directions (Karcher 1977), times the mean length."""
    factors = karcher_factors(
        gram(settings, facts), int(settings.number("max_iter")), settings.number("tol")
    )
    return combine(settings, factors)


def karcher_factors(gram: Matrix, max_iter: int, tol: float) -> tuple[float, ...]:
    """Return the factors of the models.

    Args:
        gram: Inner products of the models.
        max_iter: Steps at most.
        tol: Angles in radians below which a step is not worth taking.
    """
    lengths = np.sqrt(np.diag(gram))
    used = np.flatnonzero(lengths > _ZERO)
    factors = np.zeros(len(lengths))
    if not len(used):
        return tuple(factors.tolist())
    cosines = gram[np.ix_(used, used)] / np.outer(lengths[used], lengths[used])
    np.fill_diagonal(cosines, 1.0)
    mean = _unit(np.full(len(used), 1.0 / len(used)), cosines)
    if mean is None:
        # Opposed models: any direction between them is as good; take the first.
        mean = np.eye(len(used))[0]
    for _ in range(max_iter):
        along = np.clip(cosines @ mean, -1.0, 1.0)
        angles = np.arccos(along)
        steps = np.where(angles < tol, 0.0, angles / np.maximum(np.sin(angles), _ZERO))
        # log map of each direction at the mean, and the mean of these
        tangent = (steps - mean * float(steps @ along)) / len(used)
        length = math.sqrt(max(float(tangent @ cosines @ tangent), 0.0))
        if length < tol:
            break
        moved = _unit(math.cos(length) * mean + math.sin(length) / length * tangent, cosines)
        if moved is None:
            break
        mean = moved
    factors[used] = mean / lengths[used] * float(lengths.mean())
    return tuple(factors.tolist())


def _unit(factors: Vector, cosines: Matrix) -> Vector | None:
    length = math.sqrt(max(float(factors @ cosines @ factors), 0.0))
    return factors / length if length > _ZERO else None


def gram(settings: Settings, facts: Facts) -> Matrix:
    """Return the inner products of the models, or of their task vectors if there is a base."""
    first = 1 if settings.has_base else 0
    inputs = range(first, first + len(settings.own))
    return np.array(facts.gram(inputs, deltas=settings.has_base))


def combine(settings: Settings, factors: Sequence[float]) -> Kernel:
    """Return the combination of the models, or the base plus that of the task vectors."""
    if not settings.has_base:
        return LinearCombination(tuple(factors))
    return TaskVectors(
        weights=tuple(factors),
        gains=tuple(factors),
        sparsifiers=(None,) * len(factors),
        elect=False,
        normalize=False,
        scale=1.0,
    )
