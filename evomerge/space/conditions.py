"""Where a hole exists: under which merge methods, and under which options that the file names.

A parameter that only some of the methods of a choice have exists with those. What a hole's ``when``
asks for is added to that. Both become a :class:`Condition` of the hole and of its dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.documents import Origin, Place
from evomerge.errors import SpaceError, nearest
from evomerge.methods import IGNORED_PARAMETERS, METHODS, MethodSpec, parameter_names
from evomerge.space.dimensions import Condition, Value
from evomerge.space.expressions import Expression, parameter_of

__all__ = ["METHOD_PLACE", "Methods", "Wanted", "as_condition", "either", "wanted_by"]

METHOD_PLACE: Place = ("merge_method",)

Wanted = Mapping[str, tuple[Value, ...]]
"""Name of a choice -> its labels of which one has to be chosen; all choices have to agree."""


@dataclass(frozen=True)
class Methods:
    """The merge methods of a space.

    Attributes:
        names: One, or the options of a choice; all known.
        choice: The name of that choice's dimension, or None.
        also: Parameters that are read beside those of the methods.
    """

    names: tuple[str, ...]
    choice: str | None
    also: tuple[str, ...] = ()

    def specs(self) -> tuple[MethodSpec, ...]:
        """Return the rows of the method table."""
        return tuple(METHODS[name] for name in self.names)

    def having(self, parameter: str) -> tuple[str, ...]:
        """Return the methods that have a parameter."""
        return tuple(spec.name for spec in self.specs() if spec.parameter(parameter) is not None)


def wanted_by(
    place: Place,
    expression: Expression,
    *,
    methods: Methods,
    choices: Mapping[str, Expression],
    origin: Origin,
) -> Wanted:
    """Return with which options a hole exists, and check its range against those methods.

    Args:
        place: Where the hole is in the recipe.
        expression: What it searches.
        methods: The methods of the space.
        choices: Name -> expression of every choice that has a dimension.
        origin: Of the recipe, for messages.

    Raises:
        SpaceError: if `when` names what there is not, no method has the parameter, or a method
            that has it does not allow the range.
    """
    wanted = _explicit(place, expression, choices, origin)
    parameter = parameter_of(place)
    if parameter is None or parameter in methods.also or not methods.names:
        return wanted
    having = methods.having(parameter)
    if not having:
        _refuse_without_effect(place, parameter, methods, origin)
        return wanted
    if methods.choice is not None:
        allowed = wanted.get(methods.choice, methods.names)
        having = tuple(name for name in having if name in allowed)
        if not having:
            others = ", ".join(methods.having(parameter))
            raise SpaceError(
                f"{origin.where(*place, 'when')}: {', '.join(map(str, allowed))} has no parameter "
                f"{parameter!r} (methods with it here: {others})"
            )
        if having != methods.names:
            wanted = {methods.choice: having, **_without(wanted, methods.choice)}
    _check_range(place, expression, parameter, having, origin)
    return wanted


def either(wants: Sequence[Wanted]) -> Wanted:
    """Return what holds wherever one of several holds: for a dimension that holes share."""
    first, *others = wants
    return {
        choice: tuple(dict.fromkeys(value for each in wants for value in each[choice]))
        for choice in first
        if all(choice in each for each in others)
    }


def as_condition(wanted: Wanted) -> Condition | None:
    """Return the condition that all of it holds; None if nothing is wanted."""
    condition: Condition | None = None
    for choice, values in reversed(list(wanted.items())):
        condition = Condition(choice, values, condition)
    return condition


def _without(wanted: Wanted, choice: str) -> Wanted:
    return {other: values for other, values in wanted.items() if other != choice}


def _explicit(
    place: Place, expression: Expression, choices: Mapping[str, Expression], origin: Origin
) -> Wanted:
    for choice, values in expression.when:
        where = origin.where(*place, "when", choice)
        if choice not in choices:
            known = f"; {nearest(choice, choices)}" if choices else ", and this space has none"
            raise SpaceError(f"{where}: 'when' names a choice of this space, got {choice!r}{known}")
        labels = choices[choice].labels
        for value in values:
            if value not in labels:
                raise SpaceError(
                    f"{where}: {value!r} is no option of {choice!r}; "
                    f"{nearest(str(value), [str(label) for label in labels])}"
                )
    return dict(expression.when)


def _refuse_without_effect(place: Place, parameter: str, methods: Methods, origin: Origin) -> None:
    """Refuse a searched parameter that no method here reads; misspelt ones are refused later."""
    if parameter in IGNORED_PARAMETERS:
        why = f"{parameter!r} has no effect: {IGNORED_PARAMETERS[parameter]}"
    elif parameter in parameter_names():
        having = ", ".join(row.name for row in METHODS.values() if row.parameter(parameter))
        names = ", ".join(methods.names)
        lack = f"none of {names} has the" if len(methods.names) > 1 else f"{names} has no"
        why = f"{lack} parameter {parameter!r} (methods with it: {having})"
    else:
        return
    raise SpaceError(f"{origin.where(*place)}: nothing to search here: {why}")


def _check_range(
    place: Place,
    expression: Expression,
    parameter: str,
    methods: Sequence[str],
    origin: Origin,
) -> None:
    if expression.kind == "choice":
        return
    low, high = expression.low, expression.high
    where = origin.where(*place, "search")
    for name in methods:
        spec = METHODS[name].parameter(parameter)
        if spec is None:
            continue
        of = f" for {name}" if len(methods) > 1 else ""
        if spec.low is not None and low < spec.low:
            raise SpaceError(
                f"{where}: {parameter!r} is at least {spec.low:g}{of}, the range starts at {low:g}"
            )
        if spec.high is not None and high > spec.high:
            raise SpaceError(
                f"{where}: {parameter!r} is at most {spec.high:g}{of}, the range ends at {high:g}"
            )
