"""What the driver needs from an optimizer."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from evomerge.space import Dimension, Value

__all__ = ["Proposer", "Told", "UnitSpace"]

Told = float | Sequence[float] | None
"""What a trial gave: its objective, one number for each of several, or None if it failed."""


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

    def tell(self, number: int, value: Told) -> None:
        """Report the objective of an asked point, or None for a failed trial.

        Raises:
            ValueError: if ``value`` has not as many numbers as there are objectives.
            RuntimeError: if ``number`` was not asked, or was told before.
        """
        ...

    def should_stop(self) -> str | None:
        """Return why there is nothing left to propose, or None."""
        ...
