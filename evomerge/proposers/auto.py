"""Which optimizer for which space and budget."""

from dataclasses import dataclass

from evomerge.proposers.base import UnitSpace
from evomerge.proposers.points import has_conditions
from evomerge.space import SearchSettings

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """What ``auto`` stands for.

    Attributes:
        name: The optimizer.
        reason: Why, in one sentence.
    """

    name: str
    reason: str


def choose(space: UnitSpace, settings: SearchSettings, num_objectives: int = 1) -> Choice:
    """Choose an optimizer.

    Args:
        space: What is searched.
        settings: The budget.
        num_objectives: How many numbers are raised.
    """
    if num_objectives > 1:
        return Choice("tpe", f"it raises {num_objectives} objectives at once")
    if has_conditions(space.dimensions):
        return Choice("tpe", "it leaves out values that do not exist with some options")
    return Choice("cma", f"{settings.trials} trials of {len(space.dimensions)} numbers")
