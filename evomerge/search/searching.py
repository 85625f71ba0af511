"""The search itself: ask, score, tell, until the budget is spent."""

import time
from collections.abc import Sequence
from typing import Any, TypedDict

from evomerge.errors import EvomergeError
from evomerge.evaluation import ItemScores
from evomerge.proposers import Proposer, Told
from evomerge.search.budget import Budget, Spent
from evomerge.search.dispatch import Dispatcher
from evomerge.search.flights import Flights, Landed
from evomerge.search.judging import Judge
from evomerge.search.ledger import Ledger
from evomerge.search.monitor import Monitor
from evomerge.search.plateau import Plateau
from evomerge.search.racing import Race, Racecourse
from evomerge.search.records import TrialRecord
from evomerge.search.replay import ProposerLog
from evomerge.space import Space
from evomerge.workers import Assignment, Outcome, PoolInfo, Scored

__all__ = ["Ending", "Search"]


class Ending(TypedDict):
    """Why a search ended, as the study keeps it.

    Attributes:
        reason: For people.
        exhausted: The proposer has nothing left.
        items: Item evaluations on the search items: the climb and the trials that were told.
        idle_trials: Trials since the last significant improvement.
    """

    reason: str | None
    exhausted: bool
    items: int
    idle_trials: int


class Search:
    """Trials that a proposer asks for.

    Args:
        space: What is searched.
        info: The workers.
        proposer: A new proposer; it is brought to where the study is.
        judge: Makes summaries.
        ledger: Where trials are written.
        monitor: Who watches.
        budget: When to end.
        baselines: The baselines that have scores, with their search items.
        spent: Item evaluations beside those of trials.
    """

    def __init__(
        self,
        space: Space,
        info: PoolInfo,
        proposer: Proposer,
        *,
        judge: Judge,
        ledger: Ledger,
        monitor: Monitor,
        budget: Budget,
        baselines: Sequence[tuple[TrialRecord, ItemScores]],
        spent: int = 0,
    ) -> None:
        self._space = space
        self._settings = space.document.search
        self._judge = judge
        self._ledger = ledger
        self._study = ledger.study
        self._monitor = monitor
        self._budget = budget
        self._items = spent + sum(r.search.num_items for r, _ in baselines if r.search)
        self._scores: dict[int, ItemScores] = {}
        self._races: dict[int, Race] = {}
        self._course = self._make_course(info, baselines)
        self._plateau = Plateau(judge.guiding)
        if self._settings.patience is not None:
            for record, scores in baselines:
                self._plateau.begin(record, scores)
        self._flights = Flights(judge, info.ids.get("search", {}))
        self.propose_seconds = 0.0
        history = [r for r in self._study.records.values() if r.kind == "proposed"]
        self._again = [record for record in history if record.state == "running"]
        self._log = ProposerLog(
            proposer,
            ordered=self._settings.ordered,
            workers=info.workers,
            history=history,
            told=judge.told,
            follower=self,
        )

    def run(self, dispatcher: Dispatcher) -> "Ending":
        """Score trials until the budget is spent; return why it ended."""
        done, total = self._budget.progress(self._spent())
        self._monitor.stage("search", total=total, done=done)
        dispatcher.drive(self._next_assignment, self._on_outcome)
        spent = self._spent()
        exhausted = self._log.should_stop()
        reason = self._budget.ended(spent) or exhausted
        self._monitor.note(f"the search ended ({reason})")
        return {
            "reason": reason,
            "exhausted": exhausted is not None,
            "items": spent.items,
            "idle_trials": spent.idle_trials,
        }

    def asked(self, number: int) -> None:
        """Make the race of a trial that the proposer was just asked for."""
        record = self._study.records.get(number)
        if self._course is not None and (record is None or record.state == "running"):
            limit = self._budget.items_left(self._spent())
            self._races[number] = self._course.begin(number, limit)

    def told(self, number: int) -> None:
        """Learn from a trial that the proposer was just told of."""
        record = self._study.records[number]
        if record.search is not None:
            self._items += record.search.num_items
        wanted = self._course is not None or self._settings.patience is not None
        scores = self._scores.pop(number, None)
        if scores is None and wanted:
            scores = self._ledger.items(record)
        if self._course is not None and scores is not None:
            self._course.told(record, scores)
        if self._settings.patience is not None:
            self._plateau.told(record, scores)

    def _make_course(
        self, info: PoolInfo, baselines: Sequence[tuple[TrialRecord, ItemScores]]
    ) -> Racecourse | None:
        racing = self._settings.racing
        if racing is False:
            return None
        course = Racecourse(
            info.ids["search"],
            info.objective,
            racing,
            self._judge,
            seed=self._settings.seed,
            estimator=self._settings.estimator,
        )
        course.add_baselines(baselines)
        return course

    def _spent(self) -> Spent:
        return Spent(
            trials=len(self._study.records),
            items=self._items,
            seconds=self._ledger.seconds,
            idle_trials=self._plateau.idle_trials,
        )

    def _ended(self) -> str | None:
        return self._budget.ended(self._spent()) or self._log.should_stop()

    def _next_assignment(self) -> Assignment | None:
        if self._again:
            record = self._again.pop(0)
            return self._flights.begin(record, self._races.pop(record.number, None))
        while self._log.may_ask() and self._ended() is None:
            record = self._propose()
            if record.state == "running":
                return self._flights.begin(record, self._races.pop(record.number, None))
            self._show(record)
        return None

    def _on_outcome(self, outcome: Outcome) -> Assignment | None:
        landed = self._flights.take(outcome)
        if isinstance(landed, Assignment):
            return landed
        self._end(landed)
        return None

    def _end(self, landed: Landed) -> None:
        number = landed.outcome.number
        order = self._log.place(number)
        record = self._ledger.finish(landed, order=order)
        if isinstance(landed.outcome, Scored) and landed.summary is not None:
            self._scores[number] = landed.outcome.scores
        self._log.tell(number, self._judge.told(record), order)
        self._show(record)

    def _show(self, record: TrialRecord) -> None:
        done, total = self._budget.progress(self._spent())
        self._monitor.finished(record, "search", done=done, total=total)

    def _propose(self) -> TrialRecord:
        started = time.perf_counter()
        point = self._log.ask(len(self._study.records))
        recipe: dict[str, Any] = {}
        reason = None
        try:
            recipe = self._space.decode(point).to_dict()
        except EvomergeError as error:
            reason = " ".join(str(error).split())
        self.propose_seconds += time.perf_counter() - started
        record = self._study.begin(
            kind="proposed",
            label=None,
            recipe=recipe,
            point=point,
            asked_after=self._log.num_told,
            seed=self._settings.seed,
        )
        if reason is None:
            return record
        order = self._log.place(record.number)
        record = self._ledger.fail(record.number, reason, {}, order=order)
        self._log.tell(record.number, Told(None), order)
        return record
