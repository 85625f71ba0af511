"""What is known before a search begins, as starts for a proposer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evomerge.proposers import Told
from evomerge.search.records import Kind
from evomerge.space import Point

__all__ = ["Start", "about", "best_start"]


@dataclass(frozen=True)
class Start:
    """A trial that was scored before the search.

    Attributes:
        kind: What it is.
        told: What a proposer is told of it.
        nearest: The point of the space that comes nearest to it.
        is_exact: Whether it is that point.
    """

    kind: Kind
    told: Told
    nearest: Point
    is_exact: bool

    @property
    def value(self) -> float:
        """The first number that the search raises."""
        return (self.told.values or (-math.inf,))[0]


def best_start(starts: Sequence[Start]) -> Start:
    """Return the start with the largest value, of equal ones the first."""
    return max(starts, key=lambda each: each.value)


def about(told: Told, error: float) -> Told:
    """Return a result of a recipe that a point comes near to."""
    return replace(told, stderrs=(error,) * len(told.values or ()))
