"""Which optimizer for which space and budget: what ``scripts/bench_proposers.py`` measured."""

from dataclasses import dataclass

from evomerge.proposers.base import UnitSpace
from evomerge.proposers.points import has_conditions
from evomerge.space import SearchSettings

__all__ = ["Choice", "choose"]

_MOST_MODELLED = 8
_MODELLED_TRIALS = 200
_DEFAULT_TRIALS = 100
_FEW_TRIALS = 100


@dataclass(frozen=True)
class Choice:
    """What ``auto`` stands for.

    Attributes:
        name: The optimizer.
        reason: Why, in one sentence.
    """

    name: str
    reason: str


def choose(
    space: UnitSpace,
    settings: SearchSettings,
    num_objectives: int = 1,
    *,
    items_per_trial: int | None = None,
) -> Choice:
    """Choose an optimizer.

    A budget in items counts as the trials that it pays for without early stops, one in seconds as
    100. The choice follows the budget, so a run that is continued with a larger one keeps the
    choice it began with.

    Args:
        space: What is searched.
        settings: The budget.
        num_objectives: How many numbers are raised.
        items_per_trial: Search items of all tasks; without, items count as 100 trials too.
    """
    limits = [] if settings.trial_limit is None else [settings.trial_limit]
    if settings.items is not None and items_per_trial:
        limits.append(max(settings.items // items_per_trial, 1))
    trials = min(limits, default=_DEFAULT_TRIALS)
    count = len(space.dimensions)
    if num_objectives > 1:
        what = f"{num_objectives} objectives in {trials} trials"
        if trials <= _FEW_TRIALS:
            return Choice("tpe", f"{what}: it learns more than a genetic algorithm from few")
        genetic = "nsga2" if num_objectives == 2 else "nsga3"
        return Choice(genetic, f"{what}: with more than {_FEW_TRIALS} its front is the better one")
    if has_conditions(space.dimensions):
        what = f"values that exist only with some options, {trials} trials"
        if trials <= _MODELLED_TRIALS:
            return Choice("surrogate", f"{what}: a model of all results learns most from each")
        return Choice("nsga2", f"{what}: so many pay for a search that moves step by step")
    what = f"{count} searched value{'' if count == 1 else 's'} in {trials} trials"
    if count <= _MOST_MODELLED and trials <= _MODELLED_TRIALS:
        return Choice("surrogate", f"{what}: a model of all results learns most from each")
    if count <= _MOST_MODELLED:
        return Choice("cma", f"{what}: so many pay for a search that moves step by step")
    return Choice("cma", f"{what}: above {_MOST_MODELLED} values it comes nearer than a model")
