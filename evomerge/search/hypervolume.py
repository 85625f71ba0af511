"""Hypervolume: how much of the objectives' space a set of trials covers.

Zitzler and Thiele, Multiobjective optimization using evolutionary algorithms, 1998. The volume is
exact: a sweep in two dimensions, a sweep over a staircase in three (Beume et al., On the complexity
of computing the hypervolume indicator, 2009), and for more the sum of exclusive volumes of limited
sets (While, Bradstreet and Barone, A fast way of calculating exact hypervolumes, 2012), one
dimension less at each step because the points are sorted by the last one.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "estimated_steps",
    "exclusive_volume",
    "hypervolume",
    "is_quick",
    "is_surpassed",
    "spread_out",
    "volume_steps",
]

Array = npt.NDArray[np.float64]
Points = Sequence[Sequence[float]]

_EXACT_OBJECTIVES = 4
_EXACT_FRONT = 100
_SAMPLES = 2**14


def is_surpassed(points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which points another one surpasses: nowhere worse, somewhere better.

    Args:
        points: Shape ``(points, objectives)``, larger is better. Equal points do not surpass each
            other.

    Returns:
        Shape ``(points,)``.
    """
    values = np.asarray(points, dtype=np.float64)
    if not len(values):
        return np.zeros(0, dtype=bool)
    unique, places = np.unique(values, axis=0, return_inverse=True)
    # In falling lexicographic order only an earlier point can surpass a later one.
    front: list[int] = []
    hidden = np.zeros(len(unique), dtype=bool)
    for i in range(len(unique) - 1, -1, -1):
        hidden[i] = bool(front) and bool((unique[front] >= unique[i]).all(axis=1).any())
        if not hidden[i]:
            front.append(i)
    return hidden[places.reshape(-1)]


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """Return the volume between a reference point and the points that are better than it.

    Args:
        points: One row a trial, larger is better; rows that are not better than the reference in
            every objective add nothing.
        reference: One number an objective.

    Raises:
        ValueError: if the numbers of objectives differ.
    """
    return _union(_above(points, reference))


def exclusive_volume(point: Sequence[float], others: Points, reference: Sequence[float]) -> float:
    """Return what a point adds to the hypervolume of others."""
    mine = _above([point], reference)
    return _added(mine[0], _above(others, reference)) if len(mine) else 0.0


def is_quick(points: Points) -> bool:
    """Return whether the exact volume after each point takes seconds, not hours.

    The time grows like the size of the front to the power of the objectives less two.
    """
    many = len(points) > 0 and len(points[0]) > _EXACT_OBJECTIVES
    return not many or int((~is_surpassed(points)).sum()) <= _EXACT_FRONT


def estimated_steps(points: Points, reference: Sequence[float]) -> list[float]:
    """Return about what ``volume_steps`` does, by counting samples of a Kronecker sequence.

    Its steps are powers of the root of ``x^(d + 1) = x + 1``, which generalizes the golden ratio
    (Roberts, The unreasonable effectiveness of quasirandom sequences, 2018).
    """
    above = _above(points, reference)
    if not len(above):
        return [0.0] * len(points)
    num = len(reference)
    root = 2.0
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (num + 1))
    steps = root ** -np.arange(1.0, num + 1)
    size = above.max(axis=0)
    samples = size * ((0.5 + np.arange(_SAMPLES)[:, None] * steps) % 1.0)
    covered = np.zeros(_SAMPLES, dtype=bool)
    volumes = []
    for point in np.asarray(points, dtype=np.float64) - np.asarray(reference, dtype=np.float64):
        covered |= (samples <= point).all(axis=1)
        volumes.append(float(np.prod(size)) * float(covered.mean()))
    return volumes


def volume_steps(points: Points, reference: Sequence[float]) -> list[float]:
    """Return the hypervolume after each of the points, in their order."""
    volumes: list[float] = []
    front = np.empty((0, len(reference)))
    total = 0.0
    for point in points:
        row = _above([point], reference)
        if len(row) and not (front >= row[0]).all(axis=1).any():
            total += _added(row[0], front)
            front = np.vstack([front[~(row[0] >= front).all(axis=1)], row])
        volumes.append(total)
    return volumes


def spread_out(
    points: Points, reference: Sequence[float], count: int, first: Sequence[int] = ()
) -> list[int]:
    """Return the places of the points that together cover most: each adds most to those before.

    Where none adds anything, the order of the points decides.

    Args:
        points: One row a trial, larger is better.
        reference: One number an objective.
        count: How many to choose.
        first: Places that are chosen before all others.
    """
    chosen = list(dict.fromkeys(first))[:count]
    left = [place for place in range(len(points)) if place not in chosen]
    while left and len(chosen) < count:
        mine = [points[place] for place in chosen]
        best = max(
            left, key=lambda place: (exclusive_volume(points[place], mine, reference), -place)
        )
        chosen.append(best)
        left.remove(best)
    return chosen


def _above(points: Points, reference: Sequence[float]) -> Array:
    """Return the points above the reference, seen from there."""
    corner = np.asarray(reference, dtype=np.float64)
    if not len(points):
        return np.empty((0, len(corner)))
    values = np.asarray(points, dtype=np.float64)
    if values.shape[1] != len(corner):
        raise ValueError(f"points have {values.shape[1]} objectives, the reference {len(corner)}")
    shifted: Array = values - corner
    return shifted[(shifted > 0).all(axis=1)]


def _added(point: Array, others: Array) -> float:
    """Return the volume below a point that no other one covers."""
    return float(np.prod(point)) - _union(np.minimum(others, point))


def _union(points: Array) -> float:
    """Return the volume of the union of the boxes from the origin to the points."""
    if not len(points):
        return 0.0
    objectives = points.shape[1]
    if len(points) == 1:
        return float(np.prod(points[0]))
    if objectives == 1:
        return float(points.max())
    points = np.unique(points[~is_surpassed(points)], axis=0)
    points = points[np.argsort(-points[:, -1], kind="stable")]
    if objectives == 2:
        below = np.append(0.0, points[:-1, 0])
        return float(((points[:, 0] - below) * points[:, 1]).sum())
    if objectives == 3:
        return _staircase(points)
    # Every point before has a larger last value: below this point all reach as far as it does.
    return float(
        sum(
            point[-1] * _added(point[:-1], points[:place, :-1])
            for place, point in enumerate(points)
        )
    )


def _staircase(points: Array) -> float:
    """Return the volume of points of three objectives, sorted by the last one, falling."""
    heights = np.append(points[1:, 2], 0.0)
    xs: list[float] = []  # rising
    ys: list[float] = []  # falling
    area = volume = 0.0
    for (x, y, z), below in zip(points.tolist(), heights.tolist(), strict=True):
        end = bisect_left(xs, x)
        if end == len(xs) or ys[end] < y:
            start = end
            while start and ys[start - 1] <= y:
                start -= 1
            # From left to right, the steps that the new one reaches over.
            left = xs[start - 1] if start else 0.0
            for place in range(start, end):
                area += (xs[place] - left) * (y - ys[place])
                left = xs[place]
            area += (x - left) * (y - (ys[end] if end < len(ys) else 0.0))
            if end < len(xs) and xs[end] == x:
                end += 1
            xs[start:end], ys[start:end] = [x], [y]
        volume += area * (z - below)
    return volume
