"""Weights that sum to 1.

In the unit cube each weight of a simplex has its own coordinate u, and the weights are
`e_i / sum_j e_j` with `e_i = -ln(1 - u_i)`. Where the u are uniform and independent, the e are
exponential and the weights uniform on the simplex (Devroye, Non-Uniform Random Variate Generation,
1986, chapter V, theorem 2.2). All weights are treated alike, and one of them may be exactly 0 or 1.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evomerge.documents import Origin
from evomerge.errors import SpaceError, nearest
from evomerge.space.dimensions import Dimension, Point, Value
from evomerge.space.holes import Holes

__all__ = ["Simplex", "read_simplexes"]

_LARGEST_UNIT = 1.0 - 2.0**-53
_RULE = "the weights of a simplex are each {search: [0, 1], name: NAME}, with the same 'layers'"


@dataclass(frozen=True)
class Simplex:
    """Dimensions whose values sum to 1.

    Attributes:
        dimensions: Their names, two or more.
    """

    dimensions: tuple[str, ...]

    def settle(self, point: Point) -> dict[str, Value]:
        """Return a point whose weights are divided by their sum; all 0 become equal.

        A point in which they do not exist, or which is settled already, is returned as it is.
        """
        if self.dimensions[0] not in point:
            return dict(point)
        shares = [max(float(point[name] or 0.0), 0.0) for name in self.dimensions]
        if abs(math.fsum(shares) - 1.0) <= len(shares) * sys.float_info.epsilon:
            return dict(point)
        return {**point, **self._weights(shares)}

    def from_unit(self, units: Sequence[float]) -> dict[str, Value]:
        """Return the weights at coordinates in [0, 1]."""
        clipped = (min(max(unit, 0.0), _LARGEST_UNIT) for unit in units)
        return self._weights([-math.log1p(-unit) for unit in clipped])

    def to_unit(self, point: Point) -> list[float]:
        """Return coordinates of weights.

        Many give the same weights; these are those where the e are 1 on average, which is the mean
        of an exponential number.
        """
        settled = self.settle(point)
        scale = len(self.dimensions)
        return [
            min(-math.expm1(-scale * float(settled[name] or 0.0)), _LARGEST_UNIT)
            for name in self.dimensions
        ]

    def _weights(self, shares: Sequence[float]) -> dict[str, Value]:
        total = math.fsum(shares)
        equal = 1.0 / len(shares)
        weights = [share / total if total > 0 else equal for share in shares]
        return dict(zip(self.dimensions, weights, strict=True))


def read_simplexes(
    data: Sequence[Sequence[str]], holes: Holes, origin: Origin
) -> tuple[Simplex, ...]:
    """Check which weights are to sum to 1; a gradient has a simplex for each anchor.

    Args:
        data: Names or labels of search expressions, those of one simplex together.
        holes: The holes of the space.
        origin: Of the `simplex` key, for messages.

    Raises:
        SpaceError: if a name is unknown or taken twice, or its expression is another one.
    """
    by_name = {dimension.name: dimension for dimension in holes.dimensions}
    taken: set[str] = set()
    found: list[Simplex] = []
    for names in data:
        if len(names) < 2:
            raise SpaceError(f"{origin.where()}: a simplex has at least 2 weights, got {names}")
        first: list[Dimension] | None = None
        for name in names:
            if name not in holes.groups:
                raise SpaceError(
                    f"{origin.where()}: a simplex lists names of search expressions, and {name!r} "
                    f"is none; {nearest(name, holes.groups)}"
                )
            if name in taken:
                raise SpaceError(
                    f"{origin.where()}: {name!r} is listed twice; a weight belongs to one simplex"
                )
            taken.add(name)
            dimensions = [by_name[each] for each in holes.groups[name]]
            _check(name, dimensions, first, origin)
            first = first or dimensions
        columns = zip(*(holes.groups[name] for name in names), strict=True)
        found += [Simplex(column) for column in columns]
    return tuple(found)


def _check(
    name: str, dimensions: Sequence[Dimension], first: Sequence[Dimension] | None, origin: Origin
) -> None:
    wanted = Dimension("", "float", 0.0, 1.0)
    for dimension in dimensions:
        if replace(dimension, name="", condition=None) != wanted:
            raise SpaceError(f"{origin.where()}: {_RULE}; that of {name!r} is another expression")
    if first is None:
        return
    if len(dimensions) != len(first):
        raise SpaceError(
            f"{origin.where()}: {_RULE}; {name!r} has {len(dimensions)} values and "
            f"{first[0].name!r} belongs to {len(first)}"
        )
    if dimensions[0].condition != first[0].condition:
        raise SpaceError(
            f"{origin.where()}: the weights of a simplex exist together, and {name!r} exists under "
            f"another condition than {first[0].name!r}"
        )
