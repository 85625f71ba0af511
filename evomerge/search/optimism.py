"""How much too high a score is because it was selected on."""

import math
from dataclasses import dataclass
from typing import Any

from evomerge.evaluation import Comparison, ItemScores, Objective, compare
from evomerge.evaluation.statistics import difference_of
from evomerge.search.directory import RunDirectory
from evomerge.search.records import TrialRecord

__all__ = ["Optimism", "measure_optimism", "search_gap"]


@dataclass(frozen=True)
class Optimism:
    """The winner's search score minus its held-out score, beside the best parent's.

    The winner was selected on the search items, so its score there is too high. A parent was not:
    its difference is how much easier the search items happen to be.

    Attributes:
        winner: Search minus held-out objective of the winner.
        parent: The same of the best parent.
        beyond_parent: The winner's minus the parent's: what is due to the selection.
    """

    winner: Comparison
    parent: Comparison | None = None
    beyond_parent: Comparison | None = None

    def sentence(self) -> str:
        """Return what a report says about it."""
        text = (
            f"The winner's search score minus its held-out score is {self.winner.difference:+.3f} "
            f"({_interval(self.winner)})"
        )
        if self.parent is None or self.beyond_parent is None:
            return f"{text}."
        return (
            f"{text}, the best parent's is {self.parent.difference:+.3f}: selection made the "
            f"winner look better by {self.beyond_parent.difference:+.3f} "
            f"({_interval(self.beyond_parent)})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the form of ``result.json``."""
        parts = {
            "winner": self.winner,
            "best_parent": self.parent,
            "beyond_best_parent": self.beyond_parent,
        }
        return {
            name: {
                "difference": part.difference,
                "stderr": part.stderr,
                "interval": list(part.interval),
                "p_value": part.p_value,
            }
            for name, part in parts.items()
            if part is not None
        }


def _interval(part: Comparison) -> str:
    low, high = part.interval
    return f"95 %: {low:+.3f} to {high:+.3f}"


def search_gap(record: TrialRecord) -> Comparison | None:
    """Return a trial's search minus held-out objective; the two have no item in common."""
    if record.search is None or record.holdout is None:
        return None
    search, holdout = record.search.objective, record.holdout.objective
    stderr = math.hypot(search.stderr, holdout.stderr)
    return difference_of(search.value - holdout.value, stderr, search.items + holdout.items)


def measure_optimism(
    directory: RunDirectory, winner: TrialRecord, parent: TrialRecord | None, objective: Objective
) -> Optimism | None:
    """Measure how much too optimistic the winner's search score was.

    Args:
        directory: Where the item scores are.
        winner: The winner's trial.
        parent: The best parent's trial.
        objective: The first objective.
    """
    mine = search_gap(winner)
    if mine is None:
        return None
    theirs = None if parent is None else search_gap(parent)
    if parent is None or theirs is None:
        return Optimism(mine)
    search, holdout = (
        compare(_items(directory, winner, split), _items(directory, parent, split), objective)
        for split in ("search", "holdout")
    )
    beyond = difference_of(
        search.difference - holdout.difference,
        math.hypot(search.stderr, holdout.stderr),
        search.items + holdout.items,
    )
    return Optimism(mine, theirs, beyond)


def _items(directory: RunDirectory, record: TrialRecord, split: str) -> ItemScores:
    return ItemScores.from_parquet(directory.items(record.number, split))
