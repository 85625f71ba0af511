"""A sampler of Optuna's as a proposer: what its families share."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState, create_trial

from evomerge.proposers.base import Told, UnitSpace
from evomerge.proposers.pending import Pending, check_told
from evomerge.proposers.points import has_conditions
from evomerge.space import Dimension, Value

__all__ = ["OptunaProposer", "distribution"]

# Failures are told by the study; the Gaussian process warns that it could be faster.
optuna.logging.set_verbosity(optuna.logging.ERROR)


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return a dimension in Optuna's words."""
    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.choices)
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


class OptunaProposer(ABC):
    """A sampler over a study in memory that holds only what was asked and told here.

    Each ask uses a new sampler whose seed is a function of the run's seed and the trial's number:
    the answer depends on nothing but the history, so there is no generator state to restore.
    Dimensions are suggested in their order, those without their condition left out.

    Args:
        space: Dimensions and the unit cube.
        seed: Seed of the run.
        known: Points with known objective, told before the first ask.
        num_objectives: How many numbers are raised.
    """

    def __init__(
        self,
        space: UnitSpace,
        *,
        seed: int,
        known: Sequence[tuple[Mapping[str, Value], Told]] = (),
        num_objectives: int = 1,
    ) -> None:
        self._dimensions = space.dimensions
        self._distributions = {d.name: distribution(d) for d in space.dimensions}
        self._has_conditions = has_conditions(space.dimensions)
        self._seed = seed
        self._num_objectives = num_objectives
        directions = [StudyDirection.MAXIMIZE] * num_objectives
        self._study = optuna.create_study(directions=directions, sampler=self._sampler_of(0))
        self._pending: Pending[int] = Pending()
        self._count = 0
        for point, told in known:
            check_told(told, num_objectives)
            if told.values is not None:
                self._add_known(point, told.values)

    @abstractmethod
    def _make_sampler(self, seed: int) -> BaseSampler:
        """Return a new sampler."""

    def ask(self, number: int) -> dict[str, Value]:
        """Return the sampler's next point."""
        self._pending.add(number, self._count + self._has_conditions)
        trial = self._begin(number)
        point = self._suggest(trial)
        if self._has_conditions:
            # What the sampler drew for values that do not exist here is no part of the history: its
            # trial is dropped, and the point itself put in, as a resumed run puts it in.
            self._study.tell(trial, state=TrialState.FAIL)
            self._add(point, TrialState.RUNNING)
        return point

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Put an earlier process's question into the history."""
        self._pending.add(number, self._count)
        self._add(point, TrialState.RUNNING)

    def tell(self, number: int, told: Told) -> None:
        """Take one result."""
        check_told(told, self._num_objectives)
        inner = self._pending.take(number)
        if told.values is None:
            self._study.tell(inner, state=TrialState.FAIL)
        else:
            self._study.tell(inner, list(told.values))

    def should_stop(self) -> str | None:
        """Samplers always have a next point."""
        return None

    def _begin(self, number: int) -> Trial:
        """Begin a trial of the inner study with the sampler of a question."""
        self._study.sampler = self._sampler_of(number)
        self._count += 1
        return self._study.ask()

    def _suggest(self, trial: Trial) -> dict[str, Value]:
        point: dict[str, Value] = {}
        for dimension in self._dimensions:
            if dimension.exists(point):
                point[dimension.name] = _suggest(trial, dimension)
        return point

    def _suggest_all(self, trial: Trial) -> dict[str, Value]:
        """Return a value for every dimension, conditions or not."""
        return {dimension.name: _suggest(trial, dimension) for dimension in self._dimensions}

    def _add_known(self, point: Mapping[str, Value], values: tuple[float, ...]) -> None:
        self._add(point, TrialState.COMPLETE, values)

    def _add(
        self,
        point: Mapping[str, Value],
        state: TrialState,
        values: tuple[float, ...] | None = None,
    ) -> None:
        trial = create_trial(
            state=state,
            values=values,
            params=dict(point),
            distributions={name: self._distributions[name] for name in point},
        )
        self._study.add_trial(trial)
        self._count += 1

    def _sampler_of(self, number: int) -> BaseSampler:
        sequence = np.random.SeedSequence([self._seed, number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self._make_sampler(int(sequence.generate_state(1)[0]))


def _suggest(trial: Trial, dimension: Dimension) -> Value:
    if dimension.kind == "choice":
        return trial.suggest_categorical(dimension.name, dimension.choices)
    if dimension.kind == "int":
        low, high = int(dimension.low), int(dimension.high)
        return int(trial.suggest_int(dimension.name, low, high, log=dimension.log))
    value = trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.log)
    return float(value)  # some samplers give numpy's numbers
