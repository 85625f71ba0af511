"""What candidates got for each item so far, and so what the next one is expected to get."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from evomerge.evaluation import ItemScores, TaskItems
from evomerge.evaluation.sampling import Expectation

__all__ = ["ItemKnowledge"]

BASELINE_WEIGHT = 0.5


class ItemKnowledge:
    """How much easier or harder than its task each item is, averaged over candidates.

    A candidate counts with the items that it was scored on, each relative to the candidate's own
    level, so that an item does not look easy because only good candidates were asked for it.

    Args:
        items: Task -> ids of its items.
    """

    def __init__(self, items: Mapping[str, Sequence[str]]) -> None:
        self._places = {
            task: {item: place for place, item in enumerate(ids)} for task, ids in items.items()
        }
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._counts: dict[str, npt.NDArray[np.float64]] = {}
        self._divisors: dict[str, float] = {}

    def add(self, scores: ItemScores, levels: Mapping[str, float], *, weight: float = 1.0) -> None:
        """Take what a candidate got.

        Args:
            scores: Its items.
            levels: Task -> the mean value that it has, or is estimated to have, on all items.
            weight: How much it counts.
        """
        for task, items in scores.by_task.items():
            self._add(task, items, levels[task], weight)

    def expectation(self, task: str) -> Expectation:
        """Return what a candidate gets for each item, up to a constant that does not matter."""
        count = len(self._places[task])
        if task not in self._sums:
            return Expectation(np.zeros(count))
        counts = self._counts[task]
        effects = np.divide(self._sums[task], counts, out=np.zeros(count), where=counts > 0)
        return Expectation(effects, self._divisors[task])

    def _add(self, task: str, items: TaskItems, level: float, weight: float) -> None:
        places = self._places[task]
        if task not in self._sums:
            self._sums[task] = np.zeros(len(places))
            self._counts[task] = np.zeros(len(places))
            self._divisors[task] = 1.0
        rows = [places[item] for item in items.items]
        if items.weights is not None and len(rows) == len(places):
            self._divisors[task] = float(items.weights.mean())
        self._sums[task][rows] += weight * (items.values - level)
        self._counts[task][rows] += weight
