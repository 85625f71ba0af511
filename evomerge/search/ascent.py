"""The climb of a run: begun once, kept in the study after every step, scored where it leads."""

from collections.abc import Callable, Mapping

from evomerge.evaluation.calibration import Logistic
from evomerge.search.climb import Climb, ClimbState, plan_climb
from evomerge.search.dispatch import Dispatcher
from evomerge.search.flights import Flights, Landed
from evomerge.search.judging import Judge
from evomerge.search.ledger import Ledger
from evomerge.search.monitor import Monitor
from evomerge.search.objectives import ObjectiveFacts
from evomerge.search.records import TrialRecord
from evomerge.space import Point, Space
from evomerge.workers import Assignment, Outcome, PoolInfo

__all__ = ["Ascent"]

LABEL = "climbed"


class Ascent:
    """Climbs, if that is wanted.

    Args:
        space: What is searched.
        info: The workers.
        judge: Makes summaries.
        ledger: Where trials are written.
        monitor: Who watches.
        dispatcher: Gives assignments to workers.

    Raises:
        SpaceError: if the settings ask for a climb that cannot be.
    """

    def __init__(
        self,
        space: Space,
        info: PoolInfo,
        *,
        judge: Judge,
        ledger: Ledger,
        monitor: Monitor,
        dispatcher: Dispatcher,
    ) -> None:
        self._space = space
        self._info = info
        self._plan(0, None)  # what is wrong with it shows now
        self._judge = judge
        self._ledger = ledger
        self._study = ledger.study
        self._monitor = monitor
        self._dispatcher = dispatcher
        self._flights = Flights(judge, info.ids["search"])
        self._state: ClimbState | None = None

    @property
    def spent(self) -> int:
        """Item evaluations that the steps counted as."""
        return 0 if self._state is None else self._state.spent

    @property
    def trial(self) -> TrialRecord | None:
        """The trial of where it leads; None if it came to none."""
        records = self._study.records.values()
        return next((record for record in records if record.kind == "climbed"), None)

    def run(
        self,
        start: Point,
        baseline_items: int,
        ended: Callable[[], str | None],
    ) -> None:
        """Climb, and score where it leads.

        Args:
            start: The point to begin at.
            baseline_items: Item evaluations of the baselines.
            ended: Why the search is to end: the budget is spent, or somebody asks for it.
        """
        climb = self._prepare(start, baseline_items)
        if climb is None:
            return
        state = self._state = climb.state
        self._monitor.stage("climb", total=state.steps, done=state.done)
        reason = ended()
        while not state.ended and reason is None:
            climb.step(self._dispatcher.ask_slope)
            if state.failed is None:
                self._monitor.climbed(state.values[-1], done=state.done, total=state.steps)
            reason = ended()
        if not state.ended:
            climb.cut()
            if state.is_cut:
                self._monitor.note(f"the climb was cut after {state.done} steps ({reason})")
        if state.failed is not None:
            self._monitor.note(f"the climb ended in step {state.done + 1}: {state.failed}")
        unit = state.average()
        if unit is not None:
            self._score(self._space.from_unit(unit))

    def _plan(self, baseline_items: int, worth: Mapping[str, Logistic] | None) -> ClimbState:
        info = self._info
        facts, items = ObjectiveFacts.from_info(info), info.items["search"]
        return plan_climb(
            self._space, facts, items, info.climbable, spent=baseline_items, worth=worth
        )

    def _prepare(self, start: Point, baseline_items: int) -> Climb | None:
        """Return the climb that the run began with, or begins with now; None if it has none."""
        if self._space.document.search.climb is False:
            return None
        kept = self._study.attributes.get("climb")
        self._state = None if kept is None else ClimbState.from_dict(kept)
        is_searching = any(r.kind == "proposed" for r in self._study.records.values())
        if is_searching and (self._state is None or not self._state.ended):
            return None  # what was proposed did not know of it
        if self._state is None:
            self._state = self._plan(baseline_items, self._judge.worth)
            if not self._state.steps:
                self._study.set_attribute("climb", self._state.to_dict())
        if not self._state.steps:
            return None
        climb = Climb(self._space, self._info, self._study, self._state)
        if kept is None:
            climb.begin(self._space.to_unit(start), self._judge.worth)
            self._monitor.note(
                f"climb: {self._state.steps} steps of {self._state.items} items a task "
                f"({self._state.reason})"
            )
        return climb

    def _score(self, point: Point) -> None:
        """Score where the climb led on all search items, unless that is done."""
        record = self.trial
        if record is not None and record.state != "running":
            return
        if record is None:
            record = self._study.begin(
                kind="climbed",
                label=LABEL,
                recipe=self._space.decode(point).to_dict(),
                point=point,
                asked_after=0,
                seed=self._space.document.search.seed,
            )
        assignment = self._flights.begin(record)
        self._dispatcher.drive_all([assignment], self._on_outcome)

    def _on_outcome(self, outcome: Outcome) -> Assignment | None:
        landed = self._flights.take(outcome)
        assert isinstance(landed, Landed)  # noqa: S101 - without a race all items come at once
        record = self._ledger.finish(landed, order=None)
        steps = 0 if self._state is None else self._state.steps
        self._monitor.finished(record, "climb", done=steps, total=steps)
        return None
