"""From a recipe and open checkpoints to the numbers and names of every merged tensor."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.checkpoints import (
    DEFAULT_PART,
    Checkpoint,
    missing_part,
    require_parts,
    split_parts,
)
from evomerge.engine.assets import TokenizerPlan, plan_tokenizer
from evomerge.engine.config import with_dtype, with_tied
from evomerge.engine.layout import Layout, LayoutTensor, find_layout
from evomerge.engine.rows import RowMap
from evomerge.engine.vocabulary import Vocabulary, VocabularyRequest, find_vocabulary
from evomerge.errors import CheckpointError, RecipeError, nearest
from evomerge.methods import METHODS, MethodSpec, ParameterSpec
from evomerge.methods.interface import Settings
from evomerge.recipe import Recipe
from evomerge.recipe.inputs import MergeSlice, merge_slices
from evomerge.recipe.parameters import ParameterValue, Rule, resolve_rule

__all__ = ["MergePlan", "PlannedTensor", "plan_merge"]

_FLOATS = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
_NARROW = ("bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One merged tensor.

    Attributes:
        name: Its name.
        shape: Its sizes.
        dtype: Its type, to which the float32 result is rounded once.
        inputs: Model and tensor names of its sources, in the order in which the method takes them.
        settings: The method's numbers; None if the first input is copied as it is (integers).
        rows: For an embedding or head how the rows of each input are rearranged; None if all stay
            as they are.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[tuple[str, str], ...]
    settings: Settings | None
    rows: tuple[RowMap | None, ...] | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def row_map(self, i: int) -> RowMap | None:
        """Return how the rows of input i are rearranged."""
        return None if self.rows is None else self.rows[i]

    def content(self, i: int) -> tuple[str, ...]:
        """Return what identifies the content of input i, rearranged rows included."""
        rows = self.row_map(i)
        return self.inputs[i] if rows is None else (*self.inputs[i], rows.key)

    def stored(self) -> tuple[tuple[str, str], ...]:
        """Return model and tensor names of all that is read for this tensor."""
        if self.rows is None:
            return self.inputs
        maps = [self.row_map(i) for i in range(len(self.inputs))]
        read = [
            (pair,) if rows is None else rows.used()
            for pair, rows in zip(self.inputs, maps, strict=True)
        ]
        return tuple(dict.fromkeys(pair for pairs in read for pair in pairs))


@dataclass(frozen=True)
class MergePlan:
    """A recipe made concrete for its checkpoints; plain data, cheap to make.

    Attributes:
        method: The merge method's name.
        outputs: The merged tensors in the order in which they are written.
        compute_dtype: Type to which inputs are rounded before merging, or None.
        out_dtype: Type of most of the result.
        config: The merged model's `config.json`.
        config_donor: Name of the model that gives config and generation config.
        generation_config: The merged model's `generation_config.json`, or None.
        tokenizer: Its tokenizer.
    """

    method: str
    outputs: tuple[PlannedTensor, ...]
    compute_dtype: str | None
    out_dtype: str
    config: Mapping[str, Any]
    config_donor: str
    generation_config: Mapping[str, Any] | None
    tokenizer: TokenizerPlan

    @property
    def num_parameters(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.numel for tensor in self.outputs)


def plan_merge(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> MergePlan:
    """Plan a merge.

    Args:
        recipe: What to do.
        checkpoints: The open checkpoint of every name in `recipe.model_names()`.

    Raises:
        RecipeError: if the recipe does not fit the models.
        CheckpointError: if the models do not fit each other; all tensors in one message.
    """
    method = METHODS.get(recipe.merge_method)
    if method is None:
        raise RecipeError(
            f"unknown merge method {recipe.merge_method!r}; {nearest(recipe.merge_method, METHODS)}"
        )
    names = recipe.model_names()
    missing = [name for name in names if name not in checkpoints]
    if missing:
        raise CheckpointError(f"no open checkpoint for {', '.join(missing)}")
    bodies = [merge_slices(recipe, method, *body) for body in recipe.bodies()]
    every = [part for slices in bodies for part in slices]
    for model in dict.fromkeys(source.model for part in every for source in part.inputs):
        checkpoints[model].require_plain()
    donor = recipe.base_model or every[0].base_model or every[0].inputs[0].model
    opened = tuple((name, checkpoints[name]) for name in names)
    vocabulary = _find_vocabulary(recipe, every, donor, opened)
    layouts = [
        find_layout(
            tuple(tuple((s.model, s.layer_range) for s in part.inputs) for part in slices),
            donor,
            parts,
            vocabulary,
            tuple(part.base_model for part in slices),
        )
        for slices, parts in zip(bodies, _modules(recipe, bodies, donor, opened), strict=True)
    ]
    tensors = tuple(
        tensor
        for slices, layout in zip(bodies, layouts, strict=True)
        for tensor in _plan_tensors(recipe, method, slices, layout)
    )
    dtype = recipe.out_dtype or recipe.dtype or _usual_dtype(tensors)
    generation = checkpoints[donor].generation_config
    if vocabulary is not None and generation is not None:
        generation = vocabulary.follow(generation, donor, sized=False)
    return MergePlan(
        method=method.name,
        outputs=tensors,
        compute_dtype=recipe.dtype if recipe.dtype in _NARROW else None,
        out_dtype=dtype,
        config=with_dtype(_config(layouts, checkpoints[donor]), dtype),
        config_donor=donor,
        generation_config=generation,
        tokenizer=plan_tokenizer(vocabulary, recipe.chat_template, donor, opened),
    )


def _modules(
    recipe: Recipe,
    bodies: Sequence[Sequence[MergeSlice]],
    donor: str,
    opened: tuple[tuple[str, Checkpoint], ...],
) -> Iterator[tuple[tuple[str, Checkpoint], ...]]:
    """Yield the checkpoints that each module is laid out of: its parts of them.

    Raises:
        CheckpointError: if a model has not the part that it is to give, or the donor has more.
        RecipeError: if a module without the layers that the config counts has slices.
    """
    if recipe.modules is None or tuple(recipe.modules) == (DEFAULT_PART,):
        yield opened
        return
    names = tuple(recipe.modules)
    require_parts(dict(opened)[donor], names)
    for name, slices in zip(names, bodies, strict=True):
        parts = {model: split_parts(whole, names).get(name) for model, whole in opened}
        wanted = {source.model for part in slices for source in part.inputs}
        for model, whole in opened:
            if model in wanted and parts[model] is None:
                raise missing_part(whole, name)
        found = {model: part for model, part in parts.items() if part is not None}
        if recipe.modules[name].slices is not None and not found[donor].layers_in_config:
            raise RecipeError(
                f"modules.{name}: slices choose layers of the language tower, which this module of "
                f"{donor} has not: the config does not follow; give the module whole 'models'"
            )
        yield tuple(found.items())


def _config(layouts: Sequence[Layout], donor: Checkpoint) -> Mapping[str, Any]:
    """Return the config of the merged model: of the module that has the layers it counts."""
    counted = (
        layout
        for layout in layouts
        if any(donor.layers.split(tensor.name) is not None for tensor in layout.tensors)
    )
    config = next(counted, layouts[0]).config
    return with_tied(config, donor, tied=donor.tied and not any(x.has_head for x in layouts))


def _find_vocabulary(
    recipe: Recipe,
    slices: Sequence[MergeSlice],
    donor: str,
    opened: tuple[tuple[str, Checkpoint], ...],
) -> Vocabulary | None:
    """Return the tokens that the recipe asks for; None if it takes embedding rows as they stand."""
    source = recipe.tokenizer_name()
    if source is None:
        return None
    merged = dict.fromkeys(s.model for part in slices for s in part.inputs)
    merged |= dict.fromkeys([donor])
    request = VocabularyRequest(
        source=donor if source == "base" else source,
        tokens=recipe.token_settings(),
        multiple=recipe.tokenizer.pad_to_multiple_of if recipe.tokenizer is not None else None,
        donor=donor,
        merged=tuple(merged),
    )
    return find_vocabulary(request, opened)


def _plan_tensors(
    recipe: Recipe, method: MethodSpec, slices: Sequence[MergeSlice], layout: Layout
) -> tuple[PlannedTensor, ...]:
    resolvers = [_Resolver(method, part) for part in slices]
    wanted = recipe.out_dtype or recipe.dtype
    tensors = []
    for entry in layout.tensors:
        part = slices[entry.slice]
        inputs = tuple(
            (source.model, name) for source, name in zip(part.inputs, entry.inputs, strict=True)
        )
        if all(dtype in _FLOATS for dtype in entry.dtypes):
            settings = resolvers[entry.slice].settings(entry)
            dtype = wanted or _promote(entry.dtypes)
            tensors.append(
                PlannedTensor(entry.name, entry.shape, dtype, inputs, settings, entry.rows)
            )
        else:
            first = entry.dtypes[0]
            tensors.append(PlannedTensor(entry.name, entry.shape, first, inputs[:1], None))
    return tuple(tensors)


def _promote(dtypes: tuple[str, ...]) -> str:
    kinds = set(dtypes)
    if all(kind.startswith("float8") for kind in kinds):
        return "bfloat16"  # holds all of their numbers; a merge's own need more room
    if len(kinds) == 1:
        return dtypes[0]
    return "float64" if "float64" in kinds else "float32"


def _usual_dtype(tensors: Sequence[PlannedTensor]) -> str:
    counts: dict[str, int] = {}
    for tensor in tensors:
        if tensor.settings is not None:
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + 1
    return max(counts, key=lambda dtype: counts[dtype], default="float32")


class _Resolver:
    """The parameters of a slice: rules found once, numbers for each tensor."""

    def __init__(self, method: MethodSpec, part: MergeSlice) -> None:
        self._method = method
        self._models = tuple(source.model for source in part.inputs)
        self._shared = [
            (spec, resolve_rule(spec.name, part.shared))
            for spec in method.parameters
            if not spec.per_model
        ]
        # The base of task vectors has no parameters of its own, whatever the recipe gives it.
        first = 1 if part.has_base else 0
        self._has_base = part.has_base
        self._own = [
            (
                first + i,
                [
                    (spec, resolve_rule(spec.name, (source.parameters, *part.shared)))
                    for spec in method.parameters
                    if spec.per_model
                ],
            )
            for i, source in enumerate(part.inputs[first:])
        ]
        rules = [rule for _, rule in self._shared]
        rules += [rule for _, own in self._own for _, rule in own]
        self._is_constant = all(rule.constant is not None or not rule.entries for rule in rules)
        self._constant: Settings | None = None

    def settings(self, tensor: LayoutTensor) -> Settings:
        """Return the numbers of one tensor."""
        if self._constant is not None:
            return self._constant
        shared = {spec.name: self._value(spec, rule, tensor, 0) for spec, rule in self._shared}
        own = tuple(
            {spec.name: self._value(spec, rule, tensor, i) for spec, rule in rules}
            for i, rules in self._own
        )
        settings = Settings(shared, own, self._has_base)
        try:
            self._method.check(settings)
        except RecipeError as error:
            raise RecipeError(f"tensor {tensor.name!r}: {error}") from error
        if self._is_constant:
            self._constant = settings
        return settings

    def _value(
        self, spec: ParameterSpec, rule: Rule, tensor: LayoutTensor, index: int
    ) -> ParameterValue:
        name = tensor.inputs[index] if spec.per_model else tensor.name
        value = rule.value(name, tensor.position)
        if value is None:
            if spec.required or spec.default is None:
                of = f" of {self._models[index]}" if spec.per_model else ""
                raise RecipeError(
                    f"{self._method.name} needs the parameter {spec.name!r}, and the recipe gives "
                    f"none for the tensor {tensor.name!r}{of}: no filter matches it; add an entry "
                    "without filter"
                )
            return spec.default
        return bool(value) if spec.kind == "bool" else value
