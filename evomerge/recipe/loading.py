"""From YAML or plain data to a checked recipe, with every problem in one message."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evomerge.documents import Origin, Place, read_yaml, validate
from evomerge.errors import RecipeError, nearest
from evomerge.methods import (
    IGNORED_PARAMETERS,
    METHODS,
    MethodSpec,
    ParameterSpec,
    parameter_names,
)
from evomerge.recipe.document import Recipe
from evomerge.recipe.inputs import MergeSlice, merge_slices
from evomerge.recipe.parameters import check_value

__all__ = ["DTYPES", "load_recipe", "parse_recipe", "without_effect"]

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""The types a recipe may name under `dtype` and `out_dtype`."""

Problem = tuple[Place, str]


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: naming file, line and key of everything that is wrong.
    """
    data, origin = read_yaml(path, RecipeError)
    return parse_recipe(data, origin)


def parse_recipe(data: Any, origin: Origin | None = None) -> Recipe:
    """Turn plain data into a recipe that keeps all rules that need no checkpoint.

    Args:
        data: What a YAML reader gives.
        origin: Where it came from, for messages.

    Raises:
        RecipeError: one line for each wrong place.
    """
    origin = origin or Origin()
    if not isinstance(data, Mapping):
        raise RecipeError(
            f"{origin.where()}: a recipe is a mapping with the key 'merge_method', "
            f"got {type(data).__name__}"
        )
    recipe = validate(Recipe, dict(data), origin, RecipeError)
    problems = [f"{origin.where(*place)}: {text}" for place, text in _problems(recipe)]
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(problems)))
    return recipe


def without_effect(recipe: Recipe) -> list[str]:
    """Return a line for each parameter of a recipe that is accepted and does nothing."""
    given = {name for _, parameters in recipe.parameter_blocks() for name in parameters}
    return [
        f"{name} has no effect: {reason}"
        for name, reason in IGNORED_PARAMETERS.items()
        if name in given
    ]


def _problems(recipe: Recipe) -> Iterator[Problem]:
    yield from _check_bodies(recipe)
    yield from _check_keys(recipe)
    method = METHODS.get(recipe.merge_method)
    if method is None:
        yield (
            ("merge_method",),
            f"unknown merge method {recipe.merge_method!r}; "
            + nearest(recipe.merge_method, METHODS),
        )
        return
    for place, parameters in recipe.parameter_blocks():
        for name, value in parameters.items():
            yield from _check_parameter(method, (*place, name), name, value)
    for place, body in recipe.bodies():
        if (body.models is None) == (body.slices is None):
            continue
        try:
            slices = merge_slices(recipe, method, place, body)
        except RecipeError as exc:
            yield place, str(exc)
            continue
        for part in slices:
            yield from _check_slice(method, part)


def _check_bodies(recipe: Recipe) -> Iterator[Problem]:
    bodies = {"models": recipe.models, "slices": recipe.slices, "modules": recipe.modules}
    given = [key for key, value in bodies.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(given) if given else "none of them"
        yield (), f"a recipe has exactly one of models, slices and modules, got {got}"
    for name, module in (recipe.modules or {}).items():
        if (module.models is None) == (module.slices is None):
            yield ("modules", name), "a module has exactly one of models and slices"


def _check_keys(recipe: Recipe) -> Iterator[Problem]:
    for key in ("dtype", "out_dtype"):
        value = getattr(recipe, key)
        if value is not None and value not in DTYPES:
            yield (key,), f"unknown dtype {value!r}; {nearest(value, DTYPES)}"
    if (
        recipe.tokenizer is not None
        and recipe.tokenizer_source is not None
        and recipe.tokenizer.source is not None
    ):
        yield ("tokenizer_source",), "give tokenizer_source or tokenizer.source, not both"
    for token, settings in recipe.token_settings():
        place = ("tokenizer", "tokens", token, "source")
        row = settings.source
        given = [key for key in ("model", "token", "token_id") if getattr(row, key) is not None]
        if row.kind == "zero" and given:
            yield place, f"zeros come from no model: leave out {', '.join(given)}"
        elif row.kind == "model_token" and row.model is None:
            yield place, "name the model, or give {kind: zero}"
        elif len(given) > 2:
            yield place, "give token or token_id, not both"


def _check_parameter(method: MethodSpec, place: Place, name: str, value: Any) -> Iterator[Problem]:
    if name in IGNORED_PARAMETERS or value is None:
        return
    spec = method.parameter(name) or _parameter_of_another_method(name)
    if spec is None:
        valid = [own.name for own in method.parameters]
        yield place, f"{method.name} has no parameter {name!r}; {nearest(name, valid)}"
        return
    for inner, text in check_value(spec, value):
        yield (*place, *inner), text


def _parameter_of_another_method(name: str) -> ParameterSpec | None:
    """A search may try several methods on one recipe, so the others' parameters may stand in it."""
    if name not in parameter_names():
        return None
    return next(spec for row in METHODS.values() if (spec := row.parameter(name)) is not None)


def _check_slice(method: MethodSpec, part: MergeSlice) -> Iterator[Problem]:
    counted = part.inputs if method.base == "required" else part.sources
    count = len(counted)
    low, high = method.min_models, method.max_models
    if count < low or (high is not None and count > high):
        rule = f"exactly {low}" if low == high else f"at least {low}" if count < low else f"{high}"
        base = " (base_model included)" if method.base == "required" else ""
        names = ", ".join(source.model for source in counted)
        yield part.place, f"{method.name} takes {rule} models{base}, got {count}: {names}"
    lengths = {}
    for source in part.inputs:
        if source.layer_range is None:
            continue
        start, stop = source.layer_range
        if start < 0 or stop <= start:
            rule = "it is [first, one after the last] with 0 <= first < last"
            yield part.place, f"layer_range [{start}, {stop}] of {source.model}: {rule}"
            continue
        lengths[f"{source.model} [{start}, {stop}]"] = stop - start
    if len(set(lengths.values())) > 1:
        yield (
            part.place,
            "all sources of a slice have the same number of layers, got "
            + ", ".join(f"{length} of {name}" for name, length in lengths.items()),
        )
    yield from _check_required(method, part)


def _check_required(method: MethodSpec, part: MergeSlice) -> Iterator[Problem]:
    for spec in method.parameters:
        if not spec.required or any(level.get(spec.name) is not None for level in part.shared):
            continue
        if not spec.per_model:
            yield part.place, f"{method.name} needs the parameter {spec.name!r} ({spec.help})"
            continue
        for source in part.sources:
            if source.parameters.get(spec.name) is None:
                needed = f"the parameter {spec.name!r} ({spec.help})"
                why = ", as base_model one of its models" if source.model == part.base_model else ""
                yield part.place, f"{method.name} needs {needed} for {source.model}{why}"
