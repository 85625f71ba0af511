"""Whether the search still gets better: significant improvements, counted in trials."""

from evomerge.evaluation import ItemScores, Objective, compare
from evomerge.search.records import TrialRecord

__all__ = ["Plateau"]

LEVEL = 0.05


class Plateau:
    """Counts trials since the last one that was significantly better than the best before.

    "Significantly" is one-sided at 5 % in the paired comparison on the search items, in any
    objective. Trials that stopped early lost a comparison already.

    Args:
        objectives: What guides the search, one objective a number that is raised.
    """

    def __init__(self, objectives: tuple[Objective, ...]) -> None:
        self._objectives = objectives
        self._best: list[tuple[float, ItemScores] | None] = [None] * len(objectives)
        self.idle_trials = 0

    def begin(self, record: TrialRecord, scores: ItemScores) -> None:
        """Take a baseline."""
        for place, value in enumerate(record.values or ()):
            best = self._best[place]
            if best is None or value > best[0]:
                self._best[place] = (value, scores.guiding())

    def told(self, record: TrialRecord, scores: ItemScores | None) -> None:
        """Take a trial, in the order of telling; ``scores`` are on all search items, or None."""
        self.idle_trials += 1
        if record.state != "complete" or scores is None or record.violation > 0:
            return
        for place, value in enumerate(record.values or ()):
            best = self._best[place]
            if best is None:
                self._best[place] = (value, scores.guiding())
                continue
            if value <= best[0]:
                continue
            found = compare(scores.guiding(), best[1], self._objectives[place])
            if found.p_value / 2 <= LEVEL:
                self._best[place] = (value, scores.guiding())
                self.idle_trials = 0
