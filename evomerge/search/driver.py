"""The driver: composes study, proposer and workers; holds no algorithm of its own."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from evomerge.errors import EvaluationError, EvomergeError
from evomerge.evaluation import Objective
from evomerge.proposers import make_proposer
from evomerge.search.baselines import Baseline, baselines
from evomerge.search.directory import RunDirectory
from evomerge.search.monitor import Monitor
from evomerge.search.records import Summary, TrialRecord, summarize
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
    ) -> None:
        self._space = space
        self._settings = space.document.search
        self._study = study
        self._directory = directory
        self._pool = pool
        self._monitor = monitor
        self._session = session
        self._started = started
        self._baselines = baselines(space)
        self._objective = Objective(pool.info.objective)
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

        def next_assignment() -> Assignment | None:
            if again:
                return self._assign(again.pop(0))
            return self._assign(self._begin_baseline(todo.pop(0))) if todo else None

        def on_outcome(outcome: Outcome) -> None:
            record = self._finish(outcome, order=None)
            self._monitor.finished(record, "baselines")

        self._drive(next_assignment, on_outcome)
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
            log.tell(record.number, record.value, order)
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
                summary = self._keep_items(outcome)
                record = self._study.set_holdout(
                    outcome.number, summary, seconds=dict(outcome.seconds)
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
                self._pool.submit(assignment)
            if not self._pool.num_busy():
                return
            on_outcome(self._pool.wait())

    def _make_proposer(self) -> Any:
        """Make the proposer, started from the baseline that scored best."""
        scored: list[tuple[float, Baseline]] = []
        for record in self._records("baseline"):
            match = next(
                (b for b in self._baselines if (b.kind, b.name) == (record.kind, record.label)),
                None,
            )
            if match is not None and record.value is not None:
                scored.append((record.value, match))
        _, best = max(scored, key=lambda pair: pair[0])
        known = [(match.point, value) for value, match in scored if match.point is not None]
        return make_proposer(self._space, self._settings, start=best.start, known=known)

    def _propose(self, log: ProposerLog) -> TrialRecord:
        started = time.perf_counter()
        point = log.ask(len(self._study.records))
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
            summary = self._keep_items(outcome)
            return self._study.complete(
                outcome.number, summary, seconds=seconds, order=order, worker=outcome.pid
            )
        return self._study.fail(outcome.number, outcome.reason, seconds=seconds, order=order)

    def _clock(self, seconds: Mapping[str, float]) -> dict[str, float]:
        elapsed = time.perf_counter() - self._started
        return {**seconds, "session": self._session, "elapsed": elapsed}

    def _keep_items(self, outcome: Scored) -> Summary:
        """Write the item scores first: a trial that the study calls complete has them."""
        outcome.scores.to_parquet(self._directory.items(outcome.number, outcome.split))
        return summarize(outcome.scores, self._objective)

    def _records(self, group: str) -> list[TrialRecord]:
        wanted = group == "proposed"
        return [r for r in self._study.records.values() if (r.kind == "proposed") == wanted]
