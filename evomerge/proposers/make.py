"""From the name in a space file to a proposer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optuna.samplers import BaseSampler

from evomerge.proposers.base import Proposer, Told, UnitSpace
from evomerge.proposers.cma_es import CmaProposer
from evomerge.proposers.optuna_samplers import OptunaProposer, random_sampler, tpe_sampler
from evomerge.space import SearchSettings, Value

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


def _optuna(make_sampler: Callable[[int], BaseSampler]) -> "_Maker":
    def make(space: UnitSpace, settings: SearchSettings, begin: _Start) -> Proposer:
        return OptunaProposer(
            space,
            make_sampler,
            seed=settings.seed,
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
    "tpe": _optuna(tpe_sampler),
    "surrogate": _surrogate,
    "random": _optuna(random_sampler),
}


def make_proposer(
    space: UnitSpace,
    settings: SearchSettings,
    *,
    start: Mapping[str, Value],
    known: Known,
    num_objectives: int = 1,
) -> Proposer:
    """Make the proposer that the settings name.

    Args:
        space: What is searched.
        settings: Optimizer, seed, step size and population.
        start: The point to start from.
        known: Points of the space whose objectives are known already.
        num_objectives: How many numbers are raised.
    """
    return PROPOSERS[settings.optimizer](space, settings, _Start(start, known, num_objectives))
