"""Optuna's samplers as proposers."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from evomerge.proposers.base import Told, UnitSpace
from evomerge.space import Dimension, Value

__all__ = ["OptunaProposer", "distribution", "random_sampler", "tpe_sampler"]

optuna.logging.set_verbosity(optuna.logging.WARNING)


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return a dimension in Optuna's words."""
    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.choices)
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def tpe_sampler(seed: int) -> BaseSampler:
    """Multivariate tree-structured Parzen estimator that knows which trials are under way."""
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def random_sampler(seed: int) -> BaseSampler:
    """Independent uniform draws."""
    return RandomSampler(seed=seed)


class OptunaProposer:
    """A sampler over a study in memory that holds only what was asked and told here.

    Each ask uses a new sampler whose seed is a function of the run's seed and the trial's number:
    the answer depends on nothing but the history, so there is no generator state to restore.

    Args:
        space: Dimensions and the unit cube.
        make_sampler: Seed -> sampler.
        seed: Seed of the run.
        known: Points with known objective, told before the first ask.
        num_objectives: How many numbers are raised.
    """

    def __init__(
        self,
        space: UnitSpace,
        make_sampler: Callable[[int], BaseSampler],
        *,
        seed: int,
        known: Sequence[tuple[Mapping[str, Value], Told]],
        num_objectives: int = 1,
    ) -> None:
        self._distributions = {d.name: distribution(d) for d in space.dimensions}
        self._make_sampler = make_sampler
        self._seed = seed
        directions = [StudyDirection.MAXIMIZE] * num_objectives
        self._study = optuna.create_study(directions=directions, sampler=make_sampler(seed))
        self._inner: dict[int, int] = {}
        self._count = 0
        for point, told in known:
            self._add(point, TrialState.COMPLETE, told.values)

    def ask(self, number: int) -> dict[str, Value]:
        """Return the sampler's next point."""
        sequence = np.random.SeedSequence([self._seed, number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._make_sampler(int(sequence.generate_state(1)[0]))
            trial = self._study.ask(fixed_distributions=self._distributions)
        self._inner[number] = trial.number
        self._count += 1
        return dict(trial.params)

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Put an earlier process's question into the history."""
        self._inner[number] = self._count
        self._add(point, TrialState.RUNNING, None)

    def tell(self, number: int, told: Told) -> None:
        """Take one result."""
        if number not in self._inner:
            raise RuntimeError(f"trial {number} was not asked, or was told before")
        inner = self._inner.pop(number)
        if told.values is None:
            self._study.tell(inner, state=TrialState.FAIL)
        else:
            self._study.tell(inner, list(told.values))

    def should_stop(self) -> str | None:
        """Samplers always have a next point."""
        return None

    def _add(
        self, point: Mapping[str, Value], state: TrialState, values: tuple[float, ...] | None
    ) -> None:
        distributions = {name: self._distributions[name] for name in point}
        trial = create_trial(
            state=state, values=values, params=dict(point), distributions=distributions
        )
        self._study.add_trial(trial)
        self._count += 1
