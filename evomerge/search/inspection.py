"""What a recipe or a space means and what is wrong with it, without loading weights."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evomerge.checkpoints import Checkpoint, open_checkpoint
from evomerge.engine import MergePlan, plan_merge
from evomerge.errors import CheckpointError, EvomergeError
from evomerge.evaluation import TaskSet
from evomerge.proposers import check_user_class, choose
from evomerge.recipe import Recipe, without_effect
from evomerge.search.baselines import baselines
from evomerge.search.constraints import reference_baselines
from evomerge.search.evaluation_inspection import inspect_evaluation
from evomerge.space import AUTO, Dimension, Space, load_file, usual_point

__all__ = ["Inspection", "ModelRow", "inspect_file", "inspect_loaded"]

_DRAWS = 50
_DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class ModelRow:
    """One model that a recipe or space names.

    Attributes:
        name: As in the file.
        parameters: Number of parameters, or None if it is not at hand.
        dtype: Type of most of them.
        tokens: Size of the vocabulary.
        note: What is special about it.
    """

    name: str
    parameters: int | None = None
    dtype: str | None = None
    tokens: int | None = None
    note: str = ""


@dataclass
class Inspection:
    """What a check found.

    Attributes:
        kind: What the file is.
        name: The file.
        dimensions: Name, kind and range of each searched value.
        models: The models.
        facts: Lines for people: dtype, tokenizers, memory, items.
        memory_bytes: What each worker needs: ``sources``, ``live_model`` (``merged`` with vLLM) and
            ``total``.
        notes: What could not be checked from here, or has no effect.
        problems: What is wrong.
    """

    kind: Literal["recipe", "search space"]
    name: str
    dimensions: list[tuple[str, str, str]] = field(default_factory=list)
    models: list[ModelRow] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    memory_bytes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def inspect_file(
    path: str | Path, *, task_dirs: Sequence[str] = (), allow_code_execution: bool = False
) -> Inspection:
    """Check a recipe or a space.

    Args:
        path: The file.
        task_dirs: More folders with lm-eval task YAML.
        allow_code_execution: Tasks may run code that the model wrote, if the space says so too.

    Raises:
        EvomergeError: if the file cannot be read or breaks a rule of its schema.
    """
    loaded = load_file(path)
    if isinstance(loaded, Space):
        loaded = loaded.with_task_dirs(task_dirs)
    return inspect_loaded(loaded, str(path), allow_code_execution=allow_code_execution)


def inspect_loaded(
    loaded: Space | Recipe, name: str, *, allow_code_execution: bool = False
) -> Inspection:
    """Check a recipe or a space that was read.

    Args:
        loaded: The recipe or the space.
        name: Of its file.
        allow_code_execution: Tasks may run code that the model wrote, if the space says so too.
    """
    if isinstance(loaded, Space):
        return _inspect_space(loaded, code_confirmed=allow_code_execution)
    return _inspect_recipe(loaded, name)


def _inspect_recipe(recipe: Recipe, name: str) -> Inspection:
    found = Inspection("recipe", name, notes=without_effect(recipe))
    checkpoints = _open_models(recipe.model_names(), found)
    if checkpoints is not None:
        _plan(recipe, checkpoints, found)
    return found


def _inspect_space(space: Space, *, code_confirmed: bool) -> Inspection:
    found = Inspection("search space", space.origin.name, notes=list(space.notes))
    found.dimensions = [(d.name, d.kind, _range(d)) for d in space.dimensions]
    found.facts += [f"{' + '.join(each.dimensions)} = 1" for each in space.simplexes]
    checkpoints = _open_models(space.model_names(), found)
    recipes = list(_samples(space, found))
    found.notes += without_effect(recipes[0]) if recipes else []
    if checkpoints is not None and recipes:
        plan = _plan(recipes[0], checkpoints, found)
        if plan is not None:
            _memory(plan, checkpoints, space, found)
        for recipe in recipes[1:]:
            _plan(recipe, checkpoints, found, quiet=True)
        if not found.problems:
            _try_values(space, checkpoints, found)
    tasks = inspect_evaluation(space, checkpoints, found, code_confirmed=code_confirmed)
    _inspect_constraints(space, found)
    _inspect_optimizer(space, tasks, found)
    return found


def _samples(space: Space, found: Inspection) -> Iterator[Recipe]:
    """Yield the usual recipe, and one for each option of each choice."""
    for point in (usual_point(space), *(each.point for each in space.option_points())):
        try:
            yield space.decode(point)
        except EvomergeError as error:
            if str(error) not in found.problems:
                found.problems.append(str(error))


def _open_models(names: tuple[str, ...], found: Inspection) -> dict[str, Checkpoint] | None:
    """Open what is at hand; None if something is missing."""
    checkpoints: dict[str, Checkpoint] = {}
    missing = False
    for name in names:
        try:
            checkpoint = open_checkpoint(name)
        except CheckpointError as error:
            missing = True
            if _is_unreachable(error):
                found.notes.append(f"{name}: not at hand, so its tensors are not checked")
                found.models.append(ModelRow(name, note="on the hub"))
            else:
                found.problems.append(str(error))
                found.models.append(ModelRow(name, note="missing"))
            continue
        checkpoints[name] = checkpoint
        vocab = checkpoint.tokenizer_vocab()
        found.models.append(
            ModelRow(
                name,
                checkpoint.num_parameters,
                checkpoint.dtype,
                len(vocab) if vocab is not None else None,
                str(checkpoint.config.get("model_type", "")),
            )
        )
    _compare_tokenizers(checkpoints, found)
    return None if missing else checkpoints


def _is_unreachable(error: CheckpointError) -> bool:
    """Return whether a model may well exist: a hub name, and no way to ask the hub."""
    text = str(error)
    return "HF_HUB_OFFLINE" in text or "the hub cannot be reached" in text


def _compare_tokenizers(checkpoints: dict[str, Checkpoint], found: Inspection) -> None:
    vocabularies = {name: c.tokenizer_vocab() for name, c in checkpoints.items()}
    known = {name: vocab for name, vocab in vocabularies.items() if vocab is not None}
    if len(known) < 2:
        return
    first_name, first = next(iter(known.items()))
    others = [name for name, vocab in known.items() if vocab != first]
    if others:
        found.facts.append(f"tokenizers: {', '.join(others)} differ from {first_name}")
    else:
        found.facts.append(f"tokenizers: all {len(known)} agree ({len(first)} tokens)")


def _plan(
    recipe: Recipe,
    checkpoints: dict[str, Checkpoint],
    found: Inspection,
    *,
    quiet: bool = False,
) -> MergePlan | None:
    used = {name: checkpoints[name] for name in recipe.model_names() if name in checkpoints}
    try:
        plan = plan_merge(recipe, used)
    except EvomergeError as error:
        if str(error) not in found.problems:
            found.problems.append(str(error))
        return None
    if not quiet:
        layers = plan.config.get("num_hidden_layers")
        what = f"{len(plan.outputs)} tensors" + (f", {layers} layers" if layers else "")
        found.facts.append(f"result: {recipe.merge_method}, {what}, {plan.out_dtype}")
    return plan


def _try_values(space: Space, checkpoints: dict[str, Checkpoint], found: Inspection) -> None:
    """Say how much of a space has values that do not go together: such candidates fail."""
    generator = np.random.default_rng(0)
    reasons = []
    for _ in range(_DRAWS):
        vector = generator.random(len(space.dimensions)).tolist()
        try:
            recipe = space.decode(space.from_unit(vector))
            plan_merge(recipe, {name: checkpoints[name] for name in recipe.model_names()})
        except EvomergeError as error:
            reasons.append(str(error))
    if reasons:
        found.notes.append(
            f"{len(reasons)} of {_DRAWS} random candidates would fail, so narrow the ranges; the "
            f"first: {reasons[0]}"
        )


def _memory(
    plan: MergePlan, checkpoints: dict[str, Checkpoint], space: Space, found: Inspection
) -> None:
    evaluation = space.document.evaluation
    sources = sum(checkpoint.num_bytes for checkpoint in checkpoints.values())
    if evaluation.backend == "vllm":
        merged = sum(output.numel * _DTYPE_BYTES.get(output.dtype, 4) for output in plan.outputs)
        found.memory_bytes = {"sources": sources, "merged": merged, "total": sources + merged}
        found.facts.append(
            f"each worker needs about {_size(sources + merged)} beside what vLLM takes for itself: "
            f"{_size(sources)} of sources and {_size(merged)} of merged model"
        )
        return
    dtype = evaluation.dtype
    size = _DTYPE_BYTES[dtype if dtype != "auto" else "float32"]
    live = sum(output.numel for output in plan.outputs) * size
    found.memory_bytes = {"sources": sources, "live_model": live, "total": sources + live}
    found.facts.append(
        f"each worker needs about {_size(sources + live)}: {_size(sources)} of sources and "
        f"{_size(live)} of live model ({dtype if dtype != 'auto' else 'float32 on a CPU'}), "
        "plus activations"
    )


def _inspect_constraints(space: Space, found: Inspection) -> None:
    try:
        reference_baselines(space, baselines(space))
    except EvomergeError as error:
        if str(error) not in found.problems:
            found.problems.append(str(error))
        return
    for task, at_least in space.document.constraints.at_least.items():
        found.facts.append(f"constraint: {task} at least {at_least}")


def _inspect_optimizer(space: Space, tasks: TaskSet | None, found: Inspection) -> None:
    settings = space.document.search
    try:
        check_user_class(settings.optimizer, space.origin.folder)
    except EvomergeError as error:
        found.problems.append(str(error))
        return
    if settings.optimizer == AUTO:
        whole = None if tasks is None else sum(map(len, tasks.items("search").values()))
        choice = choose(space, settings, len(space.document.objective), items_per_trial=whole)
        found.facts.append(f"optimizer: auto takes {choice.name} ({choice.reason})")
    else:
        found.facts.append(f"optimizer: {settings.optimizer}")


def _range(dimension: Dimension) -> str:
    where = f" (with {dimension.condition})" if dimension.condition else ""
    if dimension.kind == "choice":
        return " | ".join(str(choice) for choice in dimension.choices) + where
    log = " (log)" if dimension.log else ""
    return f"{dimension.low:g} … {dimension.high:g}{log}{where}"


def _size(num_bytes: int) -> str:
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:,.1f} MiB"
    return f"{num_bytes / 2**30:,.1f} GiB"
