"""Baselines: recipes nobody proposed, which every candidate is measured against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.methods import METHODS
from evomerge.recipe import parse_recipe
from evomerge.search.records import Kind
from evomerge.space import Point, Space, mixture_point, nearest_point, usual_point

__all__ = ["Baseline", "baselines", "find_models", "parent_recipe"]

_CARRIED = ("dtype", "out_dtype", "tokenizer_source", "tokenizer", "chat_template")


@dataclass(frozen=True)
class Baseline:
    """A recipe to measure against.

    Attributes:
        kind: What it is.
        name: A model's name, ``average`` or ``default``; where the space has several merge methods,
            ``default METHOD``; or as the space names a start.
        recipe: The recipe as plain data.
        point: Its own point of the space, where it is one.
        start: The point of the space that comes nearest to it.
    """

    kind: Kind
    name: str
    recipe: Mapping[str, Any]
    point: Point | None
    start: Point


def find_models(space: Space) -> tuple[tuple[str, ...], str | None]:
    """Return the parents and the base (None where the base is one of the parents)."""
    names = space.merged_names()
    base = space.base_model()
    if base is None or all(METHODS[name].base_is_source for name in space.methods):
        return names, None
    return tuple(name for name in names if name != base), base


def baselines(space: Space) -> tuple[Baseline, ...]:
    """Return every parent, the base, the uniform average, each method's usual values, starts."""
    parents, base = find_models(space)
    carried = _carried(space)
    found = [
        Baseline(
            "parent", name, parent_recipe(name, carried), None, mixture_point(space, {name: 1.0})
        )
        for name in parents
    ]
    if base is not None:
        start = mixture_point(space, {})
        found.append(Baseline("base", base, parent_recipe(base, carried), None, start))
    if len(parents) > 1:
        shares = dict.fromkeys(parents, 1.0 / len(parents))
        found.append(
            Baseline(
                "average", "average", _average(parents, carried), None, mixture_point(space, shares)
            )
        )
    several = len(space.methods) > 1
    for method in space.methods:
        usual = usual_point(space, method)
        name = f"default {method}" if several else "default"
        found.append(Baseline("default", name, space.decode(usual).to_dict(), usual, usual))
    for each in space.document.start:
        assert isinstance(each, dict)  # noqa: S101 - as `with_starts` leaves them
        start, same = nearest_point(space, each["recipe"])
        recipe = parse_recipe(dict(each["recipe"])).to_dict()
        found.append(Baseline("start", each["name"], recipe, start if same else None, start))
    return tuple(found)


def parent_recipe(name: str, carried: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the recipe of one model alone."""
    return {"merge_method": "passthrough", "models": [{"model": name}], **(carried or {})}


def _average(parents: tuple[str, ...], carried: Mapping[str, Any]) -> dict[str, Any]:
    models = [{"model": name, "parameters": {"weight": 1.0}} for name in parents]
    return {"merge_method": "linear", "models": models, **carried}


def _carried(space: Space) -> dict[str, Any]:
    """Return the recipe's settings of the output that a baseline shares, holes left out."""
    recipe = space.document.recipe
    carried = {key: recipe[key] for key in _CARRIED if key in recipe}
    base = space.base_model()
    if carried.get("tokenizer_source") == "base" and base is not None:
        # A baseline names no base model: linear would average it in.
        carried["tokenizer_source"] = base
    return {
        key: value
        for key, value in carried.items()
        if not (isinstance(value, dict) and ("choice" in value or "search" in value))
    }
