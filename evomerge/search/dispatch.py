"""Keeps workers busy."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from evomerge.evaluation.settings import Split
from evomerge.search.cache import KnownResults, ResultCache
from evomerge.workers import Assignment, Failed, Outcome, Pool, Scored, Sloped

__all__ = ["Dispatcher"]

NextAssignment = Callable[[], Assignment | None]
OnOutcome = Callable[[Outcome], Assignment | None]
"""Takes an outcome; may return what the same trial needs next."""


class Dispatcher:
    """Gives assignments to free workers and hands back what comes of them.

    Args:
        pool: The workers.
        caches: What is known of each split's items already, and is not scored again.
    """

    def __init__(self, pool: Pool, caches: Mapping[Split, ResultCache] | None) -> None:
        self._pool = pool
        self._known = None if caches is None else KnownResults(caches)

    def drive(self, next_assignment: NextAssignment, on_outcome: OnOutcome) -> None:
        """Go on until there is nothing left to assign; a trial under way comes first."""
        follow_ups: deque[Assignment] = deque()

        def settle(outcome: Outcome) -> None:
            follow_up = on_outcome(outcome)
            if follow_up is not None:
                follow_ups.append(follow_up)
            elif self._known is not None:
                self._known.end(outcome.number)

        while True:
            while self._pool.num_free():
                assignment = follow_ups.popleft() if follow_ups else next_assignment()
                if assignment is None:
                    break
                left = assignment if self._known is None else self._known.take_out(assignment)
                if isinstance(left, Assignment):
                    self._pool.submit(left)
                else:
                    settle(left)
            if not self._pool.num_busy():
                return
            outcome = self._pool.wait()
            assert not isinstance(outcome, Sloped)  # noqa: S101 - `ask_slope` takes what it asks for
            settle(outcome if self._known is None else self._known.put_back(outcome))

    def ask_slope(self, assignment: Assignment) -> Sloped | Failed:
        """Return the slope that an assignment asks for, while nothing else is under way."""
        self._pool.submit(assignment)
        outcome = self._pool.wait()
        assert not isinstance(outcome, Scored)  # noqa: S101 - an assignment with tangents
        return outcome

    def drive_all(self, assignments: Iterable[Assignment], on_outcome: OnOutcome) -> None:
        """Score assignments, each of which is made when a worker is free."""
        queue = iter(assignments)
        self.drive(lambda: next(queue, None), on_outcome)
