"""Which models take part in a slice, and in which role."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.documents import Place, show_place
from evomerge.errors import RecipeError
from evomerge.methods import MethodSpec
from evomerge.recipe.document import Module, Recipe, Slice, Source

__all__ = ["MergeInput", "MergeSlice", "merge_slices"]


@dataclass(frozen=True, slots=True)
class MergeInput:
    """One model in one slice.

    Attributes:
        model: Its name.
        layer_range: The layers it gives, or None for all of them.
        parameters: Its own values.
    """

    model: str
    layer_range: tuple[int, int] | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MergeSlice:
    """A slice with its inputs in the order in which the method takes them.

    Attributes:
        inputs: The models; the base comes first if the method requires
            one, or takes differences to it.
        base_model: Name of the base, or None.
        shared: Values for all of its sources: the slice's own, the module's, the recipe's; the
            first that has one counts.
        place: Where it stands in the recipe.
        has_base: Whether the first input is the base of task vectors, and none of the sources.
    """

    inputs: tuple[MergeInput, ...]
    base_model: str | None
    shared: tuple[Mapping[str, Any], ...]
    place: Place
    has_base: bool = False

    @property
    def sources(self) -> tuple[MergeInput, ...]:
        """The inputs that have parameters of their own."""
        return self.inputs[1:] if self.has_base else self.inputs


def merge_slices(
    recipe: Recipe, method: MethodSpec, place: Place, body: Module
) -> tuple[MergeSlice, ...]:
    """Return the slices of one of the recipe's bodies; `models` is one slice of all layers.

    Args:
        recipe: The recipe.
        method: Its method.
        place: Where the body stands.
        body: One of `recipe.bodies()`.

    Raises:
        RecipeError: if a required base is missing or cannot be placed; the message then names the
            slice.
    """
    if body.models is not None:
        return (_slice(recipe, method, body, None, (*place, "models")),)
    return tuple(
        _slice(recipe, method, body, part, (*place, "slices", i))
        for i, part in enumerate(body.slices or ())
    )


def _slice(
    recipe: Recipe,
    method: MethodSpec,
    body: Module,
    part: Slice | None,
    place: Place,
) -> MergeSlice:
    base = (part.base_model if part else None) or recipe.base_model
    listed = tuple(
        MergeInput(s.model, s.layer_range if isinstance(s, Source) else None, s.parameters)
        for s in (part.sources if part is not None else body.models or ())
    )
    shared = (part.parameters if part else {}, body.parameters, recipe.parameters)
    if method.base == "none" or (base is None and method.base == "optional"):
        return MergeSlice(listed, base, shared, place)
    if base is None:
        raise RecipeError(
            f"{method.name} needs a base model: name it under 'base_model' (the models here are "
            f"{', '.join(source.model for source in listed)})"
        )
    base_input = next((source for source in listed if source.model == base), None)
    if method.base == "optional" and method.base_is_source:
        missing = base_input is None and part is None
        inputs = (*listed, MergeInput(base, None, {})) if missing else listed
    elif method.base_is_source:
        if base_input is None and part is not None:
            raise RecipeError(
                f"{show_place(place)}: {method.name} combines base_model {base!r} with another "
                "model, so the slice has to list both as sources, with their layer_range"
            )
        base_input = base_input or MergeInput(base, None, {})
        inputs = (base_input, *(source for source in listed if source is not base_input))
    else:
        base_input = base_input or MergeInput(base, _common_range(listed, base, place), {})
        inputs = (base_input, *(source for source in listed if source.model != base))
        return MergeSlice(inputs, base, shared, place, has_base=True)
    return MergeSlice(inputs, base, shared, place)


def _common_range(
    listed: tuple[MergeInput, ...], base: str, place: Place
) -> tuple[int, int] | None:
    ranges = {source.layer_range for source in listed}
    if len(ranges) == 1:
        return listed[0].layer_range
    raise RecipeError(
        f"{show_place(place)}: the sources have different layer ranges, so the slice has to list "
        f"base_model {base!r} too, with the layer_range that the others are compared to"
    )
