"""What the constraints of a space name: its tasks, and what their scores are measured against."""

from pathlib import Path
from typing import Any

from evomerge.checkpoints import locate, model_places
from evomerge.documents import Origin
from evomerge.errors import SpaceError, nearest
from evomerge.space.schema import ConstraintSettings, SpaceDocument

__all__ = ["BASELINE_WORDS", "read_constraints"]

BASELINE_WORDS = ("base", "average", "best_parent")
"""What a constraint may name beside a model."""


def read_constraints(
    document: SpaceDocument, recipe: dict[str, Any], origin: Origin
) -> ConstraintSettings:
    """Return the constraints with the models' names as the recipe has them.

    Args:
        document: The space.
        recipe: Its recipe, with the names that the working directory needs.
        origin: Where the space came from.

    Raises:
        SpaceError: naming file, line and key, for a task or a baseline that is not there.
    """
    tasks = [task.name for task in document.tasks]
    found: dict[str, str | float] = {}
    for task, reference in document.constraints.at_least.items():
        where = origin.where("constraints", "at_least", task)
        if task not in tasks:
            raise SpaceError(f"{where}: no task of the space has this name; {nearest(task, tasks)}")
        if isinstance(reference, str):
            reference = _find_baseline(reference, recipe, origin.folder, where)  # noqa: PLW2901
        found[task] = reference
    return document.constraints.model_copy(update={"at_least": found})


def _find_baseline(name: str, recipe: dict[str, Any], folder: Path, where: str) -> str:
    if name in BASELINE_WORDS:
        if name == "base" and not isinstance(recipe.get("base_model"), str):
            raise SpaceError(
                f"{where}: the recipe has no base_model of its own, so there is no base to measure "
                "against; name a model, average or best_parent"
            )
        return name
    models = list(dict.fromkeys(n for place, n in model_places(recipe) if "tokenizer" not in place))
    for wanted in (name, locate(name, folder)):
        if wanted in models:
            return wanted
    short = [model for model in models if Path(model).name == name]
    if len(short) == 1:
        return short[0]
    known = (*BASELINE_WORDS, *models)
    rule = (
        f"{name!r} is several models of the recipe" if short else f"there is no baseline {name!r}"
    )
    raise SpaceError(f"{where}: {rule}; {nearest(name, known)}, or a number")
