"""From the name in a space file to a proposer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.proposers.auto import choose
from evomerge.proposers.base import Proposer, Told, UnitSpace
from evomerge.proposers.cma_es import CmaProposer
from evomerge.proposers.gaussian_process import GaussianProcessProposer
from evomerge.proposers.nsga import Nsga2Proposer, Nsga3Proposer
from evomerge.proposers.optuna_study import OptunaProposer
from evomerge.proposers.qmc import QmcProposer
from evomerge.proposers.random_draws import RandomProposer
from evomerge.proposers.stage_plan import StagePlan, plan_stages
from evomerge.proposers.staged import StagedProposer
from evomerge.proposers.tpe import TpeProposer
from evomerge.proposers.user import make_user_proposer
from evomerge.space import AUTO, SearchSettings, Value, check_optimizer, is_user_class

__all__ = ["PROPOSERS", "make_proposer", "plan_for"]

_LATER_STEP = 0.5
"""First step of CMA-ES in a stage that starts where another one ended, as a share of `sigma`."""

Known = Sequence[tuple[Mapping[str, Value], Told]]


@dataclass(frozen=True)
class _Start:
    """What is known before the first question."""

    start: Mapping[str, Value]
    known: Known
    num_objectives: int


def _cma(space: UnitSpace, settings: SearchSettings, begin: _Start) -> Proposer:
    return CmaProposer(  # its start is the best of what is known
        space,
        start=space.to_unit(begin.start),
        sigma=settings.sigma,
        population=settings.population,
        seed=settings.seed,
    )


def _qmc(space: UnitSpace, settings: SearchSettings, begin: _Start) -> Proposer:
    return QmcProposer(space, seed=settings.seed, num_objectives=begin.num_objectives)


def _sampler(proposer: type[OptunaProposer]) -> "_Maker":
    def make(space: UnitSpace, settings: SearchSettings, begin: _Start) -> Proposer:
        return proposer(
            space, seed=settings.seed, known=begin.known, num_objectives=begin.num_objectives
        )

    return make


def _genetic(proposer: type[Nsga2Proposer] | type[Nsga3Proposer]) -> "_Maker":
    def make(space: UnitSpace, settings: SearchSettings, begin: _Start) -> Proposer:
        return proposer(
            space,
            seed=settings.seed,
            population=settings.population,
            known=begin.known,
            num_objectives=begin.num_objectives,
        )

    return make


def _surrogate(space: UnitSpace, settings: SearchSettings, begin: _Start) -> Proposer:
    from evomerge.proposers.surrogate import SurrogateProposer

    return SurrogateProposer(
        space,
        start=begin.start,
        known=begin.known,
        seed=settings.seed,
        num_objectives=begin.num_objectives,
    )


_Maker = Callable[[UnitSpace, SearchSettings, _Start], Proposer]

PROPOSERS: Mapping[str, _Maker] = {
    "cma": _cma,
    "tpe": _sampler(TpeProposer),
    "surrogate": _surrogate,
    "gp": _sampler(GaussianProcessProposer),
    "nsga2": _genetic(Nsga2Proposer),
    "nsga3": _genetic(Nsga3Proposer),
    "qmc": _qmc,
    "random": _sampler(RandomProposer),
}


def make_proposer(
    space: UnitSpace,
    settings: SearchSettings,
    *,
    start: Mapping[str, Value],
    known: Known,
    num_objectives: int = 1,
    folder: Path = Path(),
    plan: StagePlan | None = None,
) -> Proposer:
    """Make the proposer that the settings name; for ``auto``, the one that ``choose`` names.

    Args:
        space: What is searched.
        settings: Optimizer, seed, step size, population, stages and budget.
        start: The point to start from.
        known: Points of the space whose objectives are known already.
        num_objectives: How many numbers are raised.
        folder: The space file's folder, where a proposer of the user's is looked for.
        plan: The stages; by default those that :func:`plan_for` returns.

    Raises:
        SpaceError: if the optimizer cannot search this space, or cannot be made.
    """
    name = _name(space, settings, num_objectives)
    if not is_user_class(name):
        objectives = [f"objective {index + 1}" for index in range(num_objectives)]
        check_optimizer(name, space.dimensions, objectives)

    def make(stage: int, view: UnitSpace, begin: Mapping[str, Value], results: Known) -> Proposer:
        if is_user_class(name):
            return make_user_proposer(
                name,
                folder,
                view,
                start=begin,
                known=results,
                seed=settings.seed,
                num_objectives=num_objectives,
            )
        sigma = settings.sigma if stage == 0 else settings.sigma * _LATER_STEP
        of_stage = settings.model_copy(update={"sigma": sigma})
        return PROPOSERS[name](view, of_stage, _Start(begin, results, num_objectives))

    plan = plan or plan_stages(space, settings, name, known)
    if not plan.stages:
        return make(0, space, start, known)
    return StagedProposer(
        space, plan.of(space), make, start=start, known=known, num_objectives=num_objectives
    )


def plan_for(
    space: UnitSpace, settings: SearchSettings, known: Known, num_objectives: int = 1
) -> StagePlan:
    """Return the stages of a search by the optimizer that the settings name.

    Raises:
        SpaceError: if stages are wanted and neither trials nor items limit the search.
    """
    return plan_stages(space, settings, _name(space, settings, num_objectives), known)


def _name(space: UnitSpace, settings: SearchSettings, num_objectives: int) -> str:
    if settings.optimizer == AUTO:
        return choose(space, settings, num_objectives).name
    return settings.optimizer
