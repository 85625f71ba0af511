"""Any checkpoint or recipe, scored as a run scores its candidates."""

from dataclasses import replace
from pathlib import Path

from evomerge.checkpoints import locate_models
from evomerge.documents import Origin
from evomerge.errors import EvaluationError
from evomerge.evaluation import ItemScores, Objective
from evomerge.evaluation.settings import Split
from evomerge.recipe import Recipe, load_recipe, parse_recipe
from evomerge.search.baselines import parent_recipe
from evomerge.search.records import Summary, summarize
from evomerge.search.run import worker_spec
from evomerge.space import Space
from evomerge.workers import Assignment, Failed, open_pool

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
    scores, objective = score_recipe(
        model, space, split=split, device=device, allow_code_execution=allow_code_execution
    )
    return summarize(scores, objective)


def score_recipe(
    model: str | Path | Recipe,
    space: Space,
    *,
    split: Split = "holdout",
    device: str = "auto",
    allow_code_execution: bool = False,
) -> tuple[ItemScores, Objective]:
    """Return the item scores of a checkpoint or recipe, and the objective they go into."""
    recipe = _as_recipe(model)
    spec = worker_spec(space, device=device, allow_code_execution=allow_code_execution)
    spec = replace(spec, models=recipe.model_names())
    with open_pool(spec) as pool:
        pool.submit(Assignment(0, recipe.to_dict(), split))
        outcome = pool.wait()
        if isinstance(outcome, Failed):
            raise EvaluationError(f"{model}: {outcome.reason}")
        return outcome.scores, Objective(pool.info.objective)


def _as_recipe(model: str | Path | Recipe) -> Recipe:
    if isinstance(model, Recipe):
        return model
    path = Path(model)
    if path.suffix in (".yml", ".yaml") or path.is_file():
        recipe = load_recipe(path)
        return parse_recipe(locate_models(recipe.to_dict(), path.parent), Origin(str(path)))
    return parse_recipe(parent_recipe(str(model)), Origin(str(model)))
