"""The driver: composes study, proposer and workers; holds no algorithm of its own."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from evomerge.errors import EvaluationError, EvomergeError
from evomerge.proposers import Told, check_user_class, make_proposer
from evomerge.search.baselines import Baseline, baselines
from evomerge.search.cache import KnownResults, ResultCache
from evomerge.search.directory import RunDirectory
from evomerge.search.monitor import Monitor
from evomerge.search.objectives import (
    ObjectiveFacts,
    Objectives,
    best_parents,
    make_objectives,
    needs_parents,
)
from evomerge.search.records import TrialRecord
from evomerge.search.replay import ProposerLog
from evomerge.search.study import Study
from evomerge.space import Space
from evomerge.workers import Assignment, Outcome, Pool, Scored

__all__ = ["Driver"]


class Driver:
    """Fills a study.

    Every stage first repeats what an earlier process left under way, then goes on; a free worker
    gets the next assignment at once.

    Args:
        space: What is searched.
        study: Where it is recorded.
        directory: Where per-item scores are kept.
        pool: Who evaluates.
        monitor: Who watches.
        session: Number of this process in the run's history.
        started: ``time.perf_counter()`` when this process began.
        cache: What is known already.

    Raises:
        EvomergeError: if an objective cannot be made.
    """

    def __init__(
        self,
        space: Space,
        study: Study,
        directory: RunDirectory,
        pool: Pool,
        monitor: Monitor,
        *,
        session: int,
        started: float,
        cache: ResultCache | None = None,
    ) -> None:
        self._space = space
        self._settings = space.document.search
        check_user_class(self._settings.optimizer, space.origin.folder)
        self._study = study
        self._directory = directory
        self._pool = pool
        self._monitor = monitor
        self._session = session
        self._started = started
        self._baselines = baselines(space)
        self._known = None if cache is None else KnownResults(cache)
        self._facts = ObjectiveFacts.from_info(pool.info)
        self._study.set_attribute("objective", self._facts.to_dict())
        self._objectives = self._make_objectives()
        self.propose_seconds = 0.0

    def score_baselines(self) -> None:
        """Score every baseline on the search items.

        Raises:
            EvaluationError: if no baseline at all could be scored.
        """
        known = {(r.kind, r.label): r for r in self._records("baseline")}
        todo = [b for b in self._baselines if (b.kind, b.name) not in known]
        again = [record for record in known.values() if record.state == "running"]
        total = len(self._baselines)
        self._monitor.stage("baselines", total=total, done=total - len(todo) - len(again))
        if self._objectives is None:
            # No trial has a value before the best parent of each task is known.
            first = [each for each in again if each.kind == "parent"]
            new = [each for each in todo if each.kind == "parent"]
            held: list[Outcome] = []
            self._drive_all(chain(first, map(self._begin_baseline, new)), held.append)
            self._note_parents(held)
            for outcome in sorted(held, key=lambda each: each.number):
                self._monitor.finished(self._finish(outcome, order=None), "baselines")
            again = [each for each in again if each.kind != "parent"]
            todo = [each for each in todo if each.kind != "parent"]

        def on_outcome(outcome: Outcome) -> None:
            self._monitor.finished(self._finish(outcome, order=None), "baselines")

        self._drive_all(chain(again, map(self._begin_baseline, todo)), on_outcome)
        records = self._records("baseline")
        if all(record.state == "failed" for record in records):
            raise EvaluationError(
                f"no baseline could be scored; {records[0].label}: {records[0].reason}"
            )

    def search(self) -> None:
        """Ask, score and tell until the budget is spent."""
        history = self._records("proposed")
        log = ProposerLog(
            self._make_proposer(),
            ordered=self._settings.ordered,
            workers=self._pool.info.workers,
            history=history,
        )
        again = [record for record in history if record.state == "running"]
        budget = max(self._settings.trials, len(self._study.records))
        done = len(history) - len(again)
        total = done + len(again) + budget - len(self._study.records)
        self._monitor.stage("search", total=total, done=done)

        def next_assignment() -> Assignment | None:
            if again:
                return self._assign(again.pop(0))
            while len(self._study.records) < budget and log.may_ask() and not log.should_stop():
                record = self._propose(log)
                if record.state == "running":
                    return self._assign(record)
                self._monitor.finished(record, "search")
            return None

        def on_outcome(outcome: Outcome) -> None:
            order = log.place(outcome.number)
            record = self._finish(outcome, order=order)
            log.tell(record.number, record.values, order)
            self._monitor.finished(record, "search")

        self._drive(next_assignment, on_outcome)

    def score_holdout(self, records: list[TrialRecord]) -> None:
        """Score trials on the held-out items; one that fails there keeps no held-out score."""
        todo = [record for record in records if record.holdout is None]
        self._monitor.stage("holdout", total=len(records), done=len(records) - len(todo))

        def next_assignment() -> Assignment | None:
            if not todo:
                return None
            record = todo.pop(0)
            return Assignment(record.number, dict(record.recipe), "holdout")

        def on_outcome(outcome: Outcome) -> None:
            record = self._study.records[outcome.number]
            if isinstance(outcome, Scored):
                self._keep_items(outcome)
                # A user's function may fail here too: then there is no held-out score.
                with contextlib.suppress(EvaluationError):
                    record = self._study.set_holdout(
                        outcome.number,
                        self._summarizer.summarize(outcome.scores),
                        seconds=dict(outcome.seconds),
                        scored_items=outcome.scored_items,
                    )
            self._monitor.finished(record, "holdout")

        self._drive(next_assignment, on_outcome)

    def _drive(
        self,
        next_assignment: Callable[[], Assignment | None],
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        """Keep every worker busy until there is nothing left to assign."""
        while True:
            while self._pool.num_free():
                assignment = next_assignment()
                if assignment is None:
                    break
                left = assignment if self._known is None else self._known.take_out(assignment)
                if isinstance(left, Assignment):
                    self._pool.submit(left)
                else:
                    on_outcome(left)
            if not self._pool.num_busy():
                return
            outcome = self._pool.wait()
            if self._known is not None:
                outcome = self._known.put_back(outcome)
            on_outcome(outcome)

    def _drive_all(
        self, records: Iterable[TrialRecord], on_outcome: Callable[[Outcome], None]
    ) -> None:
        """Score trials, each of which begins when a worker is free."""
        assignments = map(self._assign, records)
        self._drive(lambda: next(assignments, None), on_outcome)

    def _make_objectives(self) -> Objectives | None:
        """Make the objectives, or None if the parents' scores are wanted and not known yet."""
        parents = self._study.attributes.get("parents")
        if needs_parents(self._space) and parents is None:
            make_objectives(self._space, self._facts)  # what else is wrong shows now
            return None
        return make_objectives(self._space, self._facts, parents)

    def _note_parents(self, outcomes: list[Outcome]) -> None:
        """Keep the best parents' scores, once: a resumed run has the same."""
        scored = [each.scores for each in outcomes if isinstance(each, Scored)]
        if not scored:
            reasons = [each.reason for each in outcomes if not isinstance(each, Scored)]
            raise EvaluationError(
                "objective improvement: no parent could be scored, so there is nothing to improve "
                f"on; the first reason: {reasons[0] if reasons else 'the space has no parents'}"
            )
        parents = best_parents(scored, self._settings.seed)
        self._study.set_attribute("parents", parents)
        self._objectives = make_objectives(self._space, self._facts, parents)

    @property
    def _summarizer(self) -> Objectives:
        assert self._objectives is not None  # noqa: S101 - made before any trial ends
        return self._objectives

    def _make_proposer(self) -> Any:
        """Make the proposer, started from the baseline that scored best."""
        scored: list[tuple[tuple[float, ...], Baseline]] = []
        for record in self._records("baseline"):
            match = next(
                (b for b in self._baselines if (b.kind, b.name) == (record.kind, record.label)),
                None,
            )
            if match is not None and record.values is not None:
                scored.append((record.values, match))
        _, best = max(scored, key=lambda pair: pair[0][0])
        known = [(match.point, Told(values)) for values, match in scored if match.point is not None]
        num = len(self._space.document.objective)
        return make_proposer(
            self._space,
            self._settings,
            start=best.start,
            known=known,
            num_objectives=num,
            folder=self._space.origin.folder,
        )

    def _propose(self, log: ProposerLog) -> TrialRecord:
        started = time.perf_counter()
        point = log.ask(len(self._study.records))
        recipe: dict[str, Any] = {}
        reason = None
        try:
            recipe = self._space.decode(point).to_dict()
        except EvomergeError as error:
            reason = _one_line(error)
        self.propose_seconds += time.perf_counter() - started
        record = self._study.begin(
            kind="proposed",
            label=None,
            recipe=recipe,
            point=point,
            asked_after=log.num_told,
            seed=self._settings.seed,
        )
        if reason is None:
            return record
        order = log.place(record.number)
        log.tell(record.number, None, order)
        return self._study.fail(record.number, reason, seconds=self._clock({}), order=order)

    def _begin_baseline(self, baseline: Baseline) -> TrialRecord:
        return self._study.begin(
            kind=baseline.kind,
            label=baseline.name,
            recipe=baseline.recipe,
            point=baseline.point,
            asked_after=0,
            seed=self._settings.seed,
        )

    def _assign(self, record: TrialRecord) -> Assignment:
        return Assignment(record.number, dict(record.recipe), "search")

    def _finish(self, outcome: Outcome, *, order: int | None) -> TrialRecord:
        seconds = self._clock(outcome.seconds)
        if isinstance(outcome, Scored):
            # The items first: a trial that the study calls complete has them.
            self._keep_items(outcome)
            try:
                summary = self._summarizer.summarize(outcome.scores)
            except EvaluationError as error:
                reason = _one_line(error)
                return self._study.fail(outcome.number, reason, seconds=seconds, order=order)
            return self._study.complete(
                outcome.number,
                summary,
                seconds=seconds,
                order=order,
                worker=outcome.pid,
                scored_items=outcome.scored_items,
            )
        return self._study.fail(outcome.number, outcome.reason, seconds=seconds, order=order)

    def _clock(self, seconds: Mapping[str, float]) -> dict[str, float]:
        elapsed = time.perf_counter() - self._started
        return {**seconds, "session": self._session, "elapsed": elapsed}

    def _keep_items(self, outcome: Scored) -> None:
        outcome.scores.to_parquet(self._directory.items(outcome.number, outcome.split))

    def _records(self, group: str) -> list[TrialRecord]:
        wanted = group == "proposed"
        return [r for r in self._study.records.values() if (r.kind == "proposed") == wanted]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
