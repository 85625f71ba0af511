"""A space in which groups of numbers move together from a start."""

import math
from collections.abc import Mapping, Sequence

from evomerge.proposers.base import UnitSpace
from evomerge.proposers.plain_space import PlainSpace
from evomerge.proposers.points import active
from evomerge.space import Dimension, Value

__all__ = ["TiedSpace"]

_STEPS = 4096
_MIDDLE = 0.5
_FUZZ = 1e-6


class TiedSpace:
    """A view of a space, one whole number a group.

    The number is a shift of the group from the start, in parts of 4096 of the unit interval; each
    member stops at the end of its range. It goes as far as the last member can. At 0 the point is
    the start itself. What is in no group stays as it is.

    Shifts are whole numbers so that one is found again exactly in the point that it gave: a resumed
    run has nothing else.

    Args:
        space: The space.
        groups: Names of numbers that exist together.
        start: A point of the space. Members that do not exist there are in their middle.

    Raises:
        ValueError: if a group has a choice or a whole number, its members do not exist together, or
            a name is unknown or in two groups.
    """

    def __init__(
        self,
        space: UnitSpace,
        groups: Sequence[Sequence[str]],
        start: Mapping[str, Value],
    ) -> None:
        self._whole = space.dimensions
        self._start = dict(start)
        by_name = {dimension.name: dimension for dimension in self._whole}
        self._units: dict[str, float] = {}
        self._members: dict[str, tuple[Dimension, ...]] = {}
        self._tie_of: dict[str, str] = {}
        ties: dict[str, Dimension] = {}
        for names in groups:
            members = _checked(names, by_name, self._tie_of)
            tie = self._tie(members)
            ties[members[0].name] = tie
            self._members[tie.name] = members
            self._tie_of |= {member.name: tie.name for member in members}
        self._groups = _groups(getattr(space, "groups", ()), self._tie_of)
        self._plain = PlainSpace(
            *(
                ties.get(dimension.name, dimension)
                for dimension in space.dimensions
                if dimension.name in ties or dimension.name not in self._tie_of
            )
        )

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The shifts, and what is in no group; each where its first member is."""
        return self._plain.dimensions

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The groups of the whole space, in the names of this one."""
        return self._groups

    def from_unit(self, vector: Sequence[float], /) -> dict[str, Value]:
        """Return the point of this space at a vector of its unit cube."""
        return self._plain.from_unit(vector)

    def to_unit(self, point: Mapping[str, Value], /) -> list[float]:
        """Return the vector of a point of this space."""
        return self._plain.to_unit(point)

    def expand(self, tied: Mapping[str, Value]) -> dict[str, Value]:
        """Return the point of the whole space for one of this."""
        values: dict[str, Value] = {}
        for dimension in self._whole:
            name = dimension.name
            tie = self._tie_of.get(name)
            if (tie or name) not in tied:
                continue
            value = tied[tie or name]
            if tie is None:
                values[name] = value
            elif value == 0 and name in self._start:
                values[name] = self._start[name]
            elif isinstance(value, int):
                values[name] = dimension.from_unit(self._units[name] + value / _STEPS)
            else:
                raise TypeError(f"the shift of {tie!r} is a whole number, got {value!r}")
        return active(self._whole, values)

    def contract(self, point: Mapping[str, Value]) -> dict[str, Value]:
        """Return the point of this space that a point of the whole space comes from, or is near.

        ``contract(expand(tied)) == tied``, exactly.
        """
        tied: dict[str, Value] = {}
        for dimension in self.dimensions:
            name = dimension.name
            members = self._members.get(name)
            if members is not None and members[0].name in point:
                tied[name] = self._shift(dimension, members, point)
            elif members is None and name in point:
                tied[name] = point[name]
        return tied

    def holds(self, point: Mapping[str, Value]) -> bool:
        """Return whether a point of the whole space is one of this, but for less than a step."""
        again = self.expand(self.contract(point))
        return again.keys() == point.keys() and all(
            _near(dimension, again[dimension.name], point[dimension.name])
            for dimension in self._whole
            if dimension.name in again
        )

    def _tie(self, members: Sequence[Dimension]) -> Dimension:
        """Return the dimension of a group's shift, and note where the members start."""
        for each in members:
            at_start = each.name in self._start
            self._units[each.name] = each.to_unit(self._start[each.name]) if at_start else _MIDDLE
        units = [self._units[each.name] for each in members]
        return Dimension(
            name=f"{members[0].name} and {len(members) - 1} more",
            kind="int",
            low=-_ceil(max(units) * _STEPS),
            high=_ceil((1.0 - min(units)) * _STEPS),
            condition=members[0].condition,
        )

    def _shift(
        self, tie: Dimension, members: Sequence[Dimension], point: Mapping[str, Value]
    ) -> int:
        units = [each.to_unit(point[each.name]) for each in members]
        if min(units) >= 1.0:
            return int(tie.high)
        if max(units) <= 0.0:
            return int(tie.low)
        # The member that moved farthest did not stop at an end: the others may have.
        moved = [unit - self._units[each.name] for each, unit in zip(members, units, strict=True)]
        return round(max(moved, key=abs) * _STEPS)


def _checked(
    names: Sequence[str], by_name: Mapping[str, Dimension], taken: Mapping[str, str]
) -> tuple[Dimension, ...]:
    """Return the members of a group."""
    for name in names:
        if name not in by_name or name in taken or by_name[name].kind != "float":
            raise ValueError(
                f"a group has numbers of the space that are in no other group, got {name!r}"
            )
    members = tuple(by_name[name] for name in names)
    if any(each.condition != members[0].condition for each in members):
        raise ValueError(f"the members of a group exist together; {', '.join(names)} do not")
    return members


def _groups(
    groups: Sequence[Sequence[str]], tie_of: Mapping[str, str]
) -> tuple[tuple[str, ...], ...]:
    tied = [tuple(dict.fromkeys(tie_of.get(name, name) for name in names)) for names in groups]
    return tuple(names for names in tied if len(names) > 1)


def _ceil(steps: float) -> int:
    """Round up, but not for what rounding errors added."""
    return math.ceil(steps - _FUZZ)


def _near(dimension: Dimension, one: Value, other: Value) -> bool:
    if dimension.kind != "float":
        return one == other
    return abs(dimension.to_unit(one) - dimension.to_unit(other)) < 1.0 / _STEPS
