"""Search expressions: finding the holes of a recipe and what each of them searches."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from evomerge.documents import Origin, Place
from evomerge.errors import SpaceError, nearest
from evomerge.space.dimensions import Value

__all__ = ["Expression", "find_holes", "parameter_of", "parse_expression"]

_NUMBER_KEYS = ("search", "log", "int", "layers", "name", "when")
_CHOICE_KEYS = ("choice", "name", "when")

When = tuple[tuple[str, tuple[Value, ...]], ...]
"""Pairs of a choice's name and labels of its options."""

Fail = Callable[..., SpaceError]
"""Message and inner place -> the error to raise."""


@dataclass(frozen=True)
class Expression:
    """What one hole searches.

    Attributes:
        kind: As in :class:`evomerge.space.Dimension`.
        low: Smallest number.
        high: Largest number.
        log: Search the logarithm.
        layers: Number of anchors of a gradient over the layers, or None for one value.
        options: The options of a choice, any YAML.
        name: Holes of one name share one value.
        when: Pairs of a choice's name and its labels with which this hole is filled; all of them
            have to hold.
    """

    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    layers: int | None = None
    options: tuple[Any, ...] = ()
    name: str | None = None
    when: When = ()

    @property
    def labels(self) -> tuple[Value, ...]:
        """The options as a study can store them: scalars as they are, the rest as YAML text."""
        return tuple(_label_option(option) for option in self.options)

    def searched(self) -> "Expression":
        """Return what is searched, without where it exists: holes of one name agree in this."""
        return replace(self, when=())

    @property
    def is_constant(self) -> bool:
        """Whether there is only one value that it may have, where it has any."""
        return len(self.options) == 1


def find_holes(data: Any, place: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield every search expression below ``data``, in the order of the file."""
    if isinstance(data, dict):
        if "search" in data or "choice" in data:
            yield place, data
            return
        for key, value in data.items():
            yield from find_holes(value, (*place, str(key)))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from find_holes(value, (*place, index))


def parameter_of(place: Place) -> str | None:
    """Return the merge parameter a place belongs to: the key after ``parameters``."""
    if "parameters" in place[:-1]:
        return str(place[place.index("parameters") + 1])
    return None


def parse_expression(place: Place, data: dict[str, Any], origin: Origin) -> Expression:
    """Check one search expression.

    Raises:
        SpaceError: naming the place, the rule and what was got.
    """

    def fail(message: str, *inner: str | int) -> SpaceError:
        return SpaceError(f"{origin.where(*place, *inner)}: {message}")

    known = _CHOICE_KEYS if "choice" in data else _NUMBER_KEYS
    for key in data:
        if key not in known:
            raise fail(f"unknown key {key!r} in a search expression; {nearest(str(key), known)}")
    name = data.get("name")
    if name is not None and (not isinstance(name, str) or not name):
        raise fail(f"a name is a text, got {name!r}", "name")
    when = _conditions(data["when"], fail) if "when" in data else ()
    if "choice" in data:
        return _choice(data, name, when, fail)
    return _numbers(data, name, when, fail)


def _label_option(option: Any) -> Value:
    if option is None or isinstance(option, str | int | float):
        return option
    return yaml.safe_dump(option, default_flow_style=True, width=10**6).strip()


def _conditions(data: Any, fail: Fail) -> When:
    if not isinstance(data, dict) or not data:
        raise fail(
            "'when' names choices and the options with which this value exists, as in "
            f"{{merge_method: [ties, dare_ties]}}, got {data!r}",
            "when",
        )
    when = []
    for choice, wanted in data.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        when.append((str(choice), tuple(_label_option(value) for value in values)))
    return tuple(when)


def _choice(
    data: dict[str, Any],
    name: str | None,
    when: When,
    fail: Fail,
) -> Expression:
    options = data["choice"]
    fewest = 1 if when else 2
    if not isinstance(options, list) or len(options) < fewest:
        raise fail(f"a choice is a list of at least two options, got {options!r}", "choice")
    expression = Expression(kind="choice", options=tuple(options), name=name, when=when)
    if len({str(label) for label in expression.labels}) < len(options):
        raise fail("the options of a choice differ from each other", "choice")
    return expression


def _numbers(
    data: dict[str, Any],
    name: str | None,
    when: When,
    fail: Fail,
) -> Expression:
    low, high = _range(data["search"], fail)
    integer, log, layers = data.get("int", False), data.get("log", False), data.get("layers")
    for key, flag in (("int", integer), ("log", log)):
        if not isinstance(flag, bool):
            raise fail(f"{key!r} is true or false, got {flag!r}", key)
    if log and low <= 0:
        raise fail(f"a range with 'log: true' starts above 0, got [{low:g}, {high:g}]", "search")
    if integer and (low != int(low) or high != int(high)):
        raise fail(f"a range with 'int: true' has whole ends, got [{low:g}, {high:g}]", "search")
    if layers is not None and (isinstance(layers, bool) or not isinstance(layers, int)):
        raise fail(f"'layers' is the number of anchors of a gradient, got {layers!r}", "layers")
    if layers is not None and layers < 2:
        raise fail(f"a gradient has at least 2 anchors, got layers: {layers}", "layers")
    kind: Literal["float", "int"] = "int" if integer else "float"
    return Expression(kind=kind, low=low, high=high, log=log, layers=layers, name=name, when=when)


def _range(data: Any, fail: Fail) -> tuple[float, float]:
    rule = "a search range is [low, high] with low below high"
    numbers = isinstance(data, list) and all(
        isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end)
        for end in data
    )
    if not numbers or len(data) != 2:
        raise fail(f"{rule}, got {data!r}", "search")
    low, high = float(data[0]), float(data[1])
    if low >= high:
        raise fail(f"{rule}, got [{data[0]}, {data[1]}]; turn it round?", "search")
    return low, high
