"""Every option of every choice, tried once: what cannot work is said before anything is scored."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from evomerge.documents import Origin
from evomerge.errors import RecipeError, SpaceError
from evomerge.space.conditions import METHOD_PLACE
from evomerge.space.dimensions import Condition, Dimension, Point, Value
from evomerge.space.holes import Holes

__all__ = ["OptionPoint", "check_options", "option_points"]

Decode = Callable[[Point], object]


@dataclass(frozen=True)
class OptionPoint:
    """A point with one option of one choice, everything else in the middle of its range.

    Attributes:
        choice: Name of the choice's dimension.
        option: The option's label.
        point: The point.
    """

    choice: str
    option: Value
    point: dict[str, Value]


def option_points(holes: Holes) -> Iterator[OptionPoint]:
    """Yield a point for each option of each choice."""
    by_name = {dimension.name: dimension for dimension in holes.dimensions}
    for dimension in holes.dimensions:
        needed = _needed(dimension.condition, by_name)
        for option in dimension.choices:
            point = _middle(holes, {**needed, dimension.name: option})
            if point.get(dimension.name) == option:
                yield OptionPoint(dimension.name, option, point)


def check_options(holes: Holes, decode: Decode, origin: Origin) -> None:
    """Decode a point for each merge method.

    A method is refused if nothing that was tried works with it: the first option of the other
    choices, and each other option once.

    Args:
        holes: The holes of the space.
        decode: From a point to a recipe.
        origin: Of the recipe, for messages.

    Raises:
        SpaceError: naming the merge methods of a choice that cannot work, each with the reason.
        RecipeError: if the recipe breaks a rule whatever the search fills in.
    """
    choice = holes.methods.choice
    if choice is None:
        decode(_middle(holes, {}))
        return
    refused: dict[str, RecipeError] = {}
    for name in holes.methods.names:
        error = _error(holes, {choice: name}, decode)
        if error is not None and all(
            _error(holes, {choice: name, each.choice: each.option}, decode)
            for each in option_points(holes)
            if each.choice != choice
        ):
            refused[name] = error
    if not refused:
        return
    if len(refused) == len(holes.methods.names) and len({str(e) for e in refused.values()}) == 1:
        raise next(iter(refused.values()))
    lines = [
        f"{origin.where(*METHOD_PLACE, 'choice', holes.methods.names.index(name))}: {name} cannot "
        f"be one of the methods here: {error}"
        for name, error in refused.items()
    ]
    raise SpaceError(
        "\n".join(lines) + "\ntake it out of the choice, or give what the others need a 'when'"
    )


def _error(holes: Holes, fixed: Mapping[str, Value], decode: Decode) -> RecipeError | None:
    try:
        decode(_middle(holes, fixed))
    except RecipeError as error:
        return error
    return None


def _needed(condition: Condition | None, by_name: Mapping[str, Dimension]) -> dict[str, Value]:
    """Return options with which a condition holds."""
    needed: dict[str, Value] = {}
    while condition is not None:
        needed |= _needed(by_name[condition.choice].condition, by_name)
        needed[condition.choice] = condition.values[0]
        condition = condition.also
    return needed


def _middle(holes: Holes, fixed: Mapping[str, Value]) -> dict[str, Value]:
    """Return a point in the middle of all ranges, with the first options, but for what is fixed."""
    point: dict[str, Value] = {}
    for dimension in holes.dimensions:
        if dimension.exists(point):
            middle = dimension.choices[0] if dimension.choices else dimension.from_unit(0.5)
            point[dimension.name] = fixed.get(dimension.name, middle)
    return point
