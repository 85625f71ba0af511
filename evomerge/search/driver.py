"""The driver: composes study, proposer and workers; holds no algorithm of its own."""

import contextlib
from collections.abc import Callable, Sequence
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
from evomerge.search.baselines import Baseline, baselines
from evomerge.search.budget import Budget, Spent
from evomerge.search.cache import ResultCache
from evomerge.search.climb import Climb, ClimbState, plan_climb
from evomerge.search.directory import RunDirectory
from evomerge.search.dispatch import Dispatcher
from evomerge.search.flights import Landed
from evomerge.search.judging import Judge
from evomerge.search.ledger import Ledger
from evomerge.search.monitor import Monitor, Stage
from evomerge.search.objectives import ObjectiveFacts
from evomerge.search.records import TrialRecord
from evomerge.search.searching import Ending, Search
from evomerge.search.study import Study
from evomerge.search.warm_start import Hint
from evomerge.space import AUTO, Point, SearchSettings, Space
from evomerge.workers import Assignment, Failed, Outcome, Pool, Scored

__all__ = ["Driver"]

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
        cache: What is known already.
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
        cache: ResultCache | None = None,
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
        self._dispatcher = Dispatcher(pool, cache)
        self._ledger = Ledger(
            study, directory, session=session, started=started, seconds_before=seconds_before
        )
        facts = ObjectiveFacts.from_info(pool.info)
        self._study.set_attribute("objective", facts.to_dict())
        self._judge = Judge(space, facts, study, directory)
        self._climbed: Baseline | None = None
        self._climb_items = 0
        plan_climb(space, pool.info, 0)  # what is wrong with it shows now
        self.propose_seconds = 0.0

    def score_baselines(self) -> None:
        """Score every baseline on the search items.

        Raises:
            EvaluationError: if no baseline at all could be scored.
        """
        self._score(self._baselines, "baselines", len(self._baselines))
        ended = self._baseline_records()
        if all(record.state == "failed" for record in ended):
            raise EvaluationError(
                f"no baseline could be scored; {ended[0].label}: {ended[0].reason}"
            )

    def climb(self) -> None:
        """Climb from the best baseline, if that is wanted, and score where it leads."""
        climb = self._prepare_climb()
        if climb is None:
            return
        state = climb.state
        self._monitor.stage("climb", total=state.steps, done=state.done)
        while not state.ended and self._budget.ended(self._spent_on_climb(state)) is None:
            climb.step(self._dispatcher.ask_slope)
            if state.failed is None:
                self._monitor.climbed(state.values[-1], done=state.done, total=state.steps)
        if state.failed is not None:
            self._monitor.note(f"the climb ended in step {state.done + 1}: {state.failed}")
        self._climb_items = state.spent
        unit = state.average()
        if unit is None:
            return
        point = self._space.from_unit(unit)
        names = {baseline.name for baseline in self._baselines}
        name = next(each for each in ("climbed", "climbed from the slope") if each not in names)
        recipe = self._space.decode(point).to_dict()
        self._climbed = Baseline("start", name, recipe, point, point)
        self._score([self._climbed], "climb", state.steps)

    def search(self) -> Ending:
        """Ask, score and tell until the budget is spent; return why it ended."""
        scored: list[tuple[TrialRecord, ItemScores]] = []
        for record in self._baseline_records():
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
            spent=self._climb_items,
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

    def _score(self, wanted: Sequence[Baseline], stage: Stage, total: int) -> None:
        """Score baselines on the search items, those that were left under way first."""
        known = {(r.kind, r.label): r for r in self._baseline_records()}
        todo = [b for b in wanted if (b.kind, b.name) not in known]
        mine = [known[b.kind, b.name] for b in wanted if (b.kind, b.name) in known]
        again = [record for record in mine if record.state == "running"]
        done = total - len(todo) - len(again)
        if stage == "baselines":
            self._monitor.stage(stage, total=total, done=done)

        def on_outcome(outcome: Outcome) -> None:
            nonlocal done
            # No trial has a value before the baselines are scored which it is measured against.
            for ready in self._judge.take(outcome):
                record = self._ledger.finish(self._land(ready), order=None)
                done += 1
                self._monitor.finished(record, stage, done=done, total=total)

        records = chain(again, map(self._begin, todo))
        self._dispatcher.drive_all((self._assign(each, "search") for each in records), on_outcome)

    def _prepare_climb(self) -> Climb | None:
        """Return the climb that the run began with, or begins with now; None if it has none."""
        if self._settings.climb is False:
            return None
        kept = self._study.attributes.get("climb")
        state = None if kept is None else ClimbState.from_dict(kept)
        self._climb_items = 0 if state is None else state.spent
        if any(record.kind == "proposed" for record in self._study.records.values()) and (
            state is None or not state.ended
        ):
            return None  # what was proposed did not know of it
        if state is not None:
            return Climb(self._space, self._info, self._study, state) if state.steps else None
        spent = sum(r.search.num_items for r in self._baseline_records() if r.search)
        state = plan_climb(self._space, self._info, spent)
        if not state.steps:
            self._study.set_attribute("climb", state.to_dict())
            return None
        climb = Climb(self._space, self._info, self._study, state)
        _, _, best = self._best_baseline()
        climb.begin(self._space.to_unit(best.start))
        self._monitor.note(
            f"climb: {state.steps} steps of {state.items} items a task ({state.reason})"
        )
        return climb

    def _spent_on_climb(self, state: ClimbState) -> Spent:
        """Return what is spent before the search begins."""
        items = sum(r.search.num_items for r in self._baseline_records() if r.search)
        return Spent(len(self._study.records), items + state.spent, self._ledger.seconds)

    def _scored_baselines(self) -> list[tuple[tuple[float, ...], Told, Baseline]]:
        known = {(b.kind, b.name): b for b in self._baselines}
        if self._climbed is not None:
            known[self._climbed.kind, self._climbed.name] = self._climbed
        scored = []
        for record in self._baseline_records():
            match = known.get((record.kind, record.label))
            told = self._judge.told(record)
            if match is not None and told.values is not None:
                scored.append((told.values, told, match))
        return scored

    def _best_baseline(self) -> tuple[tuple[float, ...], Told, Baseline]:
        return max(self._scored_baselines(), key=lambda each: each[0][0])

    def _make_proposer(self) -> Proposer:
        """Make the proposer, started from the baseline that scored best."""
        scored = self._scored_baselines()
        _, _, best = self._best_baseline()
        spread = max(each[0][0] for each in scored) - min(each[0][0] for each in scored)
        known = [
            (match.start, told if match.point is not None else _about(told, NEARBY * spread))
            for _, told, match in scored
        ]
        own = [values[0] for values, _, each in scored if each.kind != "start"]
        level = max(own, default=scored[0][0][0])
        known += [(hint.point, hint.told(level)) for hint in self._hints]
        num = len(self._space.document.objective)
        start = best.start
        if not self._settings.from_baselines:
            known, start = [], self._space.from_unit([0.5] * len(self._space.dimensions))
        settings = self._settle_optimizer(num)
        if settings.items is not None:
            left = max(settings.items - self._climb_items, 1)
            settings = settings.model_copy(update={"items": left})
        return make_proposer(
            self._space,
            settings,
            start=start,
            known=known,
            num_objectives=num,
            folder=self._space.origin.folder,
            plan=self._plan(settings, known, num),
        )

    def _settle_optimizer(self, num_objectives: int) -> SearchSettings:
        """Return the settings with the optimizer that ``auto`` chose when the run began."""
        if self._settings.optimizer != AUTO:
            return self._settings
        kept = self._study.attributes.get("optimizer")
        if kept is None:
            choice = choose(self._space, self._settings, num_objectives)
            kept = {"name": choice.name, "reason": choice.reason}
            self._study.set_attribute("optimizer", kept)
        self._monitor.note(f"optimizer {kept['name']}: {kept['reason']}")
        return self._settings.model_copy(update={"optimizer": kept["name"]})

    def _plan(
        self, settings: SearchSettings, known: Sequence[tuple[Point, Told]], num: int
    ) -> StagePlan:
        """Return the stages that the run began with: another budget does not change them."""
        kept = self._study.attributes.get("stages")
        if kept is not None:
            return StagePlan.from_dict(kept)
        if any(record.kind == "proposed" for record in self._study.records.values()):
            plan = StagePlan((), "no stages: the run was begun without")
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

    def _baseline_records(self) -> list[TrialRecord]:
        return [r for r in self._study.records.values() if r.kind != "proposed"]


def _about(told: Told, error: float) -> Told:
    """Return a result of a recipe that a point comes near to."""
    return replace(told, stderrs=(error,) * len(told.values or ()))
