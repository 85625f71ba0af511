"""Trials under way: which items come next, and what came so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from evomerge.errors import EvaluationError
from evomerge.evaluation import ItemScores
from evomerge.search.judging import Judge
from evomerge.search.racing import Race
from evomerge.search.records import Summary, TrialRecord
from evomerge.workers import Assignment, Failed, Outcome

__all__ = ["Flights", "Landed"]


@dataclass(frozen=True)
class Landed:
    """A trial that has ended.

    Attributes:
        outcome: All that came of it, in the order of the split.
        summary: Its scores; None if it failed.
        stopped: Whether it stopped before all items were scored.
        reason: Why it failed.
    """

    outcome: Outcome
    summary: Summary | None
    stopped: bool = False
    reason: str | None = None


@dataclass
class _Flight:
    record: TrialRecord
    race: Race | None
    scores: ItemScores | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    asked: int = 0


class Flights:
    """Every trial that a worker has, or that waits for its next items.

    Args:
        judge: Makes summaries.
        items: Task -> ids of its search items, in the order of the split.
    """

    def __init__(self, judge: Judge, items: Mapping[str, tuple[str, ...]]) -> None:
        self._judge = judge
        self._items = items
        self._flights: dict[int, _Flight] = {}

    def begin(self, record: TrialRecord, race: Race | None = None) -> Assignment:
        """Return the first assignment of a trial; without a race it is all items."""
        flight = self._flights[record.number] = _Flight(record, race)
        return self._next(flight)

    def take(self, outcome: Outcome) -> Assignment | Landed:
        """Take an outcome; return the trial's next assignment, or what came of it."""
        flight = self._flights[outcome.number]
        for part, seconds in outcome.seconds.items():
            flight.seconds[part] = flight.seconds.get(part, 0.0) + seconds
        if isinstance(outcome, Failed):
            del self._flights[outcome.number]
            ended = replace(outcome, seconds=flight.seconds)
            return Landed(ended, None, reason=outcome.reason)
        asked = outcome.scored_items
        flight.asked += outcome.scores.num_items if asked is None else asked
        scores = self._judge.guide(outcome.scores)
        if flight.scores is not None:
            scores = flight.scores.merge(scores)
        flight.scores = scores = self._sorted(scores)
        whole = replace(outcome, scores=scores, seconds=flight.seconds, scored_items=flight.asked)
        race = flight.race
        try:
            if race is not None and race.take(scores):
                return self._next(flight)
            stopped = race is not None and not race.is_complete
            summary = (
                race.summarize(scores)
                if race is not None and stopped
                else self._judge.summarize(scores)
            )
        except EvaluationError as error:
            del self._flights[outcome.number]
            return Landed(whole, None, reason=" ".join(str(error).split()))
        del self._flights[outcome.number]
        return Landed(whole, summary, stopped)

    def _next(self, flight: _Flight) -> Assignment:
        items = None if flight.race is None else flight.race.next_items()
        return Assignment(flight.record.number, dict(flight.record.recipe), "search", items)

    def _sorted(self, scores: ItemScores) -> ItemScores:
        """Return the scores in the order of the split: sums must not depend on the draw."""
        there = {task: set(items.items) for task, items in scores.by_task.items()}
        return scores.select(
            {
                task: [item for item in ids if item in there[task]]
                for task, ids in self._items.items()
                if task in there
            }
        )
