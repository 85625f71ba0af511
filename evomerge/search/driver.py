"""The driver: composes study, proposer and workers; holds no algorithm of its own."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from evomerge.errors import EvaluationError
from evomerge.evaluation import ItemScores
from evomerge.evaluation.settings import Split
from evomerge.proposers import (
    Proposer,
    StagePlan,
    Told,
    check_user_class,
    choose,
    make_proposer,
    plan_for,
)
from evomerge.search.ascent import Ascent
from evomerge.search.baselines import Baseline, baselines
from evomerge.search.budget import Budget, Spent
from evomerge.search.cache import ResultCache
from evomerge.search.directory import RunDirectory
from evomerge.search.dispatch import Dispatcher
from evomerge.search.flights import Landed
from evomerge.search.judging import Judge
from evomerge.search.ledger import Ledger
from evomerge.search.monitor import Monitor
from evomerge.search.objectives import ObjectiveFacts
from evomerge.search.records import TrialRecord
from evomerge.search.searching import Ending, Search
from evomerge.search.starts import Start, about, best_start
from evomerge.search.study import Study
from evomerge.search.warm_start import Hint
from evomerge.space import AUTO, Point, SearchSettings, Space
from evomerge.workers import Assignment, Failed, Outcome, Pool, Scored

__all__ = ["Driver"]

CLIMBED_STEP = 0.25
"""First step of CMA-ES from where a climb led, as a share of ``sigma``.

What is far from there and still looks better is more often flattered by the very items.
"""

NEARBY = 0.05
"""Error of a baseline's score as that of the nearest point, as a share of the baselines' spread."""


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
        seconds_before: Seconds of all earlier sessions.
        caches: What is known already of the items of each split.
        interrupted: Whether somebody asks for the end of the search.
        hints: What an earlier run says.

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
        seconds_before: float = 0.0,
        caches: Mapping[Split, ResultCache] | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        hints: Sequence[Hint] = (),
    ) -> None:
        self._space = space
        self._hints = hints
        self._settings = space.document.search
        check_user_class(self._settings.optimizer, space.origin.folder)
        self._study = study
        self._info = pool.info
        self._monitor = monitor
        self._budget = Budget(self._settings, interrupted)
        self._baselines = baselines(space)
        self._dispatcher = Dispatcher(pool, caches)
        self._ledger = Ledger(
            study, directory, session=session, started=started, seconds_before=seconds_before
        )
        facts = ObjectiveFacts.from_info(pool.info)
        self._study.set_attribute("objective", facts.to_dict())
        self._judge = Judge(space, facts, study, directory)
        self._ascent = Ascent(
            space,
            pool.info,
            judge=self._judge,
            ledger=self._ledger,
            monitor=monitor,
            dispatcher=self._dispatcher,
        )
        self.propose_seconds = 0.0

    def score_baselines(self) -> None:
        """Score every baseline on the search items.

        Raises:
            EvaluationError: if no baseline at all could be scored.
        """
        known = {(record.kind, record.label) for record in self._baseline_records()}
        todo = [each for each in self._baselines if (each.kind, each.name) not in known]
        again = [record for record in self._baseline_records() if record.state == "running"]
        total = len(self._baselines)
        done = total - len(todo) - len(again)
        waiting = 0
        self._monitor.stage("baselines", total=total, done=done)

        def on_outcome(outcome: Outcome) -> None:
            nonlocal done, waiting
            # No trial has a value before the baselines are scored which it is measured against.
            found = self._judge.take(outcome)
            if not found:
                waiting += 1
                items = outcome.scores.num_items if isinstance(outcome, Scored) else 0
                record = self._study.records[outcome.number]
                self._monitor.waits(record, items, done=done + waiting, total=total)
            for ready in found:
                record = self._ledger.finish(self._land(ready), order=None)
                done += 1
                self._monitor.finished(record, "baselines", done=done, total=total)

        records = chain(again, map(self._begin, todo))
        self._dispatcher.drive_all((self._assign(each, "search") for each in records), on_outcome)
        ended = self._baseline_records()
        if all(record.state == "failed" for record in ended):
            raise EvaluationError(
                f"no baseline could be scored; {ended[0].label}: {ended[0].reason}"
            )

    def climb(self) -> None:
        """Climb from the best baseline, if that is wanted, and score where it leads."""
        items = sum(r.search.num_items for r in self._baseline_records() if r.search)
        start = best_start(self._starts()).nearest
        self._ascent.run(start, items, lambda: self._budget.ended(self._spent_early()))

    def search(self) -> Ending:
        """Ask, score and tell until the budget is spent; return why it ended."""
        if (ending := self._nothing_to_search()) is not None:
            return ending
        scored: list[tuple[TrialRecord, ItemScores]] = []
        for record in self._early_records():
            scores = self._ledger.items(record)
            if scores is not None:
                scored.append((record, scores))
        search = Search(
            self._space,
            self._info,
            self._make_proposer(),
            judge=self._judge,
            ledger=self._ledger,
            monitor=self._monitor,
            budget=self._budget,
            baselines=scored,
            spent=self._ascent.spent,
        )
        try:
            return search.run(self._dispatcher)
        finally:
            self.propose_seconds += search.propose_seconds

    def score_holdout(self, records: list[TrialRecord]) -> None:
        """Score trials on the held-out items; one that fails there keeps no held-out score."""
        todo = [record for record in records if record.holdout is None]
        total, done = len(records), len(records) - len(todo)
        self._monitor.stage("holdout", total=total, done=done)

        def on_outcome(outcome: Outcome) -> None:
            nonlocal done
            record = self._study.records[outcome.number]
            if isinstance(outcome, Scored):
                outcome = replace(outcome, scores=self._judge.guide(outcome.scores))
                self._ledger.keep_items(outcome)
                # A user's function may fail here too: then there is no held-out score.
                with contextlib.suppress(EvaluationError):
                    record = self._study.set_holdout(
                        outcome.number,
                        self._judge.summarize(outcome.scores, "holdout"),
                        seconds=dict(outcome.seconds),
                        scored_items=outcome.scored_items,
                    )
            done += 1
            self._monitor.finished(record, "holdout", done=done, total=total)

        self._dispatcher.drive_all((self._assign(each, "holdout") for each in todo), on_outcome)

    def _spent_early(self) -> Spent:
        """Return what is spent while nothing was proposed."""
        items = sum(r.search.num_items for r in self._early_records() if r.search)
        trials = len(self._study.records)
        return Spent(trials, items + self._ascent.spent, self._ledger.seconds)

    def _nothing_to_search(self) -> Ending | None:
        """Return why the search does not begin; nothing of it is settled then.

        A later session may go on with the climb first, and decide by where that leads.
        """
        if any(record.kind == "proposed" for record in self._study.records.values()):
            return None
        spent = self._spent_early()
        reason = self._budget.ended(spent)
        if reason is None:
            return None
        self._monitor.note(f"nothing is searched ({reason})")
        return {"reason": reason, "exhausted": False, "items": spent.items, "idle_trials": 0}

    def _starts(self) -> list[Start]:
        """Return what is known before the search: the scored baselines, and where a climb led."""
        known = {(b.kind, b.name): b for b in self._baselines}
        found = []
        for record in self._early_records():
            told = self._judge.told(record)
            match = known.get((record.kind, record.label))
            if match is not None and told.values is not None:
                found.append(Start(record.kind, told, match.start, match.point is not None))
            elif record.kind == "climbed" and told.values is not None and record.point:
                found.append(Start(record.kind, told, dict(record.point), is_exact=True))
        return found

    def _make_proposer(self) -> Proposer:
        """Make the proposer, started from what scored best."""
        starts = self._starts()
        values = [each.value for each in starts]
        error = NEARBY * (max(values) - min(values))
        known = [
            (each.nearest, each.told if each.is_exact else about(each.told, error))
            for each in starts
        ]
        # What hints are relative to: :func:`evomerge.search.warm_start.warm_start`.
        own = [each.value for each in starts if each.kind not in ("start", "climbed")]
        level = max(own, default=values[0])
        known += [(hint.point, hint.told(level)) for hint in self._hints]
        num = len(self._space.document.objective)
        best = best_start(starts)
        start, is_climbed = best.nearest, best.kind == "climbed"
        if not self._settings.from_baselines:
            known, start = [], self._space.from_unit([0.5] * len(self._space.dimensions))
        settings = self._settle_optimizer(num)
        if is_climbed:
            settings = settings.model_copy(update={"sigma": settings.sigma * CLIMBED_STEP})
        if settings.items is not None:
            left = max(settings.items - self._ascent.spent, 1)
            settings = settings.model_copy(update={"items": left})
        return make_proposer(
            self._space,
            settings,
            start=start,
            known=known,
            num_objectives=num,
            folder=self._space.origin.folder,
            plan=self._plan(settings, known, num, is_climbed=is_climbed),
        )

    def _settle_optimizer(self, num_objectives: int) -> SearchSettings:
        """Return the settings with the optimizer that ``auto`` chose when the run began."""
        if self._settings.optimizer != AUTO:
            return self._settings
        kept = self._study.attributes.get("optimizer")
        if kept is None:
            whole = sum(self._info.items["search"].values())
            choice = choose(self._space, self._settings, num_objectives, items_per_trial=whole)
            kept = {"name": choice.name, "reason": choice.reason}
            self._study.set_attribute("optimizer", kept)
        self._monitor.note(f"optimizer {kept['name']}: {kept['reason']}")
        return self._settings.model_copy(update={"optimizer": kept["name"]})

    def _plan(
        self,
        settings: SearchSettings,
        known: Sequence[tuple[Point, Told]],
        num: int,
        *,
        is_climbed: bool,
    ) -> StagePlan:
        """Return the stages that the run began with: another budget does not change them."""
        kept = self._study.attributes.get("stages")
        if kept is not None:
            return StagePlan.from_dict(kept)
        if any(record.kind == "proposed" for record in self._study.records.values()):
            plan = StagePlan((), "no stages: the run was begun without")
        elif is_climbed and settings.stages == "auto":
            plan = StagePlan((), "no stages: the climb has moved every value alone already")
        else:
            plan = plan_for(self._space, settings, known, num)
        self._study.set_attribute("stages", plan.to_dict())
        return plan

    def _begin(self, baseline: Baseline) -> TrialRecord:
        return self._study.begin(
            kind=baseline.kind,
            label=baseline.name,
            recipe=baseline.recipe,
            point=baseline.point,
            asked_after=0,
            seed=self._settings.seed,
        )

    def _assign(self, record: TrialRecord, split: Split) -> Assignment:
        return Assignment(record.number, dict(record.recipe), split)

    def _land(self, outcome: Outcome) -> Landed:
        if isinstance(outcome, Failed):
            return Landed(outcome, None, reason=outcome.reason)
        try:
            return Landed(outcome, self._judge.summarize(outcome.scores))
        except EvaluationError as error:
            return Landed(outcome, None, reason=" ".join(str(error).split()))

    def _early_records(self) -> list[TrialRecord]:
        """Return the trials that nobody proposed: baselines, and where a climb led."""
        return [each for each in self._study.records.values() if each.kind != "proposed"]

    def _baseline_records(self) -> list[TrialRecord]:
        return [record for record in self._study.records.values() if record.is_baseline]
