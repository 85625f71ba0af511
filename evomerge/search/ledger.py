"""Writing what came of a trial: its items first, then the study."""

import time
from collections.abc import Mapping

from evomerge.evaluation import ItemScores
from evomerge.search.directory import RunDirectory
from evomerge.search.flights import Landed
from evomerge.search.records import TrialRecord
from evomerge.search.study import Study
from evomerge.workers import Scored

__all__ = ["Ledger"]


class Ledger:
    """The study and the item scores beside it, in one session.

    Args:
        study: The study.
        directory: Where item scores are kept.
        session: Number of this process in the run's history.
        started: ``time.perf_counter()`` when this process began.
        seconds_before: Seconds of all earlier sessions.
    """

    def __init__(
        self,
        study: Study,
        directory: RunDirectory,
        *,
        session: int,
        started: float,
        seconds_before: float = 0.0,
    ) -> None:
        self.study = study
        self._directory = directory
        self._session = session
        self._started = started
        self._before = seconds_before

    @property
    def seconds(self) -> float:
        """Seconds of the run, over all sessions."""
        return self._before + time.perf_counter() - self._started

    def finish(self, landed: Landed, *, order: int | None) -> TrialRecord:
        """End a trial.

        Args:
            landed: What came of it.
            order: Its place in the order of telling.
        """
        outcome = landed.outcome
        if isinstance(outcome, Scored):
            # The items first: a trial that the study calls complete has them.
            self.keep_items(outcome)
        if landed.summary is None or not isinstance(outcome, Scored):
            return self.fail(
                outcome.number, landed.reason or "no score", outcome.seconds, order=order
            )
        return self.study.complete(
            outcome.number,
            landed.summary,
            seconds=self.clock(outcome.seconds),
            order=order,
            worker=outcome.pid,
            scored_items=outcome.scored_items,
            stopped=landed.stopped,
        )

    def fail(
        self, number: int, reason: str, seconds: Mapping[str, float], *, order: int | None
    ) -> TrialRecord:
        """End a trial as failed."""
        return self.study.fail(number, reason, seconds=self.clock(seconds), order=order)

    def clock(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Return where a trial's time went, with the place in the run at which it ended."""
        elapsed = time.perf_counter() - self._started
        return {**seconds, "session": self._session, "elapsed": elapsed}

    def keep_items(self, outcome: Scored) -> None:
        """Write an outcome's item scores."""
        outcome.scores.to_parquet(self._directory.items(outcome.number, outcome.split))

    def items(self, record: TrialRecord) -> ItemScores | None:
        """Return a trial's search items, if it has any."""
        if record.search is None:
            return None
        return ItemScores.from_parquet(self._directory.items(record.number, "search"))
