"""Baselines: recipes nobody proposed, which every candidate is measured against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.methods import METHODS
from evomerge.search.records import Kind
from evomerge.space import Point, Space, mixture_point, usual_point

__all__ = ["Baseline", "baselines", "find_models", "parent_recipe"]

_CARRIED = ("dtype", "out_dtype", "tokenizer_source", "tokenizer", "chat_template")


@dataclass(frozen=True)
class Baseline:
    """A recipe to measure against.

    Attributes:
        kind: What it is.
        name: A model's name, or ``average`` or ``default``.
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
    base = space.document.recipe.get("base_model")
    if not isinstance(base, str):
        return names, None
    method = space.document.recipe.get("merge_method")
    methods = method.get("choice", []) if isinstance(method, dict) else [method]
    specs = [METHODS[str(name)] for name in methods if str(name) in METHODS]
    if all(spec.base_is_source for spec in specs):
        return names, None
    return tuple(name for name in names if name != base), base


def baselines(space: Space) -> tuple[Baseline, ...]:
    """Return every parent, the base, the uniform average and the method's usual values."""
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
    usual = usual_point(space)
    recipe = space.decode(usual).to_dict()
    found.append(Baseline("default", "default", recipe, usual, usual))
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
    if carried.get("tokenizer_source") == "base" and isinstance(recipe.get("base_model"), str):
        # A baseline names no base model: linear would average it in.
        carried["tokenizer_source"] = recipe["base_model"]
    return {
        key: value
        for key, value in carried.items()
        if not (isinstance(value, dict) and ("choice" in value or "search" in value))
    }
