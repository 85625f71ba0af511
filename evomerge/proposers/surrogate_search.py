"""Where a surrogate wants the next result: the highest point of an acquisition function."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import optimize

from evomerge.proposers.surrogate_kernel import Array
from evomerge.proposers.surrogate_model import Posterior
from evomerge.proposers.surrogate_points import Features
from evomerge.space import Value

Places = npt.NDArray[np.intp]
"""Indices."""

__all__ = ["Acquisition", "Explorer", "UpperBound"]

_NUM_CENTRES = 3
_NUM_LOCAL = 90
_NUM_GLOBAL = 60
_LOCAL_STARTS = 8
_GLOBAL_STARTS = 4
_LOCAL_STEP = 0.1
_GROUP_STEP = 0.1
_REDRAWN = 0.2
_LOCAL_BOX = 0.2
_GLOBAL_BOX = 0.1
_MAX_STEPS = 50
_POLISHED = 3
_MAX_CHANGES = 20


class Acquisition(Protocol):
    """What a point is worth, larger is better."""

    def values(self, points: Array) -> Array:
        """Return the worth of points, shape ``(points,)``."""
        ...

    def slopes(self, points: Array) -> tuple[Array, Array]:
        """Return the worth of points and its gradients, shape ``(points, features)``."""
        ...


@dataclass(frozen=True)
class UpperBound:
    """Mean plus some standard deviations (Srinivas et al. 2010, arXiv 0912.3995, "GP-UCB").

    Attributes:
        posterior: What is known.
        width: How many standard deviations; 0 is the expected value alone.
    """

    posterior: Posterior
    width: float

    def values(self, points: Array) -> Array:
        """Return the worth of points."""
        if self.width == 0.0:
            return self.posterior.mean(points)
        mean, deviation = self.posterior.predict(points)
        return mean + self.width * deviation

    def slopes(self, points: Array) -> tuple[Array, Array]:
        """Return the worth of points and its gradients."""
        mean, deviation, rise, spread = self.posterior.predict_with_slopes(points)
        return mean + self.width * deviation, rise + self.width * spread


class Explorer:
    """Looks for the highest point of an acquisition function.

    Args:
        features: Points as the model sees them.
        generator: Decides where the search begins.
    """

    def __init__(self, features: Features, generator: np.random.Generator) -> None:
        self._features = features
        self._generator = generator

    def anywhere(self, count: int) -> tuple[Array, Array]:
        """Return points of the whole space, shape ``(count, features)``.

        The numbers of a group are near each other: what all layers of a model share is explored
        before what each of them does.
        """
        features = self._features
        levels = np.zeros((count, features.count))
        points = levels.copy()
        for rows in features.groups:
            levels[:, rows] = self._generator.random((count, 1))
            step = _GROUP_STEP if len(rows) > 1 else 0.0
            noise = step * self._generator.standard_normal((count, len(rows)))
            points[:, rows] = np.clip(levels[:, rows] + noise, 0.0, 1.0)
        self._draw_options(points, 1.0)
        return levels, points

    def around(self, centres: Array, count: int) -> tuple[Array, Array]:
        """Return points near some centres, shape ``(count, features)``."""
        anchors = centres[np.arange(count) % len(centres)]
        points = anchors.copy()
        free = self._features.is_number
        points[:, free] += _LOCAL_STEP * self._generator.standard_normal((count, int(free.sum())))
        points[:, free] = np.clip(points[:, free], 0.0, 1.0)
        self._draw_options(points, _REDRAWN)
        return points, anchors

    def highest(
        self,
        acquisition: Acquisition,
        centres: Array,
        taken: Collection[bytes],
    ) -> dict[str, Value]:
        """Return a point where an acquisition function is high.

        Args:
            acquisition: The function.
            centres: Points that are good already, shape ``(centres, features)``.
            taken: Features, as bytes, of points that would say nothing new.
        """
        near, around = self.around(centres, _NUM_LOCAL)
        levels, far = self.anywhere(_NUM_GLOBAL)
        a = self._best(acquisition, near, _LOCAL_STARTS)
        b = self._best(acquisition, far, _GLOBAL_STARTS)
        starts = np.concatenate([near[a], far[b]])
        anchors = np.concatenate([around[a], levels[b]])
        boxes = np.concatenate([np.full(len(a), _LOCAL_BOX), np.full(len(b), _GLOBAL_BOX)])
        climbed = self._climb(acquisition, self._legal(starts), anchors, boxes)
        order = np.argsort(-acquisition.values(climbed), kind="stable")
        ranked = self._legal(climbed[order])
        if self._has_steps:
            polished = [self._polish(acquisition, each) for each in ranked[:_POLISHED]]
            ranked = np.concatenate([np.array(polished), ranked])
        worth = acquisition.values(ranked)
        for row in np.argsort(-worth, kind="stable"):
            if ranked[row].tobytes() not in taken:
                return self._features.decode(ranked[row])
        return self._features.decode(self.anywhere(1)[0][0])

    @property
    def _has_steps(self) -> bool:
        return any(dimension.kind != "float" for dimension in self._features.dimensions)

    def _best(self, acquisition: Acquisition, points: Array, count: int) -> Places:
        legal = self._legal(points) if self._has_steps else points
        order = np.argsort(-acquisition.values(legal), kind="stable")
        return order[:count]

    def _legal(self, points: Array) -> Array:
        """Return the features of the points of the space that are nearest."""
        return np.array([self._features.encode(self._features.decode(each)) for each in points])

    def _climb(
        self, acquisition: Acquisition, starts: Array, anchors: Array, boxes: Array
    ) -> Array:
        """Return where gradients lead to, all starts at once; options stay."""
        free = np.array([self._features.free(self._features.decode(each)) for each in starts])
        box = boxes[:, None]
        lower = np.where(free, np.clip(np.minimum(anchors - box, starts), 0.0, 1.0), starts)
        upper = np.where(free, np.clip(np.maximum(anchors + box, starts), 0.0, 1.0), starts)

        def loss(flat: Array) -> tuple[float, Array]:
            worth, slopes = acquisition.slopes(flat.reshape(starts.shape))
            return -float(worth.sum()), np.where(free, -slopes, 0.0).ravel()

        found = optimize.minimize(
            loss,
            starts.ravel(),
            jac=True,
            method="L-BFGS-B",
            bounds=optimize.Bounds(lower.ravel(), upper.ravel()),
            options={"maxiter": _MAX_STEPS, "ftol": 1e-7, "maxcor": 10},
        )
        reached: Array = np.clip(np.asarray(found.x).reshape(starts.shape), lower, upper)
        return reached

    def _polish(self, acquisition: Acquisition, point: Array) -> Array:
        """Return the end of a way of single changes of options and whole numbers."""
        worth = float(acquisition.values(point[None])[0])
        for _ in range(_MAX_CHANGES):
            others = list(self._neighbours(point))
            values = acquisition.values(np.array(others))
            if values.max() <= worth:
                break
            best = int(values.argmax())
            point, worth = others[best], float(values[best])
        return point

    def _neighbours(self, point: Array) -> Iterator[Array]:
        base = self._features.decode(point)
        for index, dimension in enumerate(self._features.dimensions):
            if dimension.kind == "float" or dimension.name not in base:
                continue
            place = self._features.places[index]
            for option in self._other_features(index, base):
                changed = point.copy()
                changed[place] = option
                yield self._features.encode(self._features.decode(changed))

    def _other_features(self, index: int, base: Mapping[str, Value]) -> Iterator[Array | float]:
        dimension = self._features.dimensions[index]
        value = base[dimension.name]
        if dimension.kind == "choice":
            for option in range(len(dimension.choices)):
                if dimension.choices[option] != value:
                    yield self._features.option(index, option)
        elif isinstance(value, int):
            for other in (value - 1, value + 1):
                if dimension.low <= other <= dimension.high:
                    yield dimension.to_unit(other)

    def _draw_options(self, points: Array, share: float) -> None:
        """Draw the options of choices again, in some share of the points."""
        for index, dimension in enumerate(self._features.dimensions):
            if dimension.kind != "choice":
                continue
            place = self._features.places[index]
            drawn = self._generator.integers(len(dimension.choices), size=len(points))
            changed = self._generator.random(len(points)) < share
            for row in np.flatnonzero(changed):
                points[row, place] = self._features.option(index, int(drawn[row]))
