"""Dimensions without a recipe: what tests and benchmarks search."""

from collections.abc import Mapping, Sequence

from evomerge.proposers.points import active
from evomerge.space import Dimension, Value

__all__ = ["PlainSpace"]


class PlainSpace:
    """A space of some dimensions.

    Args:
        *dimensions: In their order; one that has a condition stands after the choice it names.
    """

    def __init__(self, *dimensions: Dimension) -> None:
        self._dimensions = dimensions

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The searched values."""
        return self._dimensions

    def from_unit(self, vector: Sequence[float], /) -> dict[str, Value]:
        """Return the point at a vector of the unit cube."""
        pairs = zip(self._dimensions, vector, strict=True)
        return active(self._dimensions, {d.name: d.from_unit(unit) for d, unit in pairs})

    def to_unit(self, point: Mapping[str, Value], /) -> list[float]:
        """Return the vector of a point; the middle where it has no value."""
        return [
            dimension.to_unit(point[dimension.name]) if dimension.name in point else 0.5
            for dimension in self._dimensions
        ]
