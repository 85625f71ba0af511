"""Genetic algorithms for several objectives, by Optuna.

Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002; Deb and Jain, An
evolutionary many-objective optimization algorithm using reference-point-based nondominated
sorting approach, 2014.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler
from optuna.samplers.nsgaii import BLXAlphaCrossover, PolynomialMutation
from optuna.trial import TrialState

from evomerge.proposers.base import Told, UnitSpace
from evomerge.proposers.optuna_study import OptunaProposer
from evomerge.proposers.points import active, check_same, completed
from evomerge.space import Value

__all__ = ["Nsga2Proposer", "Nsga3Proposer"]

POPULATION = 20


class _NsgaProposer(OptunaProposer):
    """A genetic algorithm without a barrier between generations.

    A question belongs to the next generation as soon as ``population`` results of the current one
    are there; its parents are chosen once, by the question that needs them first. So a resumed run
    asks every question again. Known points are members of the first generation. A value that does
    not exist at a point is kept beside it, as a gene that is not expressed.

    Args:
        space: Dimensions and the unit cube.
        seed: Seed of the run.
        population: Results in a generation.
        known: Points with known objective, told before the first ask.
        num_objectives: How many numbers are raised.
    """

    _sampler_type: type[NSGAIISampler] | type[NSGAIIISampler]

    def __init__(
        self,
        space: UnitSpace,
        *,
        seed: int,
        population: int | None = None,
        known: Sequence[tuple[Mapping[str, Value], Told]] = (),
        num_objectives: int = 1,
    ) -> None:
        self._population = population or POPULATION
        super().__init__(space, seed=seed, known=known, num_objectives=num_objectives)

    def ask(self, number: int) -> dict[str, Value]:
        """Return a child of the current generation."""
        self._pending.add(number, self._count)
        return active(self._dimensions, self._suggest_all(self._begin(number)))

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Ask again what an earlier process asked, and check that the answer is the same."""
        check_same(number, self.ask(number), point, "Optuna")

    def _make_sampler(self, seed: int) -> BaseSampler:
        return self._sampler_type(
            seed=seed,
            population_size=self._population,
            crossover=BLXAlphaCrossover(),
            mutation=PolynomialMutation(),
        )

    def _add_known(self, point: Mapping[str, Value], values: tuple[float, ...]) -> None:
        inner = self._count
        self._add(completed(self._dimensions, point), TrialState.RUNNING)
        trial = self._study.get_trials(deepcopy=False)[inner]
        sampler = cast("NSGAIISampler", self._study.sampler)
        sampler.get_trial_generation(self._study, trial)  # joins the first one
        self._study.tell(inner, list(values))


class Nsga2Proposer(_NsgaProposer):
    """NSGA-II: by rank, then by crowding distance."""

    _sampler_type = NSGAIISampler


class Nsga3Proposer(_NsgaProposer):
    """NSGA-III: by rank, then by reference directions; for three objectives and more."""

    _sampler_type = NSGAIIISampler
