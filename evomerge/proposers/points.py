"""Points of a space some of whose dimensions exist under a condition."""

import math
from collections.abc import Iterable, Mapping, Sequence

from evomerge.errors import StudyError
from evomerge.space import Dimension, Value

__all__ = ["active", "check_same", "completed", "has_conditions"]

_MIDDLE = 0.5


def has_conditions(dimensions: Iterable[Dimension]) -> bool:
    """Return whether some dimension does not exist everywhere."""
    return any(dimension.condition is not None for dimension in dimensions)


def active(dimensions: Sequence[Dimension], values: Mapping[str, Value]) -> dict[str, Value]:
    """Return a point without the values of dimensions that do not exist there.

    Args:
        dimensions: The space, in its order.
        values: A value for every dimension.
    """
    point: dict[str, Value] = {}
    for dimension in dimensions:
        if dimension.exists(point):
            point[dimension.name] = values[dimension.name]
    return point


def completed(dimensions: Sequence[Dimension], point: Mapping[str, Value]) -> dict[str, Value]:
    """Return a point with a value for every dimension: the middle where it does not exist."""
    return {
        dimension.name: point[dimension.name]
        if dimension.name in point
        else dimension.from_unit(_MIDDLE)
        for dimension in dimensions
    }


def check_same(
    number: int, mine: Mapping[str, Value], recorded: Mapping[str, Value], library: str
) -> None:
    """Check that a repeated question has the answer that a study holds.

    Args:
        number: The trial.
        mine: The answer now.
        recorded: The answer then.
        library: What computed it.

    Raises:
        StudyError: naming the first value that differs.
    """
    for name in dict.fromkeys([*recorded, *mine]):
        if not _same(mine.get(name), recorded.get(name)):
            raise StudyError(
                f"trial {number}: the study holds {name} = {recorded.get(name)!r}, the same seed "
                f"and history now give {mine.get(name)!r}; the study was made with other search "
                f"settings or another version of {library}: start in a new --out directory"
            )


def _same(mine: Value, recorded: Value) -> bool:
    if isinstance(mine, float) and isinstance(recorded, int | float):
        return math.isclose(mine, recorded, rel_tol=1e-9, abs_tol=1e-12)
    return mine == recorded
