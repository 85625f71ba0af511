"""One searched value: its range, and the way to the unit interval and back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Condition", "Dimension", "Point", "Value"]

Value = float | int | str | bool | None
"""A searched value in its own units, as an Optuna study stores it."""

Point = Mapping[str, Value]
"""Dimension name -> value: one point of a space."""


@dataclass(frozen=True)
class Condition:
    """Where a dimension exists: at points whose choice has one of some values.

    Attributes:
        choice: Name of the dimension that decides; it stands earlier in the space.
        values: Its values with which the other one exists.
        also: A condition on another choice that has to hold too.
    """

    choice: str
    values: tuple[Value, ...]
    also: "Condition | None" = None

    def holds(self, point: Point) -> bool:
        """Return whether it holds at a point; not where the choice itself does not exist."""
        if self.choice not in point or point[self.choice] not in self.values:
            return False
        return self.also is None or self.also.holds(point)

    def __str__(self) -> str:
        """Return it as people write it: ``merge_method ties or della, norm l1``."""
        mine = f"{self.choice} {' or '.join(str(value) for value in self.values)}"
        return mine if self.also is None else f"{mine}, {self.also}"

    def choices(self) -> tuple[str, ...]:
        """Return the names of all dimensions that decide."""
        return (self.choice, *(self.also.choices() if self.also else ()))


@dataclass(frozen=True)
class Dimension:
    """One coordinate of a space.

    Attributes:
        name: Unique in the space; what the study and the dashboard show.
        kind: ``float``, ``int`` (both ends included) or ``choice``.
        low: Smallest value (numbers only).
        high: Largest value (numbers only).
        log: Search the logarithm of the value (numbers only).
        choices: The options, in the order of the file (choices only).
        condition: Where it exists; None means everywhere. Points elsewhere have no value for it.
    """

    name: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Value, ...] = ()
    condition: Condition | None = None

    def exists(self, point: Point) -> bool:
        """Return whether a point has a value for it."""
        return self.condition is None or self.condition.holds(point)

    def from_unit(self, unit: float) -> Value:
        """Return the value at ``unit`` in [0, 1]; outside, the nearer end."""
        unit = min(max(unit, 0.0), 1.0)
        if self.kind == "choice":
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        if self.kind == "int":
            return round(min(max(self._stretch(unit, 0.5), self.low), self.high))
        return float(min(max(self._stretch(unit, 0.0), self.low), self.high))

    def to_unit(self, value: Value) -> float:
        """Return where ``value`` lies in [0, 1]; a choice is at the middle of its part."""
        if self.kind == "choice":
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if not isinstance(value, int | float):
            raise TypeError(f"dimension {self.name!r} wants a number, got {value!r}")
        margin = 0.5 if self.kind == "int" else 0.0
        low, high = self.low - margin, self.high + margin
        value = min(max(float(value), self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - low) / (high - low)

    def clip(self, value: float) -> Value:
        """Return the nearest legal number."""
        value = min(max(value, self.low), self.high)
        return round(value) if self.kind == "int" else float(value)

    def _stretch(self, unit: float, margin: float) -> float:
        if self.log:
            return float(self.low * (self.high / self.low) ** unit)
        low, high = self.low - margin, self.high + margin
        return low + (high - low) * unit
