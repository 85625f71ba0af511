"""Recipes that a search starts from, and the points of a space that come nearest to them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.checkpoints import locate_models, model_places
from evomerge.documents import Origin, Place, read_yaml
from evomerge.errors import EvomergeError, RecipeError, SpaceError, nearest
from evomerge.recipe import parse_recipe
from evomerge.space.anchors import usual_point
from evomerge.space.dimensions import Dimension, Value
from evomerge.space.holes import Hole
from evomerge.space.space import Space

__all__ = ["nearest_point", "with_starts"]

_MISSING = object()


def with_starts(space: Space, entries: Sequence[str | Mapping[str, Any]] | None = None) -> Space:
    """Return a space whose ``start`` holds recipes as plain data.

    Args:
        space: The space.
        entries: Paths of recipe files, recipes, or ``{name, recipe}``; by default the space's own.

    Raises:
        SpaceError: naming the entry, if it is no recipe of the space's models.
    """
    wanted = space.document.start if entries is None else [*space.document.start, *entries]
    found = [_read(each, place, space) for place, each in enumerate(wanted)]
    names = [each["name"] for each in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        where = space.origin.where("start")
        raise SpaceError(f"{where}: two starts are named {twice[0]!r}; give each its own 'name:'")
    return space.with_document(start=found)


def _read(entry: str | Mapping[str, Any], place: int, space: Space) -> dict[str, Any]:
    where = space.origin.where("start", place)
    name = f"start {place + 1}"
    if isinstance(entry, str):
        beside = space.origin.folder / entry
        path = beside if beside.exists() and not Path(entry).exists() else Path(entry)
        data, origin = read_yaml(path, RecipeError)
        name = path.parent.name if path.name == "best.yml" else path.stem
        recipe = locate_models(data, origin.folder) if isinstance(data, dict) else data
    else:
        recipe = entry.get("recipe", entry)
        name = str(entry.get("name", name)) if "recipe" in entry else name
        origin = Origin(where)
        recipe = locate_models(recipe, space.origin.folder) if isinstance(recipe, dict) else recipe
    if not isinstance(recipe, dict) or "merge_method" not in recipe:
        raise SpaceError(f"{where}: a start is a recipe with a 'merge_method', or the path of one")
    recipe = _same_names(recipe, space.model_names())
    parsed = parse_recipe(recipe, origin)
    for model in parsed.model_names():
        if model not in space.model_names():
            raise SpaceError(
                f"{where}: the recipe merges {model!r}, which is no model of this space; "
                f"{nearest(model, space.model_names())}"
            )
    return {"name": name, "recipe": recipe}


def _same_names(recipe: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the recipe with models named as the space names them."""
    places = {Path(name).resolve(): name for name in names if Path(name).exists()}
    for place, model in list(model_places(recipe)):
        known = places.get(Path(model).resolve())
        if known is not None:
            node: Any = recipe
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = known
    return recipe


def nearest_point(space: Space, recipe: Mapping[str, Any]) -> tuple[dict[str, Value], bool]:
    """Return the point that comes nearest to a recipe, and whether it is that recipe.

    Args:
        space: The space.
        recipe: A recipe as plain data, with models named as in the space.
    """
    point: dict[str, Value] = dict(usual_point(space))
    by_name = {dimension.name: dimension for dimension in space.dimensions}
    for hole in space.holes:
        value = _look_up(recipe, space.document.recipe, hole.place)
        if value is _MISSING:
            if hole.parameter != "weight":
                continue
            value = 0.0  # a model that the recipe leaves out
        point |= _values(hole, value, by_name)
    try:
        settled = space.settle(point)
        same = _plain(space.decode(settled).to_dict()) == _plain(
            parse_recipe(dict(recipe)).to_dict()
        )
    except EvomergeError:
        return dict(usual_point(space)), False
    return settled, same


def _look_up(recipe: Any, template: Any, place: Place) -> Any:
    """Return what a recipe has where the space has a hole; models and filters go by name."""
    node, known = recipe, template
    for key in place:
        known = known[key]
        if isinstance(key, str):
            if isinstance(node, int | float):
                return node  # one value for all that the space tells apart
            if not isinstance(node, dict) or key not in node:
                return _MISSING
            node = node[key]
            continue
        if isinstance(node, int | float):
            return node
        if not isinstance(node, list):
            return _MISSING
        node = _entry(node, known, key)
        if node is _MISSING:
            return _MISSING
    return node


def _entry(nodes: list[Any], known: Any, index: int) -> Any:
    for mark in ("model", "filter"):
        if isinstance(known, dict) and isinstance(known.get(mark), str):
            matches = [n for n in nodes if isinstance(n, dict) and n.get(mark) == known[mark]]
            return matches[0] if matches else _MISSING
    return nodes[index] if index < len(nodes) else _MISSING


def _values(hole: Hole, value: Any, dimensions: Mapping[str, Dimension]) -> dict[str, Value]:
    if hole.expression.kind == "choice":
        if value in hole.expression.options:
            label = hole.expression.labels[hole.expression.options.index(value)]
            return {hole.dimensions[0]: label} if hole.dimensions else {}
        return {}
    given = value if isinstance(value, list) else [value]
    if not all(isinstance(each, int | float) for each in given):
        return {}
    count = len(hole.dimensions)
    spread = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(given)), given)
    pairs = zip(hole.dimensions, spread.tolist(), strict=True)
    return {name: dimensions[name].clip(each) for name, each in pairs}


def _plain(value: Any) -> Any:
    """Return data in which numbers that differ by rounding are the same."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return round(float(value), 12)
    return value
