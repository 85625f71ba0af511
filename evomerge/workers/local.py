"""One worker in this process."""

import dataclasses
from types import TracebackType
from typing import Self

from evomerge.workers.assignment import Assignment, Outcome, Sloped, WorkerSpec
from evomerge.workers.pool import PoolInfo
from evomerge.workers.worker import Worker

__all__ = ["LocalPool"]


class LocalPool:
    """A pool of one: an assignment is evaluated when its outcome is waited for."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._worker: Worker | None = Worker(spec)
        self._assignment: Assignment | None = None
        info = self._worker.info
        self.info = PoolInfo.of(1, info, info.load_seconds)

    def num_free(self) -> int:
        """Return 1 if nothing is under way."""
        return int(self._assignment is None)

    def num_busy(self) -> int:
        """Return 1 if an assignment waits to be evaluated."""
        return int(self._assignment is not None)

    def submit(self, assignment: Assignment) -> None:
        """Keep the assignment until it is waited for."""
        if self._assignment is not None:
            raise RuntimeError(f"trial {self._assignment.number} is under way: wait for it first")
        self._assignment = dataclasses.replace(assignment)

    def wait(self) -> Outcome | Sloped:
        """Evaluate the assignment."""
        if self._assignment is None or self._worker is None:
            raise RuntimeError("nothing is under way")
        assignment, self._assignment = self._assignment, None
        return self._worker.evaluate(assignment)

    def close(self) -> None:
        """Free the models."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
