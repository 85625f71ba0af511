"""A search space: a recipe with holes, the tasks that score it, and the settings of the search."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from evomerge.checkpoints import model_places
from evomerge.documents import Origin, Place
from evomerge.errors import SpaceError
from evomerge.recipe import Recipe, parse_recipe
from evomerge.space.dimensions import Dimension, Point, Value
from evomerge.space.holes import Hole, Holes, fill
from evomerge.space.options import OptionPoint, option_points
from evomerge.space.pairs import choose_pairs
from evomerge.space.schema import SpaceDocument
from evomerge.space.simplex import Simplex
from evomerge.space.stages import Level, stage_groups

__all__ = ["Space"]


@dataclass(frozen=True)
class Space:
    """A checked search space.

    Attributes:
        name: Name of the study and of the default run directory.
        document: The file's content; local model paths are those the working directory needs.
        origin: Where it came from.
        searched: The holes of the recipe and their dimensions.
        simplexes: Dimensions whose values sum to 1.
        notes: What of the file has no effect here, and why.
    """

    name: str
    document: SpaceDocument
    origin: Origin
    searched: Holes
    simplexes: tuple[Simplex, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def holes(self) -> tuple[Hole, ...]:
        """The searched places, in the order of the file."""
        return self.searched.holes

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The searched values; holes of one name share theirs. Choices before what they decide."""
        return self.searched.dimensions

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Dimensions that are one parameter of one model, in its layers and filters."""
        return self.groups_at("model")

    def groups_at(self, level: Level) -> tuple[tuple[str, ...], ...]:
        """Return the dimensions that move together at a level of a search in stages."""
        return stage_groups(self.document.recipe, self.holes, self.dimensions, level)

    @property
    def methods(self) -> tuple[str, ...]:
        """The merge methods of the candidates: one, or the options of a choice."""
        return self.searched.methods.names

    def decode(self, point: Point) -> Recipe:
        """Fill the holes.

        Args:
            point: A value for every dimension that exists there; others are not looked at. The
                weights of a simplex are divided by their sum.

        Raises:
            SpaceError: if a dimension is missing.
            RecipeError: if the filled recipe breaks a rule.
        """
        data = fill(self.document.recipe, self.searched, self.settle(point))
        origin = self.origin.inside("recipe")
        if self.document.select is not None:
            choose_pairs(data, origin)
        return parse_recipe(data, origin)

    def settle(self, point: Point) -> dict[str, Value]:
        """Return a point without the dimensions that do not exist there, simplexes summing to 1.

        Raises:
            SpaceError: if a dimension is missing.
        """
        settled: dict[str, Value] = {}
        missing = []
        for dimension in self.dimensions:
            if not dimension.exists(settled):
                continue
            if dimension.name in point:
                settled[dimension.name] = point[dimension.name]
            else:
                missing.append(dimension.name)
        if missing:
            raise SpaceError(f"the point has no value for {', '.join(missing)}")
        for simplex in self.simplexes:
            settled = simplex.settle(settled)
        return settled

    def from_unit(self, vector: Iterable[float]) -> dict[str, Value]:
        """Return the point at a vector of the unit cube, one coordinate a dimension.

        Coordinates of dimensions that do not exist there are not looked at.
        """
        units = [float(unit) for unit in vector]
        pairs = zip(self.dimensions, units, strict=True)
        point = {dimension.name: dimension.from_unit(unit) for dimension, unit in pairs}
        by_name = dict(zip(point, units, strict=True))
        for simplex in self.simplexes:
            point |= simplex.from_unit([by_name[name] for name in simplex.dimensions])
        existing: dict[str, Value] = {}
        for dimension in self.dimensions:
            if dimension.exists(existing):
                existing[dimension.name] = point[dimension.name]
        return existing

    def to_unit(self, point: Point) -> list[float]:
        """Return the vector in the unit cube that stands for ``point``.

        Dimensions that do not exist there are in the middle of theirs.

        Raises:
            SpaceError: if a dimension that exists there is missing.
        """
        settled = self.settle(point)
        units = dict.fromkeys((dimension.name for dimension in self.dimensions), 0.5)
        for dimension in self.dimensions:
            if dimension.name in settled:
                units[dimension.name] = dimension.to_unit(settled[dimension.name])
        for simplex in self.simplexes:
            if simplex.dimensions[0] in settled:
                units |= zip(simplex.dimensions, simplex.to_unit(settled), strict=True)
        return list(units.values())

    def option_points(self) -> tuple[OptionPoint, ...]:
        """Return a point for each option of each choice, everything else in the middle."""
        return tuple(option_points(self.searched))

    def with_search(self, **changes: Any) -> "Space":
        """Return the space with other search settings; a value of None changes nothing."""
        wanted = {key: value for key, value in changes.items() if value is not None}
        search = self.document.search.model_copy(update=wanted)
        return replace(self, document=self.document.model_copy(update={"search": search}))

    def with_document(self, **changes: Any) -> "Space":
        """Return the space with other parts of its document."""
        return replace(self, document=self.document.model_copy(update=changes))

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

    def base_model(self) -> str | None:
        """Return the base model, unless there are several to choose from; or None."""
        base = self.document.recipe.get("base_model")
        if isinstance(base, dict):
            options = base.get("choice", [])
            base = options[0] if len(options) == 1 else None
        return base if isinstance(base, str) else None

    def _model_names(self, counts: Callable[[Place], bool]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for place, name in model_places(self.document.recipe):
            if counts(place):
                found[name] = None
        for hole in self.holes:
            if hole.place[-1] in ("model", "base_model"):
                found |= {str(option): None for option in hole.expression.options}
        return tuple(found)
