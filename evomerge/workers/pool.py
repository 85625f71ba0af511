"""One interface to one worker in this process or to many elsewhere."""

from dataclasses import dataclass, fields
from types import TracebackType
from typing import Protocol, Self

from evomerge.workers.assignment import Assignment, Loaded, Outcome, Sloped, WorkerSpec

__all__ = ["Pool", "PoolInfo", "open_pool"]


@dataclass(frozen=True, kw_only=True)
class PoolInfo(Loaded):
    """A started pool; ``load_seconds`` are those until all its workers were ready.

    Attributes:
        workers: Number of workers.
    """

    workers: int

    @classmethod
    def of(cls, workers: int, info: Loaded, load_seconds: float) -> "PoolInfo":
        """Return what a pool of equal workers says of itself."""
        same = {each.name: getattr(info, each.name) for each in fields(Loaded)}
        return cls(**{**same, "workers": workers, "load_seconds": load_seconds})


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
