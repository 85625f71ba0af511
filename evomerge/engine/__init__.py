"""Merging itself: plan a recipe, then compute it into a live model or onto the disk.

Both ways run the same code on the same numbers, so what was scored is what is exported.
"""

from evomerge.engine.bank import Bank
from evomerge.engine.disk import merge_to_disk
from evomerge.engine.live import materialize
from evomerge.engine.plan import MergePlan, PlannedTensor, plan_merge
from evomerge.engine.tangents import moves_along

__all__ = [
    "Bank",
    "MergePlan",
    "PlannedTensor",
    "materialize",
    "merge_to_disk",
    "moves_along",
    "plan_merge",
]
