"""Points as the surrogate sees them: numbers in which distance means something."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from evomerge.proposers.base import UnitSpace
from evomerge.proposers.surrogate_kernel import Array, Kernel, Part
from evomerge.space import Dimension, Value

__all__ = ["Features"]

_COARSE_LENGTH = 0.35
_FINE_LENGTH = 0.2
_COARSE_AMPLITUDE = 1.0
_FINE_AMPLITUDE = 0.6
_MIDDLE = 0.5


class Features:
    """Points to features and back.

    A number is its place in the unit interval. A choice is one feature an option, so that all
    options are equally far from each other. A dimension that does not exist at a point is in its
    middle there.

    Args:
        space: What is searched.
        groups: Names of the numbers that belong together, such as the weights of one model in all
            its layers: points are compared by the means of the groups too.
    """

    def __init__(self, space: UnitSpace, groups: Sequence[Sequence[str]] = ()) -> None:
        self._space = space
        self.dimensions = space.dimensions
        starts, count = [], 0
        for dimension in space.dimensions:
            starts.append(count)
            count += len(dimension.choices) if dimension.kind == "choice" else 1
        self.places = [
            slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)
        ]
        """Features of each dimension."""
        self.count = count
        self.is_number = np.zeros(count, dtype=bool)
        """Which features are numbers."""
        for dimension, place in zip(self.dimensions, self.places, strict=True):
            self.is_number[place] = dimension.kind != "choice"
        self.groups = self._rows(groups)
        """Features of each group; of one alone for numbers that are in no group."""

    def encode(self, point: Mapping[str, Value]) -> Array:
        """Return the features of a point, shape ``(features,)``."""
        features = np.empty(self.count)
        for dimension, place in zip(self.dimensions, self.places, strict=True):
            features[place] = _encode(dimension, point)
        return features

    def decode(self, features: Array) -> dict[str, Value]:
        """Return the nearest point of the space."""
        vector = []
        for dimension, place in zip(self.dimensions, self.places, strict=True):
            mine = features[place]
            if dimension.kind == "choice":
                vector.append((int(mine.argmax()) + 0.5) / len(mine))
            else:
                vector.append(float(mine[0]))
        return self._space.from_unit(vector)

    def free(self, point: Mapping[str, Value]) -> npt.NDArray[np.bool_]:
        """Return which features of a point are numbers that exist there."""
        free = self.is_number.copy()
        for dimension, place in zip(self.dimensions, self.places, strict=True):
            if dimension.name not in point:
                free[place] = False
        return free

    def option(self, dimension: int, index: int) -> Array:
        """Return the features of one option of a choice."""
        place = self.places[dimension]
        return _one_hot(place.stop - place.start, index)

    def kernel(self) -> Kernel:
        """Return a kernel with a fine part and, where there are groups, a coarse one."""
        owners = np.repeat(
            np.arange(len(self.places)), [place.stop - place.start for place in self.places]
        )
        num_fine = len(self.places)
        fine = Part(np.eye(self.count), owners, _FINE_LENGTH * num_fine**0.5, _FINE_AMPLITUDE)
        if all(len(rows) == 1 for rows in self.groups):
            return Kernel([Part(fine.views, owners, fine.length, _COARSE_AMPLITUDE)])
        views: list[Array] = []
        lengths: list[float] = []
        for rows in self.groups:
            view = np.zeros(self.count)
            view[rows] = 1.0 / len(rows)
            views.append(view)
            lengths.append(len(lengths))
        num_coarse = len(self.groups)
        for place, dimension in zip(self.places, self.dimensions, strict=True):
            if dimension.kind == "choice":
                for row in range(place.start, place.stop):
                    view = np.zeros(self.count)
                    view[row] = 1.0
                    views.append(view)
                    lengths.append(num_coarse)
                num_coarse += 1
        coarse = Part(
            np.array(views).T,
            np.array(lengths),
            _COARSE_LENGTH * num_coarse**0.5,
            _COARSE_AMPLITUDE,
        )
        return Kernel([coarse, fine])

    def _rows(self, groups: Sequence[Sequence[str]]) -> list[list[int]]:
        numbers = {
            dimension.name: place.start
            for dimension, place in zip(self.dimensions, self.places, strict=True)
            if dimension.kind != "choice"
        }
        rows = [[numbers.pop(name) for name in group if name in numbers] for group in groups]
        return [each for each in rows if each] + [[row] for row in numbers.values()]


def _encode(dimension: Dimension, point: Mapping[str, Value]) -> Array:
    exists = dimension.name in point
    if dimension.kind == "choice":
        count = len(dimension.choices)
        if not exists:
            return np.full(count, _one_hot(count, 0).sum() / count)
        return _one_hot(count, dimension.choices.index(point[dimension.name]))
    return np.array([dimension.to_unit(point[dimension.name]) if exists else _MIDDLE])


def _one_hot(count: int, index: int) -> Array:
    """Return features of an option; those of two options are at distance 1."""
    features = np.zeros(count)
    features[index] = 0.5**0.5
    return features
