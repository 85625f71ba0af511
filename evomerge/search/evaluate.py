"""Any checkpoint or recipe, scored as a run scores its candidates."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.checkpoints import locate_models
from evomerge.documents import Origin
from evomerge.errors import EvaluationError
from evomerge.evaluation import ItemScores
from evomerge.evaluation.settings import BLENDED, Split
from evomerge.recipe import Recipe, load_recipe, parse_recipe
from evomerge.search.baselines import find_models, parent_recipe
from evomerge.search.objectives import (
    ObjectiveFacts,
    Objectives,
    best_parents,
    make_objectives,
    needs_parents,
)
from evomerge.search.records import Summary
from evomerge.search.run import worker_spec
from evomerge.space import Space
from evomerge.workers import Assignment, Failed, Sloped, open_pool

__all__ = ["evaluate_recipe", "score_recipe"]


def evaluate_recipe(
    model: str | Path | Recipe,
    space: Space,
    *,
    split: Split = "holdout",
    device: str = "auto",
    allow_code_execution: bool = False,
) -> Summary:
    """Score a checkpoint or recipe on a space's tasks.

    Args:
        model: Checkpoint directory, hub name, recipe file or recipe.
        space: Tasks, evaluation settings and seed.
        split: Which items.
        device: A torch device, or ``auto``.
        allow_code_execution: Tasks may run code that the model wrote, if the space says so too.

    Raises:
        EvomergeError: if it cannot be loaded or scored.
    """
    scores, objectives = score_recipe(
        model, space, split=split, device=device, allow_code_execution=allow_code_execution
    )
    return objectives.summarize(scores)


def score_recipe(
    model: str | Path | Recipe,
    space: Space,
    *,
    split: Split = "holdout",
    device: str = "auto",
    allow_code_execution: bool = False,
) -> tuple[ItemScores, Objectives]:
    """Return the item scores of a checkpoint or recipe, and the objectives they go into.

    Where an objective is relative to the space's parents, these are scored first.
    """
    recipe = _as_recipe(model)
    spec = worker_spec(space, device=device, allow_code_execution=allow_code_execution)
    # There are no baselines here to calibrate blends on, and no search for them to guide.
    tasks = tuple(
        task.model_copy(update={"smooth": None}) if task.smooth in BLENDED else task
        for task in spec.tasks
    )
    spec = replace(spec, tasks=tasks, evaluation=spec.evaluation.deciding())
    parents = find_models(space)[0] if needs_parents(space) else ()
    spec = replace(spec, models=tuple(dict.fromkeys((*recipe.model_names(), *parents))))
    with open_pool(spec) as pool:

        def score(plain: dict[str, Any], which: Split) -> ItemScores:
            pool.submit(Assignment(0, plain, which))
            outcome = pool.wait()
            assert not isinstance(outcome, Sloped)  # noqa: S101 - no tangents were asked for
            if isinstance(outcome, Failed):
                raise EvaluationError(f"{model}: {outcome.reason}")
            return outcome.scores

        known = [score(parent_recipe(name), "search") for name in parents]
        references = best_parents(known, space.document.search.seed) if known else None
        objectives = make_objectives(space, ObjectiveFacts.from_info(pool.info), references)
        return score(recipe.to_dict(), split), objectives


def _as_recipe(model: str | Path | Recipe) -> Recipe:
    if isinstance(model, Recipe):
        return model
    path = Path(model)
    if path.suffix in (".yml", ".yaml") or path.is_file():
        recipe = load_recipe(path)
        return parse_recipe(locate_models(recipe.to_dict(), path.parent), Origin(str(path)))
    return parse_recipe(parent_recipe(str(model)), Origin(str(model)))
