"""What the driver needs from an optimizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from evomerge.space import Dimension, Value

__all__ = ["Proposer", "Told", "UnitSpace"]


@dataclass(frozen=True)
class Told:
    """What a trial gave.

    Attributes:
        values: One number an objective, better when larger; None if the trial failed.
        stderrs: Standard errors of ``values`` as estimates of the scores on all search items: 0 for
            a trial that was scored on all of them, empty where nothing is known.
        items: Item evaluations that were spent on it.
    """

    values: tuple[float, ...] | None
    stderrs: tuple[float, ...] = ()
    items: int = 0

    @property
    def value(self) -> float | None:
        """The one objective, or None for a failed trial.

        Raises:
            ValueError: if there are several objectives.
        """
        if self.values is None:
            return None
        if len(self.values) != 1:
            raise ValueError(f"this proposer has one objective, got {len(self.values)} numbers")
        return self.values[0]


class UnitSpace(Protocol):
    """The part of a space that a proposer sees: dimensions and the unit cube."""

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The searched values."""
        ...

    def from_unit(self, vector: Sequence[float], /) -> dict[str, Value]:
        """Return the point at a vector of the unit cube."""
        ...

    def to_unit(self, point: Mapping[str, Value], /) -> list[float]:
        """Return the vector of a point."""
        ...


class Proposer(Protocol):
    """An optimizer that maximizes, one point at a time and without a generation barrier.

    The calls are a log: the same calls in the same order give the same points, in any process.
    A study keeps the log, so a resumed run repeats it with ``recall`` in the place of ``ask``.
    """

    def ask(self, number: int) -> dict[str, Value]:
        """Return the point to try next.

        Args:
            number: The caller's number for it; unique, and rising.
        """
        ...

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Repeat an ``ask`` of an earlier process, whose answer was ``point``.

        Raises:
            StudyError: if this proposer would have answered another point.
        """
        ...

    def tell(self, number: int, told: Told) -> None:
        """Report what an asked point gave.

        Raises:
            ValueError: if ``told`` has not as many values as there are objectives.
            RuntimeError: if ``number`` was not asked, or was told before.
        """
        ...

    def should_stop(self) -> str | None:
        """Return why there is nothing left to propose, or None."""
        ...
