"""Reading and checking a search space."""

from pathlib import Path
from typing import Any

from evomerge.checkpoints import locate_models
from evomerge.documents import Origin, read_yaml, validate
from evomerge.errors import RecipeError, SpaceError
from evomerge.evaluation.settings import TaskSettings
from evomerge.recipe import Recipe, load_recipe
from evomerge.space.blocks import expand_blocks
from evomerge.space.climbing import ClimbSettings, climb_obstacle
from evomerge.space.constraints import read_constraints
from evomerge.space.genome import native_space
from evomerge.space.holes import read_holes
from evomerge.space.optimizers import check_optimizer
from evomerge.space.options import check_options
from evomerge.space.pairs import PAIR_PARAMETERS
from evomerge.space.schema import SpaceDocument
from evomerge.space.simplex import read_simplexes
from evomerge.space.space import Space
from evomerge.space.starting import with_starts

__all__ = ["load_file", "load_space", "parse_space"]

_OF_A_SPACE = ("recipe", "genome", "tasks")


def load_file(path: str | Path) -> Space | Recipe:
    """Read and check a search space or a recipe, whichever it is.

    Raises:
        EvomergeError: naming file, line and key.
    """
    path = Path(path)
    data, _ = read_yaml(path, RecipeError)
    is_space = isinstance(data, dict) and any(key in data for key in _OF_A_SPACE)
    return load_space(path) if is_space else load_recipe(path)


def load_space(path: str | Path) -> Space:
    """Read and check a search space file.

    Raises:
        SpaceError: naming file, line and key.
        RecipeError: if the recipe breaks a rule whatever the search fills in.
    """
    path = Path(path)
    data, origin = read_yaml(path, SpaceError)
    return parse_space(data, origin, name=path.stem)


def parse_space(data: Any, origin: Origin | None = None, *, name: str = "space") -> Space:
    """Check a search space given as plain data.

    Args:
        data: The content of a space file, or of a file of mergekit-evolve.
        origin: Where it came from, for messages.
        name: Name of the study and of the default run directory.

    Raises:
        SpaceError: naming the wrong key.
        RecipeError: if the recipe breaks a rule whatever the search fills in.
    """
    origin = origin or Origin()
    if not isinstance(data, dict):
        raise SpaceError(
            f"{origin.where()}: a search space is a mapping with 'recipe' and 'tasks' (or a file "
            "of mergekit-evolve, with 'genome' and 'tasks'), got "
            f"{type(data).__name__}"
        )
    if "recipe" not in data and "merge_method" in data:
        raise SpaceError(
            f"{origin.where()}: this is a recipe, not a search space; put it below 'recipe:' and "
            "add 'tasks:', or use 'evomerge merge'"
        )
    notes: tuple[str, ...] = ()
    if "genome" in data:
        converted = native_space(data, origin)
        data, notes = converted.data, converted.notes
    document = validate(SpaceDocument, data, origin, SpaceError)
    recipe = locate_models(document.recipe, origin.folder)
    recipe = expand_blocks(recipe, origin.inside("recipe"))
    folders = [_locate(name, origin.folder) for name in document.evaluation.task_dirs]
    evaluation = document.evaluation.model_copy(update={"task_dirs": folders})
    tasks = [_locate_lists(task, origin.folder) for task in document.tasks]
    document = document.model_copy(
        update={"recipe": recipe, "evaluation": evaluation, "tasks": tasks}
    )
    if document.constraints.at_least:
        constraints = read_constraints(document, recipe, origin)
        document = document.model_copy(update={"constraints": constraints})
    also = PAIR_PARAMETERS if document.select is not None else ()
    holes = read_holes(recipe, origin.inside("recipe"), also=also)
    if not holes.dimensions:
        raise SpaceError(
            f"{origin.where('recipe')}: nothing to search: give at least one value as "
            "{search: [low, high]} or {choice: [a, b]}"
        )
    check_optimizer(
        document.search.optimizer,
        holes.dimensions,
        tuple(document.objective),
        origin.where("search", "optimizer"),
    )
    if isinstance(document.search.climb, ClimbSettings):
        obstacle = climb_obstacle(document, holes.dimensions)
        if obstacle is not None:
            raise SpaceError(
                f"{origin.where('search', 'climb')}: this space cannot be climbed: {obstacle}; "
                "leave it out"
            )
    simplexes = read_simplexes(document.simplex, holes, origin.inside("simplex"))
    space = Space(name, document, origin, holes, simplexes, notes)
    check_options(holes, space.decode, origin.inside("recipe"))
    return with_starts(space)


def _locate(name: str, folder: Path) -> str:
    """Return a file or folder as the working directory needs it."""
    beside = folder / name
    return str(beside) if not Path(name).exists() and beside.exists() else name


def _locate_lists(task: TaskSettings, folder: Path) -> TaskSettings:
    """Return a task whose lists of items are found from the working directory."""
    lists = {"search_list": task.search_list, "holdout_list": task.holdout_list}
    found = {key: _locate(name, folder) for key, name in lists.items() if name is not None}
    return task.model_copy(update=found) if found else task
