"""Where candidates are evaluated: in this process, or in Ray actors, one a device."""

from evomerge.workers.assignment import (
    Assignment,
    Failed,
    Outcome,
    Scored,
    Sloped,
    WorkerSpec,
)
from evomerge.workers.local import LocalPool
from evomerge.workers.pool import Pool, PoolInfo, open_pool

__all__ = [
    "Assignment",
    "Failed",
    "LocalPool",
    "Outcome",
    "Pool",
    "PoolInfo",
    "Scored",
    "Sloped",
    "WorkerSpec",
    "open_pool",
]
