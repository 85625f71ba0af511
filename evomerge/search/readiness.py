"""Whether the candidates and baselines of a space can be asked its questions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from evomerge.checkpoints import Checkpoint
from evomerge.documents import Origin
from evomerge.engine import plan_merge
from evomerge.errors import EvaluationError, EvomergeError
from evomerge.evaluation import check_readiness
from evomerge.recipe import Recipe, parse_recipe
from evomerge.search.baselines import baselines
from evomerge.space import Space, usual_point

__all__ = ["find_unready"]


def find_unready(
    space: Space, checkpoints: Mapping[str, Checkpoint], answers: Mapping[str, int]
) -> list[str]:
    """Find out which baselines would fail for their tokenizer or their config.

    Args:
        space: The space.
        checkpoints: Its models.
        answers: Task -> tokens that an answer may have.

    Returns:
        A line for each.

    Raises:
        EvaluationError: if no candidate could be scored.
    """
    evaluation = space.document.evaluation
    if not (evaluation.apply_chat_template or answers):
        return []

    def refusal(recipe: Recipe) -> EvomergeError | None:
        try:
            plan = plan_merge(recipe, {name: checkpoints[name] for name in recipe.model_names()})
            with TemporaryDirectory(prefix="evomerge-tokenizer-") as place:
                folder = plan.tokenizer.place(Path(place))
                check_readiness(plan.config, folder, evaluation, answers)
        except EvomergeError as error:
            return error
        return None

    reasons = []
    for recipe in _candidates(space):
        if (reason := refusal(recipe)) is None:
            break
        reasons.append(reason)
    else:
        raise EvaluationError(f"no candidate could be scored: {reasons[0]}") from reasons[0]
    found = []
    for each in baselines(space):
        reason = refusal(parse_recipe(dict(each.recipe), Origin(each.name)))
        if reason is not None:
            found.append(f"baseline {each.name} will fail: {reason}")
    return found


def _candidates(space: Space) -> Iterator[Recipe]:
    """Yield the usual candidate, and one for each option of each choice."""
    for point in (usual_point(space), *(each.point for each in space.option_points())):
        yield space.decode(point)
