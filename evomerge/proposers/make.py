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
from evomerge.proposers.tpe import TpeProposer
from evomerge.proposers.user import make_user_proposer
from evomerge.space import AUTO, SearchSettings, Value, check_optimizer, is_user_class

__all__ = ["PROPOSERS", "make_proposer"]

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
) -> Proposer:
    """Make the proposer that the settings name; for ``auto``, the one that ``choose`` names.

    Args:
        space: What is searched.
        settings: Optimizer, seed, step size and population.
        start: The point to start from.
        known: Points of the space whose objectives are known already.
        num_objectives: How many numbers are raised.
        folder: The space file's folder, where a proposer of the user's is looked for.

    Raises:
        SpaceError: if the optimizer cannot search this space, or cannot be made.
    """
    name = settings.optimizer
    if name == AUTO:
        name = choose(space, settings, num_objectives).name
    if is_user_class(name):
        return make_user_proposer(
            name,
            folder,
            space,
            start=start,
            known=known,
            seed=settings.seed,
            num_objectives=num_objectives,
        )
    objectives = [f"objective {index + 1}" for index in range(num_objectives)]
    check_optimizer(name, space.dimensions, objectives)
    return PROPOSERS[name](space, settings, _Start(start, known, num_objectives))
