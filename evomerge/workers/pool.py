"""One interface to one worker in this process or to many elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from evomerge.evaluation.settings import Split
from evomerge.workers.assignment import Assignment, Outcome, Sloped, WorkerInfo, WorkerSpec

__all__ = ["Pool", "PoolInfo", "open_pool"]


@dataclass(frozen=True)
class PoolInfo:
    """A started pool.

    Attributes:
        workers: Number of workers.
        items: Split -> task -> number of items.
        objective: Task -> weight, groups and tags expanded.
        load_seconds: Seconds until the workers were ready.
        bank_bytes: Bytes of resident source tensors in each worker.
        ids: Split -> task -> the ids of its items.
        task_keys: Task -> hash of all that decides an item's result beside the weights.
        task_identities: Task -> hash of what a run may not change in it.
        members: Task, group or tag as the space names it -> its tasks.
        smooth: Tasks that a smooth metric guides while the search goes on.
        blended: Those of them that the reported metric guides too.
        climbable: Tasks with a probability of the gold answer to climb; none without gradients.
    """

    workers: int
    items: Mapping[Split, Mapping[str, int]]
    objective: Mapping[str, float]
    load_seconds: float
    bank_bytes: int
    ids: Mapping[Split, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    task_keys: Mapping[str, str] = field(default_factory=dict)
    task_identities: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    smooth: tuple[str, ...] = ()
    blended: tuple[str, ...] = ()
    climbable: tuple[str, ...] = ()

    @classmethod
    def of(cls, workers: int, info: WorkerInfo, load_seconds: float) -> "PoolInfo":
        """Return what a pool of equal workers says of itself."""
        return cls(
            workers,
            info.items,
            info.objective,
            load_seconds,
            info.bank_bytes,
            info.ids,
            info.task_keys,
            info.task_identities,
            info.members,
            info.smooth,
            info.blended,
            info.climbable,
        )


class Pool(Protocol):
    """Workers that score assignments, in any order."""

    info: PoolInfo

    def num_free(self) -> int:
        """Return how many assignments would start at once."""
        ...

    def num_busy(self) -> int:
        """Return how many assignments are under way."""
        ...

    def submit(self, assignment: Assignment) -> None:
        """Give an assignment to a free worker.

        Raises:
            RuntimeError: if no worker is free.
        """
        ...

    def wait(self) -> Outcome | Sloped:
        """Return the next outcome.

        Raises:
            RuntimeError: if nothing is under way.
        """
        ...

    def close(self) -> None:
        """Stop the workers."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_pool(spec: WorkerSpec, *, workers: int = 1, ray_address: str | None = None) -> Pool:
    """Start workers: one in this process, or Ray actors where there are several.

    Args:
        spec: What every worker loads.
        workers: How many.
        ray_address: A running Ray cluster; even one worker is an actor there.

    Raises:
        EvomergeError: if a worker cannot load its models or tasks.
    """
    if workers == 1 and ray_address is None:
        from evomerge.workers.local import LocalPool

        return LocalPool(spec)
    from evomerge.workers.ray_pool import RayPool

    return RayPool(spec, workers=workers, address=ray_address)
