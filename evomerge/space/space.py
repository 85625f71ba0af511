"""A search space: a recipe with holes, the tasks that score it, and the settings of the search."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.checkpoints import locate_models, model_places
from evomerge.documents import Origin, Place, read_yaml, show_place, validate
from evomerge.errors import SpaceError
from evomerge.evaluation.settings import TaskSettings
from evomerge.recipe import Recipe, parse_recipe
from evomerge.space.dimensions import Dimension, Point, Value
from evomerge.space.expressions import Expression, find_holes, parameter_of, parse_expression
from evomerge.space.optimizers import check_optimizer
from evomerge.space.schema import SpaceDocument

__all__ = ["Hole", "Space", "load_space", "parse_space"]


@dataclass(frozen=True)
class Hole:
    """One place of the recipe that the search fills.

    Attributes:
        place: Where it is, inside the recipe.
        expression: What it searches.
        dimensions: Names of its dimensions: one, or one for each anchor of a gradient.
    """

    place: Place
    expression: Expression
    dimensions: tuple[str, ...]

    @property
    def parameter(self) -> str | None:
        """The merge parameter that it sets, if it is one."""
        return parameter_of(self.place)


@dataclass(frozen=True)
class Space:
    """A checked search space.

    Attributes:
        name: Name of the study and of the default run directory.
        document: The file's content; local model paths are those the working directory needs.
        origin: Where it came from.
        holes: The searched places, in the order of the file.
        dimensions: The searched values; holes of one name share theirs.
    """

    name: str
    document: SpaceDocument
    origin: Origin
    holes: tuple[Hole, ...]
    dimensions: tuple[Dimension, ...]

    def decode(self, point: Point) -> Recipe:
        """Fill the holes.

        Args:
            point: A value for every dimension.

        Raises:
            SpaceError: if a dimension is missing.
            RecipeError: if the filled recipe breaks a rule.
        """
        missing = [dimension.name for dimension in self.dimensions if dimension.name not in point]
        if missing:
            raise SpaceError(f"the point has no value for {', '.join(missing)}")
        data = copy.deepcopy(self.document.recipe)
        for hole in self.holes:
            values: list[Any] = [point[name] for name in hole.dimensions]
            expression = hole.expression
            if expression.kind == "choice":
                label = expression.labels.index(values[0])
                filled = copy.deepcopy(expression.options[label])
            else:
                filled = values if expression.layers else values[0]
            _put(data, hole.place, filled)
        return parse_recipe(data, self.origin.inside("recipe"))

    def from_unit(self, vector: Iterable[float]) -> dict[str, Value]:
        """Return the point at a vector of the unit cube, one coordinate a dimension."""
        pairs = zip(self.dimensions, vector, strict=True)
        return {dimension.name: dimension.from_unit(float(unit)) for dimension, unit in pairs}

    def to_unit(self, point: Point) -> list[float]:
        """Return the vector in the unit cube that stands for ``point``."""
        return [dimension.to_unit(point[dimension.name]) for dimension in self.dimensions]

    def with_search(self, **changes: Any) -> "Space":
        """Return the space with other search settings; a value of None changes nothing."""
        wanted = {key: value for key, value in changes.items() if value is not None}
        search = self.document.search.model_copy(update=wanted)
        return replace(self, document=self.document.model_copy(update={"search": search}))

    def with_task_dirs(self, folders: Iterable[str]) -> "Space":
        """Return the space with more folders of lm-eval tasks."""
        evaluation = self.document.evaluation
        task_dirs = list(dict.fromkeys([*evaluation.task_dirs, *folders]))
        evaluation = evaluation.model_copy(update={"task_dirs": task_dirs})
        document = self.document.model_copy(update={"evaluation": evaluation})
        return replace(self, document=document)

    def model_names(self) -> tuple[str, ...]:
        """Return every model any candidate may need, in the order of the file."""
        return self._model_names(lambda _: True)

    def merged_names(self) -> tuple[str, ...]:
        """Return the models that are merged: without those that only give tokens."""
        return self._model_names(lambda place: place[0] not in ("tokenizer", "tokenizer_source"))

    def _model_names(self, counts: Callable[[Place], bool]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for place, name in model_places(self.document.recipe):
            if counts(place):
                found[name] = None
        for hole in self.holes:
            if hole.place[-1] in ("model", "base_model"):
                found |= {str(option): None for option in hole.expression.options}
        return tuple(found)


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
        data: The content of a space file.
        origin: Where it came from, for messages.
        name: Name of the study and of the default run directory.

    Raises:
        SpaceError: naming the wrong key.
        RecipeError: if the recipe breaks a rule whatever the search fills in.
    """
    origin = origin or Origin()
    if not isinstance(data, dict):
        raise SpaceError(
            f"{origin.where()}: a search space is a mapping with 'recipe' and 'tasks', got "
            f"{type(data).__name__}"
        )
    if "recipe" not in data and "merge_method" in data:
        raise SpaceError(
            f"{origin.where()}: this is a recipe, not a search space; put it below 'recipe:' and "
            "add 'tasks:', or use 'evomerge merge'"
        )
    document = validate(SpaceDocument, data, origin, SpaceError)
    recipe = locate_models(document.recipe, origin.folder)
    folders = [_locate(name, origin.folder) for name in document.evaluation.task_dirs]
    evaluation = document.evaluation.model_copy(update={"task_dirs": folders})
    tasks = [_locate_lists(task, origin.folder) for task in document.tasks]
    document = document.model_copy(
        update={"recipe": recipe, "evaluation": evaluation, "tasks": tasks}
    )
    holes, dimensions = _read_holes(recipe, origin.inside("recipe"))
    if not dimensions:
        raise SpaceError(
            f"{origin.where('recipe')}: nothing to search: give at least one value as "
            "{search: [low, high]} or {choice: [a, b]}"
        )
    check_optimizer(
        document.search.optimizer,
        dimensions,
        tuple(document.objective),
        origin.where("search", "optimizer"),
    )
    space = Space(name, document, origin, holes, dimensions)
    space.decode(space.from_unit([0.5] * len(dimensions)))
    return space


def _locate(name: str, folder: Path) -> str:
    """Return a file or folder as the working directory needs it."""
    beside = folder / name
    return str(beside) if not Path(name).exists() and beside.exists() else name


def _locate_lists(task: TaskSettings, folder: Path) -> TaskSettings:
    """Return a task whose lists of items are found from the working directory."""
    lists = {"search_list": task.search_list, "holdout_list": task.holdout_list}
    found = {key: _locate(name, folder) for key, name in lists.items() if name is not None}
    return task.model_copy(update=found) if found else task


def _read_holes(recipe: Any, origin: Origin) -> tuple[tuple[Hole, ...], tuple[Dimension, ...]]:
    parsed = [(place, parse_expression(place, data, origin)) for place, data in find_holes(recipe)]
    for place, expression in parsed:
        for option in expression.options:
            if any(find_holes(option)):
                raise SpaceError(
                    f"{origin.where(*place)}: an option of a choice holds another search "
                    "expression; give the inner value a place of its own"
                )
    labels = [expression.name or _label(recipe, place) for place, expression in parsed]
    unnamed = [label for label, (_, exp) in zip(labels, parsed, strict=True) if not exp.name]
    labels = [
        label if expression.name or unnamed.count(label) == 1 else show_place(place)
        for label, (place, expression) in zip(labels, parsed, strict=True)
    ]
    holes: list[Hole] = []
    dimensions: dict[str, Dimension] = {}
    owners: dict[str, tuple[Place, Expression]] = {}
    for label, (place, expression) in zip(labels, parsed, strict=True):
        first_place, first = owners.setdefault(label, (place, expression))
        if first != expression:
            raise SpaceError(
                f"{origin.where(*place)}: the name {label!r} is shared with "
                f"{show_place(first_place)}, so both give the same search expression"
            )
        names = (
            tuple(f"{label}[{anchor}]" for anchor in range(expression.layers))
            if expression.layers
            else (label,)
        )
        for name in names:
            dimensions[name] = Dimension(
                name=name,
                kind=expression.kind,
                low=expression.low,
                high=expression.high,
                log=expression.log,
                choices=expression.labels,
            )
        holes.append(Hole(place, expression, names))
    return tuple(holes), tuple(dimensions.values())


def _label(recipe: Any, place: Place) -> str:
    """Return a short readable name: model, parameter and filter where there are any."""
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
    if place[0] == "slices":
        parts.insert(0, f"slice{place[1]}")
    parts.append(parameter)
    if filter_name:
        parts.append(filter_name)
    elif isinstance(place[-1], int):
        parts[-1] += f"[{place[-1]}]"
    return ".".join(parts)


def _put(data: Any, place: Sequence[str | int], value: Any) -> None:
    node: Any = data
    for key in place[:-1]:
        node = node[key]
    if isinstance(node, Mapping | list):
        node[place[-1]] = value  # type: ignore[index]
