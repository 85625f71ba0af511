"""The log of a proposer: who was asked after how many answers, and in which order they came."""

from collections.abc import Callable, Iterable
from typing import Protocol

from evomerge.proposers import Proposer, Told
from evomerge.search.records import TrialRecord
from evomerge.space import Value

__all__ = ["Follower", "ProposerLog"]


class Follower(Protocol):
    """Who hears of each call, in the order of the log: now, or again in a later process."""

    def asked(self, number: int) -> None:
        """A trial was asked for."""
        ...

    def told(self, number: int) -> None:
        """The proposer was told of a trial."""
        ...


class ProposerLog:
    """A proposer whose calls can be repeated from the study.

    Without ``ordered``, a result is told as soon as it comes, and the study keeps that order. With
    it, results are told in the order of asking, and a question waits until exactly the answers are
    told that a run with ``workers`` workers always has by then: the run does not depend on who
    finished first.

    Args:
        proposer: A new proposer.
        ordered: See above.
        workers: Trials that may be under way at once.
        history: The proposed trials of the study, by number.
        told: What the proposer is told of a trial.
        follower: Who hears of each call.

    Raises:
        StudyError: if the proposer does not repeat what the study holds.
    """

    def __init__(
        self,
        proposer: Proposer,
        *,
        ordered: bool,
        workers: int,
        history: Iterable[TrialRecord],
        told: Callable[[TrialRecord], Told],
        follower: Follower,
    ) -> None:
        self._told = told
        self._follower = follower
        self._proposer = proposer
        self._ordered = ordered
        self._workers = workers
        self._num_asked = 0
        self._num_told = 0
        self._next_order = 0
        self._positions: dict[int, int] = {}
        self._log: dict[int, tuple[int, Told]] = {}
        self._repeat(list(history))

    @property
    def num_told(self) -> int:
        """Results that the proposer knows."""
        return self._num_told

    def may_ask(self) -> bool:
        """Return whether the results are there that the next question waits for."""
        return self._needed() <= self._tellable()

    def ask(self, number: int) -> dict[str, Value]:
        """Tell what is to be told first, and return the next point."""
        self._tell_until(self._needed())
        self._positions[number] = self._num_asked
        self._num_asked += 1
        point = self._proposer.ask(number)
        self._follower.asked(number)
        return point

    def should_stop(self) -> str | None:
        """Return why there is nothing left to propose, or None."""
        return self._proposer.should_stop()

    def place(self, number: int) -> int:
        """Return the place of a trial that just ended in the order of telling."""
        if self._ordered:
            return self._positions[number]
        self._next_order += 1
        return self._next_order - 1

    def tell(self, number: int, told: Told, order: int) -> None:
        """Take a result; it is told now, or when its turn comes."""
        self._log[order] = (number, told)
        if not self._ordered:
            self._tell_until(self._tellable())

    def _repeat(self, history: list[TrialRecord]) -> None:
        for record in history:
            if record.order is not None and record.state != "running":
                self._log[record.order] = (record.number, self._told(record))
        self._next_order = len(self._log)
        for record in history:
            self._tell_until(record.asked_after)
            self._positions[record.number] = self._num_asked
            self._num_asked += 1
            self._proposer.recall(record.number, record.point or {})
            self._follower.asked(record.number)
        if not self._ordered:
            self._tell_until(self._tellable())

    def _needed(self) -> int:
        """Results that must be told before the next question."""
        if not self._ordered:
            return self._num_told
        return max(self._num_asked - self._workers + 1, self._num_told)

    def _tellable(self) -> int:
        """Results that are there without a gap."""
        count = self._num_told
        while count in self._log:
            count += 1
        return count

    def _tell_until(self, count: int) -> None:
        while self._num_told < count:
            number, told = self._log[self._num_told]
            self._proposer.tell(number, told)
            self._follower.told(number)
            self._num_told += 1
