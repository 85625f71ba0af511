"""Coarse to fine: which dimensions move together at which level, and the key ``search.stages``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from evomerge.documents import show_place
from evomerge.errors import nearest
from evomerge.space.dimensions import Condition, Dimension
from evomerge.space.holes import Hole

__all__ = ["LEVELS", "Level", "StageSettings", "stage_groups"]

Level = Literal["model", "filter", "layer"]
"""How fine a stage is.

``model``: one value for each parameter of each model. ``filter``: one for each of its filters, all
layers together. ``layer``: each dimension alone.
"""

LEVELS: tuple[Level, ...] = ("model", "filter", "layer")
"""From coarse to fine."""

_RULE = (
    "stages are auto, false, a list of levels from coarse to fine such as [model, layer], or their "
    "shares of the budget such as {model: 0.3, layer: 0.7}"
)
_TOLERANCE = 1e-6

Key = tuple[str | None, ...]


def _read(value: Any) -> Any:
    if value is True:
        return "auto"
    if value is False or value == "auto":
        return value
    levels = list(value) if isinstance(value, list | tuple | dict) else []
    if not levels:
        raise ValueError(f"{_RULE}; got {value!r}")
    for level in levels:
        if level not in LEVELS:
            raise ValueError(f"{_RULE}; there is no level {level!r}: {nearest(str(level), LEVELS)}")
    if [level for level in LEVELS if level in levels] != levels:
        raise ValueError(f"{_RULE}; got {', '.join(levels)}")
    return value


def _sum_to_one(value: Any) -> Any:
    if isinstance(value, dict) and (
        min(value.values()) <= 0.0 or abs(sum(value.values()) - 1.0) > _TOLERANCE
    ):
        raise ValueError(f"shares of the budget are above 0 and sum to 1, got {value}")
    return value


StageSettings = Annotated[
    Literal["auto", False] | list[Level] | dict[Level, float],
    BeforeValidator(_read),
    AfterValidator(_sum_to_one),
]
"""``auto``, ``False``, levels from coarse to fine, or their shares of the budget."""


def stage_groups(
    recipe: Mapping[str, Any],
    holes: Sequence[Hole],
    dimensions: Sequence[Dimension],
    level: Level,
) -> tuple[tuple[str, ...], ...]:
    """Return the dimensions that move together at a level.

    Numbers of one parameter of one model, or of its filter, that exist under the same condition.
    Choices and whole numbers are alone; so is what is no merge parameter. Slices of a recipe are
    its layers. A dimension that several places share belongs to the first of them.

    Args:
        recipe: The recipe with its holes.
        holes: Those holes.
        dimensions: The space.
        level: See :data:`Level`.

    Returns:
        Groups of two names and more, in the order of the space.
    """
    conditions = {dimension.name: dimension.condition for dimension in dimensions}
    groups: dict[tuple[Key, Condition | None], list[str]] = {}
    seen: set[str] = set()
    for hole in holes if level != "layer" else ():
        if hole.expression.kind != "float" or hole.parameter is None:
            continue
        model, tensors = _sections(recipe, hole)
        key = (model, hole.parameter, *(tensors if level == "filter" else ()))
        for name in hole.dimensions:
            if name not in seen:
                seen.add(name)
                groups.setdefault((key, conditions[name]), []).append(name)
    place = {name: index for index, name in enumerate(conditions)}
    found = [sorted(names, key=place.__getitem__) for names in groups.values() if len(names) > 1]
    return tuple(tuple(names) for names in sorted(found, key=lambda names: place[names[0]]))


def _sections(recipe: Mapping[str, Any], hole: Hole) -> tuple[str | None, Key]:
    """Return the model that a hole is of, and which of its tensors: module and filter."""
    node: Any = recipe
    model: str | None = None
    module = str(hole.place[1]) if hole.place[0] == "modules" else None
    tensors: str | None = None
    for depth, step in enumerate(hole.place):
        if isinstance(node, dict):
            if "model" in node:
                # Where the model itself is searched, its place in the file stands for it.
                named = isinstance(node["model"], str)
                model = node["model"] if named else show_place(hole.place[:depth])
            if isinstance(node.get("filter"), str):
                tensors = node["filter"]
        node = node[step]
    return model, (module, tensors)
