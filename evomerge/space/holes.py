"""The holes of a recipe: where they are, what they search, when they exist, how they are filled."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.documents import Origin, Place, show_place
from evomerge.errors import SpaceError, nearest
from evomerge.methods import METHODS, parameter_names
from evomerge.space.conditions import METHOD_PLACE, Methods, as_condition, either, wanted_by
from evomerge.space.dimensions import Condition, Dimension, Point, Value
from evomerge.space.expressions import Expression, find_holes, parameter_of, parse_expression

__all__ = ["Hole", "Holes", "fill", "owner_of", "read_holes"]

Parsed = tuple[Place, Expression]


@dataclass(frozen=True)
class Hole:
    """One place of the recipe that the search fills.

    Attributes:
        place: Where it is, inside the recipe.
        expression: What it searches.
        dimensions: Names of its dimensions: one, or one for each anchor of a gradient; none if its
            only question is whether it exists.
        condition: Where it exists; elsewhere its place is left out of the recipe.
    """

    place: Place
    expression: Expression
    dimensions: tuple[str, ...]
    condition: Condition | None = None

    @property
    def parameter(self) -> str | None:
        """The merge parameter that it sets, if it is one."""
        return parameter_of(self.place)

    def exists(self, point: Point) -> bool:
        """Return whether it exists at a point that has only the dimensions that exist."""
        return self.condition is None or self.condition.holds(point)

    def value(self, point: Point) -> Any:
        """Return what fills it at a point where it exists."""
        if self.expression.is_constant:
            return _copy(self.expression.options[0])
        values: list[Value] = [point[name] for name in self.dimensions]
        if self.expression.kind == "choice":
            label = self.expression.labels.index(values[0])
            return _copy(self.expression.options[label])
        return values if self.expression.layers else values[0]


@dataclass(frozen=True)
class Holes:
    """All holes of a recipe.

    Attributes:
        holes: In the order of the file.
        dimensions: Of all holes, each once; a choice stands before what it decides about.
        methods: The merge methods that may fill `merge_method`.
        groups: Name or label of each expression -> its dimensions.
    """

    holes: tuple[Hole, ...]
    dimensions: tuple[Dimension, ...]
    methods: Methods
    groups: Mapping[str, tuple[str, ...]]


def read_holes(recipe: Any, origin: Origin, *, also: tuple[str, ...] = ()) -> Holes:
    """Find and check the holes of a recipe.

    Args:
        recipe: The recipe as plain data.
        origin: Where it came from, for messages.
        also: Parameters that are read beside those of its methods.

    Raises:
        SpaceError: naming the place of what is wrong.
    """
    parsed = [(place, parse_expression(place, data, origin)) for place, data in find_holes(recipe)]
    for place, expression in parsed:
        for option in expression.options:
            if any(find_holes(option)):
                raise SpaceError(
                    f"{origin.where(*place)}: an option of a choice holds another search "
                    "expression; give the inner value a place of its own, with 'when' if it exists "
                    "with this option only"
                )
    labels = _labels(recipe, parsed)
    _check_shared(parsed, labels, origin)
    choices = {
        label: expression
        for label, (_, expression) in zip(labels, parsed, strict=True)
        if expression.kind == "choice" and not expression.is_constant
    }
    places = dict(zip((place for place, _ in parsed), labels, strict=True))
    methods = replace(_methods(recipe, places), also=also)
    _check_methods(methods, origin)
    wants = [
        wanted_by(place, expression, methods=methods, choices=choices, origin=origin)
        for place, expression in parsed
    ]
    holes: list[Hole] = []
    dimensions: dict[str, Dimension] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for label, (place, expression), wanted in zip(labels, parsed, wants, strict=True):
        names = _dimension_names(label, expression)
        holes.append(Hole(place, expression, names, as_condition(wanted)))
        groups[label] = names
        shared = [each for other, each in zip(labels, wants, strict=True) if other == label]
        for name in names:
            dimensions[name] = Dimension(
                name=name,
                kind=expression.kind,
                low=expression.low,
                high=expression.high,
                log=expression.log,
                choices=expression.labels,
                condition=as_condition(either(shared)),
            )
    return Holes(tuple(holes), _in_order(tuple(dimensions.values()), origin), methods, groups)


def fill(recipe: Mapping[str, Any], holes: Holes, point: Point) -> dict[str, Any]:
    """Return the recipe's data with its holes filled.

    Holes that do not exist at the point are left out, with the entries and lists that they leave
    empty. Where the method is a choice, so are the parameters that the chosen one does not have.

    Args:
        recipe: The recipe with its holes; it is not changed.
        holes: Those holes.
        point: Values of the dimensions that exist there, and no others.
    """
    data: dict[str, Any] = _copy(recipe)
    # From the end: leaving out an element of a list moves only what is behind it.
    for hole in reversed(holes.holes):
        if hole.exists(point):
            _at(data, hole.place[:-1])[hole.place[-1]] = hole.value(point)
        else:
            _leave_out(data, hole.place)
    if holes.methods.choice is not None:
        spec = METHODS.get(str(data.get("merge_method")))
        if spec is not None:
            own = {parameter.name for parameter in spec.parameters}
            _drop_parameters(data, set(parameter_names()) - own)
    return data


def _labels(recipe: Any, parsed: Sequence[Parsed]) -> list[str]:
    """Return what each hole is called: its name, else a readable label, else its place."""
    labels = [expression.name or _label(recipe, place) for place, expression in parsed]
    unnamed = [label for label, (_, exp) in zip(labels, parsed, strict=True) if not exp.name]
    taken = {expression.name for _, expression in parsed}
    return [
        label
        if expression.name or (unnamed.count(label) == 1 and label not in taken)
        else show_place(place)
        for label, (place, expression) in zip(labels, parsed, strict=True)
    ]


def _check_shared(parsed: Sequence[Parsed], labels: Sequence[str], origin: Origin) -> None:
    owners: dict[str, Parsed] = {}
    for label, (place, expression) in zip(labels, parsed, strict=True):
        first_place, first = owners.setdefault(label, (place, expression))
        if first.searched() != expression.searched():
            raise SpaceError(
                f"{origin.where(*place)}: the name {label!r} is shared with "
                f"{show_place(first_place)}, so both give the same search expression"
            )


def _methods(recipe: Any, labels: Mapping[Place, str]) -> Methods:
    data = recipe.get("merge_method") if isinstance(recipe, dict) else None
    if METHOD_PLACE in labels and isinstance(data, dict) and "choice" in data:
        names = tuple(str(option) for option in data["choice"])
        return Methods(names, labels[METHOD_PLACE] if len(names) > 1 else None)
    return Methods((data,) if isinstance(data, str) else (), None)


def _check_methods(methods: Methods, origin: Origin) -> None:
    for index, name in enumerate(methods.names):
        if name not in METHODS:
            inner = ("choice", index) if methods.choice else ()
            raise SpaceError(
                f"{origin.where(*METHOD_PLACE, *inner)}: unknown merge method {name!r}; "
                f"{nearest(name, METHODS)}"
            )


def _dimension_names(label: str, expression: Expression) -> tuple[str, ...]:
    if expression.is_constant:
        return ()
    if expression.layers:
        return tuple(f"{label}[{anchor}]" for anchor in range(expression.layers))
    return (label,)


def _in_order(dimensions: tuple[Dimension, ...], origin: Origin) -> tuple[Dimension, ...]:
    """Return the dimensions as they stand in the file, each choice before what depends on it."""
    ordered: dict[str, Dimension] = {}
    left = list(dimensions)
    while left:
        ready = next(
            (each for each in left if each.condition is None or _known(each.condition, ordered)),
            None,
        )
        if ready is None:
            names = ", ".join(repr(each.name) for each in left)
            raise SpaceError(
                f"{origin.where()}: the conditions of {names} go round in a circle: one of these "
                "choices has to exist without the others"
            )
        left.remove(ready)
        ordered[ready.name] = ready
    return tuple(ordered.values())


def _known(condition: Condition, ordered: Mapping[str, Dimension]) -> bool:
    return all(choice in ordered for choice in condition.choices())


def _label(recipe: Any, place: Place) -> str:
    """Return a short readable name: module, slice, model, parameter, filter where there are any."""
    parameter = parameter_of(place)
    if parameter is None:
        return show_place(place)
    parts: list[str] = []
    node = recipe
    filter_name = None
    for key in place:
        if isinstance(node, dict) and isinstance(node.get("model"), str):
            parts.append(Path(node["model"]).name)
        if isinstance(node, dict) and isinstance(node.get("filter"), str):
            filter_name = node["filter"]
        node = node[key]
    parts = [*_sections(recipe, place), *parts, parameter]
    if filter_name:
        parts.append(filter_name)
    elif isinstance(place[-1], int):
        parts[-1] += f"[{place[-1]}]"
    return ".".join(parts)


def _sections(recipe: Any, place: Place) -> list[str]:
    """Return the module, where there are several, and the slice that a place is in."""
    found = []
    if place[0] == "modules":
        if len(recipe["modules"]) > 1:
            found.append(str(place[1]))
        place = place[2:]
    if place[0] == "slices":
        found.append(f"slice{place[1]}")
    return found


def _copy(data: Any) -> Any:
    """Return a copy in which what a YAML alias names stands for itself at each place."""
    if isinstance(data, Mapping):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data


def _at(data: Any, place: Iterable[str | int]) -> Any:
    for key in place:
        data = data[key]
    return data


def _leave_out(data: Any, place: Place) -> None:
    """Remove a place, the filter entry whose value it is, and what this leaves empty."""
    holder = _at(data, place[:-1])
    del holder[place[-1]]
    if len(place) > 1 and (not holder or (place[-1] == "value" and set(holder) <= {"filter"})):
        _leave_out(data, place[:-1])


def _drop_parameters(data: Any, names: set[str]) -> None:
    """Remove parameters of these names from every `parameters` mapping."""
    if isinstance(data, dict):
        parameters = data.get("parameters")
        if isinstance(parameters, dict):
            for name in [name for name in parameters if name in names]:
                del parameters[name]
        for value in data.values():
            _drop_parameters(value, names)
    elif isinstance(data, list):
        for value in data:
            _drop_parameters(value, names)


def owner_of(recipe: object, hole: Hole) -> str | None:
    """Return the model whose own parameter a hole is."""
    node = recipe
    owner = None
    for key in hole.place:
        if isinstance(node, dict):
            model = node.get("model")
            owner = model if isinstance(model, str) else owner
            node = node.get(str(key))
        elif isinstance(node, list) and isinstance(key, int):
            node = node[key]
    return owner
