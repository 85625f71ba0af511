"""What a run tells whoever watches it."""

from collections.abc import Sequence
from typing import Literal, Protocol

from evomerge.search.records import TrialRecord
from evomerge.search.result import RunResult
from evomerge.workers import PoolInfo

__all__ = ["Monitor", "SilentMonitor", "Stage"]

Stage = Literal["baselines", "climb", "search", "holdout"]


class Monitor(Protocol):
    """Called by the driver, in its process."""

    def loading(self) -> None:
        """Workers are about to read their models."""
        ...

    def ready(self, info: PoolInfo, records: Sequence[TrialRecord]) -> None:
        """Workers are ready; ``records`` are the trials that the study holds already."""
        ...

    def note(self, text: str) -> None:
        """Something was decided that a person may want to know."""
        ...

    def stage(self, name: Stage, *, total: float, done: float) -> None:
        """A stage begins; ``done`` of its ``total`` are in the study already.

        The unit is a trial; in a climb a step; in a search that is limited by items or seconds,
        these.
        """
        ...

    def waits(self, record: TrialRecord, items: int, *, done: float, total: float) -> None:
        """A baseline was scored on ``items``; its result comes when all baselines are there."""
        ...

    def climbed(self, value: float, *, done: float, total: float) -> None:
        """A step of a climb was taken; ``value`` is the score it expected before, on its items."""
        ...

    def finished(self, record: TrialRecord, stage: Stage, *, done: float, total: float) -> None:
        """One evaluation has ended, with scores or a reason."""
        ...

    def concluded(self, result: RunResult) -> None:
        """The winner is chosen and written."""
        ...


class SilentMonitor:
    """Nobody watches."""

    def loading(self) -> None:
        """Do nothing."""

    def ready(self, info: PoolInfo, records: Sequence[TrialRecord]) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def stage(self, name: Stage, *, total: float, done: float) -> None:
        """Do nothing."""

    def waits(self, record: TrialRecord, items: int, *, done: float, total: float) -> None:
        """Do nothing."""

    def climbed(self, value: float, *, done: float, total: float) -> None:
        """Do nothing."""

    def finished(self, record: TrialRecord, stage: Stage, *, done: float, total: float) -> None:
        """Do nothing."""

    def concluded(self, result: RunResult) -> None:
        """Do nothing."""
