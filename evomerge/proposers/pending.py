"""Asked and not yet told: the order in which a proposer may be called."""

from typing import Generic, TypeVar

from evomerge.proposers.base import Told

__all__ = ["Pending", "check_told"]

Item = TypeVar("Item")


class Pending(Generic[Item]):
    """What a proposer keeps of each question until its answer comes."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self._last = -1

    def __len__(self) -> int:
        return len(self._items)

    def add(self, number: int, item: Item) -> None:
        """Keep a question.

        Raises:
            RuntimeError: if its number does not rise.
        """
        if number <= self._last:
            raise RuntimeError(f"numbers of questions rise: got {number} after {self._last}")
        self._last = number
        self._items[number] = item

    def take(self, number: int) -> Item:
        """Return what was kept of a question, once.

        Raises:
            RuntimeError: if it was not asked, or was told before.
        """
        if number not in self._items:
            raise RuntimeError(f"trial {number} was not asked, or was told before")
        return self._items.pop(number)


def check_told(told: Told, num_objectives: int) -> None:
    """Check the sizes of a result.

    Raises:
        ValueError: naming both sizes.
    """
    if told.values is not None and len(told.values) != num_objectives:
        raise ValueError(
            f"this proposer has {num_objectives} objective(s), got {len(told.values)} values"
        )
    if told.stderrs and len(told.stderrs) != num_objectives:
        raise ValueError(
            f"this proposer has {num_objectives} objective(s), got {len(told.stderrs)} errors"
        )
