"""From the name in a space file to a proposer."""

from collections.abc import Callable, Mapping

from evomerge.proposers.base import Proposer, UnitSpace
from evomerge.proposers.cma_es import CmaProposer
from evomerge.proposers.optuna_samplers import OptunaProposer, random_sampler, tpe_sampler
from evomerge.space import SearchSettings, Value

__all__ = ["PROPOSERS", "make_proposer"]

Known = list[tuple[Mapping[str, Value], float]]


def _cma(
    space: UnitSpace, settings: SearchSettings, start: Mapping[str, Value], known: Known
) -> Proposer:
    del known  # the start is the best of them
    return CmaProposer(
        space,
        start=space.to_unit(start),
        sigma=settings.sigma,
        population=settings.population,
        seed=settings.seed,
    )


def _tpe(
    space: UnitSpace, settings: SearchSettings, start: Mapping[str, Value], known: Known
) -> Proposer:
    del start
    return OptunaProposer(space, tpe_sampler, seed=settings.seed, known=known)


def _random(
    space: UnitSpace, settings: SearchSettings, start: Mapping[str, Value], known: Known
) -> Proposer:
    del start
    return OptunaProposer(space, random_sampler, seed=settings.seed, known=known)


PROPOSERS: Mapping[
    str, Callable[[UnitSpace, SearchSettings, Mapping[str, Value], Known], Proposer]
] = {"cma": _cma, "tpe": _tpe, "random": _random}


def make_proposer(
    space: UnitSpace,
    settings: SearchSettings,
    *,
    start: Mapping[str, Value],
    known: Known,
) -> Proposer:
    """Make the proposer that the settings name.

    Args:
        space: What is searched.
        settings: Optimizer, seed, step size and population.
        start: The point to start from.
        known: Points of the space whose objective is known already.
    """
    return PROPOSERS[settings.optimizer](space, settings, start, known)
