"""Merges in several stages: recipes of one file that use each other's results as models.

A recipe's `name` stands for its result wherever another one of the file names a model.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.documents import Origin, read_documents
from evomerge.errors import RecipeError
from evomerge.recipe.document import Recipe
from evomerge.recipe.loading import parse_recipe

__all__ = ["Stage", "load_stages", "parse_stages", "results"]

_FOLDER = re.compile(r"[\w+-][\w.+-]*")


@dataclass(frozen=True, slots=True)
class Stage:
    """One recipe of several.

    Attributes:
        recipe: What to merge; the names of other stages stand among its models.
        origin: Where it came from, for messages.
        needs: The stages whose results it uses, by name.
        is_result: Whether no other stage uses it.
    """

    recipe: Recipe
    origin: Origin
    needs: tuple[str, ...]
    is_result: bool

    @property
    def name(self) -> str | None:
        """The recipe's name, if it has one."""
        return self.recipe.name


def load_stages(path: Path) -> tuple[Stage, ...]:
    """Read the recipes of a file in the order in which they can run.

    Raises:
        RecipeError: naming file, line and key of everything that is wrong.
    """
    return parse_stages(read_documents(path, RecipeError))


def parse_stages(documents: Sequence[tuple[Any, Origin]]) -> tuple[Stage, ...]:
    """Turn documents into stages, each after those that it uses.

    Of a single document the name is only a label. Of several, a name goes before a folder or
    repository of the same name.

    Args:
        documents: Plain data, each with its origin.

    Raises:
        RecipeError: if a recipe is wrong, names are missing or taken twice, or recipes use each
            other in a circle.
    """
    recipes = [(parse_recipe(data, origin), origin) for data, origin in documents]
    if len(recipes) == 1:
        return (Stage(*recipes[0], needs=(), is_result=True),)
    named = _check_names(recipes)
    needs = [_needs(recipe, named) for recipe, _ in recipes]
    used = {name for own in needs for name in own}
    stages = [
        Stage(recipe, origin, own, recipe.name not in used)
        for (recipe, origin), own in zip(recipes, needs, strict=True)
    ]
    ordered = _in_order(stages)
    _check_results(stages)
    return ordered


def results(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages that no other uses."""
    return tuple(stage for stage in stages if stage.is_result)


def _check_names(recipes: Sequence[tuple[Recipe, Origin]]) -> dict[str, Origin]:
    named: dict[str, Origin] = {}
    for recipe, origin in recipes:
        if recipe.name is None:
            continue
        if recipe.name in named:
            raise RecipeError(
                f"{origin.where('name')}: the name {recipe.name!r} is taken already, at "
                f"{named[recipe.name].where('name')}; each recipe of a file has its own"
            )
        if recipe.name in ("", "base", "union") or "+" in recipe.name:
            raise RecipeError(
                f"{origin.where('name')}: {recipe.name!r} cannot be a stage's name: it means "
                "something else where models are named; choose another"
            )
        named[recipe.name] = origin
    return named


def _needs(recipe: Recipe, named: dict[str, Origin]) -> tuple[str, ...]:
    """Return the stages among a recipe's models; an adapter may follow one, `stage+adapter`."""
    found = (part for model in recipe.model_names() for part in (model, model.partition("+")[0]))
    return tuple(dict.fromkeys(part for part in found if part in named))


def _in_order(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages, each after those it needs, else as they stand in the file."""
    ordered: list[Stage] = []
    done: set[str] = set()
    left = list(stages)
    while left:
        ready = next((stage for stage in left if done.issuperset(stage.needs)), None)
        if ready is None:
            raise _circle(left, done)
        left.remove(ready)
        ordered.append(ready)
        if ready.name is not None:
            done.add(ready.name)
    return tuple(ordered)


def _circle(left: Sequence[Stage], done: set[str]) -> RecipeError:
    by_name = {stage.name: stage for stage in left}
    path = [left[0]]
    while True:
        needed = next(name for name in path[-1].needs if name not in done)
        following = by_name[needed]
        if following in path:
            circle = path[path.index(following) :]
            break
        path.append(following)
    names = [str(stage.name) for stage in (*circle, circle[0])]
    return RecipeError(
        f"{circle[0].origin.where('name')}: the recipes use each other in a circle: "
        + " uses ".join(repr(name) for name in names)
        + "; give one of them other models"
    )


def _check_results(stages: Sequence[Stage]) -> None:
    finals = results(stages)
    if len(finals) == 1:
        return
    for stage in finals:
        others = ", ".join(
            repr(other.name) if other.name else f"the one at {other.origin.where()}"
            for other in finals
            if other is not stage
        )
        if stage.name is None:
            raise RecipeError(
                f"{stage.origin.where()}: this recipe and {others} are used by no other, so each "
                "is a result and goes to a folder of its name: give this one a name, or leave out "
                f"what is not used{_misspelt(stages, finals)}"
            )
        if not _FOLDER.fullmatch(stage.name):
            raise RecipeError(
                f"{stage.origin.where('name')}: {stage.name!r} is one of several results (beside "
                f"{others}), each of which goes to a folder of its name, and this is no name of a "
                "folder; use letters, digits, '.', '-' and '_'"
            )


def _misspelt(stages: Sequence[Stage], finals: Sequence[Stage]) -> str:
    """Return a hint if a model's name is nearly that of a stage which nothing uses."""
    models = [model for stage in stages for model in stage.recipe.model_names()]
    for unused in finals:
        for near in difflib.get_close_matches(unused.name or "", models, n=1, cutoff=0.75):
            return f"; is the model {near!r} meant to be {unused.name!r}?"
    return ""
