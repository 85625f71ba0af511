"""Racing: a candidate that clearly loses on some items is not scored on the rest.

Maron and Moore 1994, "Hoeffding races"; the comparison is the paired one of this program, and items
come in rungs. Every trial draws its own order of the items, so that no candidate is chosen for what
it does on the few that always come first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from evomerge.evaluation import ItemScores
from evomerge.evaluation.sampling import SampledScore, Strata, draw_items, make_strata
from evomerge.search.estimators import Estimates, Estimator, make_estimator
from evomerge.search.judging import Judge
from evomerge.search.records import Summary, TrialRecord
from evomerge.space import RacingSettings
from evomerge.space.racing import Estimator as EstimatorName

__all__ = ["Race", "Racecourse", "default_rungs"]

Items = Mapping[str, Sequence[str]]

FIRST_RUNG = 32
GROWTH = 2
SHORT_CONFIDENCE = 0.95
"""How sure it must be, at least, that a constraint is violated. Good candidates lie close to it,
where a lower one, as it does among equals in the objective, would stop many that hold it."""


def default_rungs(num_items: int) -> tuple[int, ...]:
    """Return the rungs for a number of items: 32, 64, 128, … and all of them.

    The last step at least doubles what is known, so that it is worth a comparison of its own.
    """
    rungs = []
    size = FIRST_RUNG
    while size * GROWTH <= num_items:
        rungs.append(size)
        size *= GROWTH
    return (*rungs, num_items)


@dataclass(frozen=True)
class _Rival:
    """A trial that was scored on all items, and that others are measured against."""

    number: int
    values: tuple[float, ...]


class Race:
    """The course of one trial; what it is measured against was fixed when it was asked for.

    Args:
        order: Every item of every task, in the order of this trial.
        rungs: Numbers of items after which it is compared, the last one all.
        estimates: ``reported`` and, where smooth metrics guide the search, ``guiding`` -> the
            estimates of all tasks' scores.
        rivals: Trials to measure against; none before one is complete.
        confidence: How sure a loss must be.
        judge: Makes summaries.
    """

    def __init__(
        self,
        order: Sequence[tuple[str, str]],
        rungs: Sequence[int],
        *,
        estimates: Mapping[str, Estimates],
        rivals: Sequence["_Rival"],
        confidence: float,
        judge: Judge,
    ) -> None:
        self._order = order
        self._rungs = list(rungs)
        self._num_items = len(order)
        self._estimates = estimates
        self._rivals = rivals
        self._margin = NormalDist().inv_cdf(confidence)
        self._short_margin = NormalDist().inv_cdf(max(confidence, SHORT_CONFIDENCE))
        self._judge = judge
        self._done = 0

    def next_items(self) -> dict[str, tuple[str, ...]]:
        """Return the items of the next rung."""
        found: dict[str, list[str]] = {}
        for task, item in self._order[self._done : self._rungs[0]]:
            found.setdefault(task, []).append(item)
        return {task: tuple(items) for task, items in found.items()}

    def take(self, scores: ItemScores) -> bool:
        """Take what the trial has so far; return whether it goes on.

        Args:
            scores: All of its items up to and with the last rung asked for.

        Raises:
            EvaluationError: if an objective cannot be computed.
        """
        self._done = self._rungs.pop(0)
        if not self._rungs:
            return False
        # Rivals hold the constraints, so whoever does not ranks below them whatever its score.
        reported = self._estimates["reported"](scores)
        if self._rivals and self._judge.falls_short(reported, self._short_margin):
            return False
        summary = self._summary(scores, reported)
        return not any(self._loses(summary, rival) for rival in self._rivals)

    @property
    def is_complete(self) -> bool:
        """Whether all items were scored."""
        return self._done == self._num_items

    def summarize(self, scores: ItemScores) -> Summary:
        """Return the estimates for the whole item set.

        Raises:
            EvaluationError: if an objective cannot be computed.
        """
        return self._summary(scores, self._estimates["reported"](scores))

    def _summary(self, scores: ItemScores, reported: Mapping[str, SampledScore]) -> Summary:
        guiding = self._estimates.get("guiding")
        return self._judge.estimate(
            reported, reported if guiding is None else guiding(scores.guiding())
        )

    def _loses(self, summary: Summary, rival: _Rival) -> bool:
        """Return whether the trial is clearly worse in every objective."""
        rows = zip(summary.guiding, summary.sampling_stderrs, rival.values, strict=True)
        return all(value < other - self._margin * stderr for value, stderr, other in rows)


class Racecourse:
    """What all races of a run share: the items, what is known of them, and the rivals.

    It follows the log of the proposer, so that a resumed run has the same races.

    Args:
        items: Task -> ids of its search items.
        weights: Task -> weight in the first objective.
        settings: Rungs, confidence and order.
        judge: Makes summaries.
        seed: The run's seed.
        estimator: How scores are estimated from a part of the items.
    """

    def __init__(
        self,
        items: Items,
        weights: Mapping[str, float],
        settings: RacingSettings,
        judge: Judge,
        *,
        seed: int,
        estimator: EstimatorName = "plain",
    ) -> None:
        self._items = {task: tuple(ids) for task, ids in items.items()}
        self._weights = weights
        self._settings = settings
        self._judge = judge
        self._seed = seed
        num_items = sum(len(ids) for ids in items.values())
        self._rungs = _fit_rungs(settings.rungs, num_items, len(items))
        self._estimator = estimator
        self._estimators: dict[str, Estimator] = {}
        self._strata: dict[str, Strata] = {}
        self._rivals: list[_Rival] = []

    def add_baselines(self, scored: Sequence[tuple[TrialRecord, ItemScores]]) -> None:
        """Take the baselines' results, before the first race: they divide the items.

        Args:
            scored: The baselines that have scores, on all search items.
        """
        # The first rung has two items of each stratum.
        most = self._rungs[0] // (2 * len(self._items))
        reported = [scores for _, scores in scored]
        guiding = [scores.guiding() for scores in reported]
        for task, ids in self._items.items():
            table = np.array([scores.by_task[task].select(ids).values for scores in guiding])
            self._strata[task] = make_strata(
                ids, table.reshape(-1, len(ids)), order=self._settings.order, most=most
            )
        self._estimators["reported"] = make_estimator(self._estimator, self._strata, reported)
        if not reported or any(scores.smooth for scores in reported):
            self._estimators["guiding"] = make_estimator(self._estimator, self._strata, guiding)
        for record, _ in scored:
            self._enter(record)

    def begin(self, number: int, limit: int | None = None) -> Race:
        """Return the race of a trial that is asked for now.

        Args:
            number: The trial.
            limit: Items that it may be scored on at most; the first rung always is.
        """
        generator = np.random.default_rng([self._seed, number])
        order = list(draw_items(self._strata, self._weights, generator))
        return Race(
            order,
            self._within(limit),
            estimates={kind: each.current() for kind, each in self._estimators.items()},
            rivals=tuple(self._rivals),
            confidence=self._settings.confidence,
            judge=self._judge,
        )

    def _within(self, limit: int | None) -> Sequence[int]:
        if limit is None:
            return self._rungs
        return [rung for rung in self._rungs if rung <= limit] or self._rungs[:1]

    def told(self, record: TrialRecord, scores: ItemScores) -> None:
        """Take a trial that the proposer was told of, in that order.

        Args:
            record: The trial, which has scores.
            scores: Its items.
        """
        if record.search is None:
            return
        self._estimators["reported"].learn(scores)
        if "guiding" in self._estimators:
            self._estimators["guiding"].learn(scores.guiding())
        if record.state == "complete":
            self._enter(record)

    def _enter(self, record: TrialRecord) -> None:
        """Keep the trial as a rival if no other one is better in every objective."""
        values = record.values
        if values is None or record.violation > 0:
            return
        rival = _Rival(record.number, values)
        if any(_is_dominated(values, other.values) for other in self._rivals):
            return
        self._rivals = [other for other in self._rivals if not _is_dominated(other.values, values)]
        self._rivals.append(rival)


def _is_dominated(mine: tuple[float, ...], theirs: tuple[float, ...]) -> bool:
    return all(other >= own for own, other in zip(mine, theirs, strict=True))


def _fit_rungs(wanted: Sequence[int] | None, num_items: int, num_tasks: int) -> tuple[int, ...]:
    """Return rungs that end with all items; each has two items of every task."""
    rungs = default_rungs(num_items) if wanted is None else wanted
    return (*(rung for rung in rungs if 2 * num_tasks <= rung < num_items), num_items)
