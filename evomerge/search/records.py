"""What a study knows of a trial, and its plain-data form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evomerge.evaluation import Estimate, ItemScores, Objective, TaskScore
from evomerge.space import Value

__all__ = ["Kind", "State", "Summary", "TrialRecord", "summarize"]

Kind = Literal["proposed", "parent", "base", "average", "default"]
"""``proposed`` came from the proposer; the others are baselines."""

State = Literal["running", "complete", "failed", "pruned"]


@dataclass(frozen=True)
class Summary:
    """The scores of one recipe on one split.

    Attributes:
        objective: What is maximized.
        tasks: Task name -> score.
    """

    objective: Estimate
    tasks: Mapping[str, TaskScore]

    def to_dict(self) -> dict[str, Any]:
        """Return the form that ``result.json`` and the study hold."""
        return {
            "objective": {
                "value": self.objective.value,
                "stderr": self.objective.stderr,
                "items": self.objective.items,
            },
            "tasks": {
                name: {
                    "metric": score.metric,
                    "value": score.value,
                    "stderr": score.stderr,
                    "items": score.items,
                }
                for name, score in self.tasks.items()
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Summary":
        """Return the summary of its plain form."""
        tasks = {name: TaskScore(**score) for name, score in data["tasks"].items()}
        return cls(Estimate(**data["objective"]), tasks)


def summarize(scores: ItemScores, objective: Objective) -> Summary:
    """Return means, standard errors and counts of item scores."""
    return Summary(objective.estimate(scores), scores.tasks())


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the study holds it.

    Attributes:
        number: Its number in the study.
        kind: Who asked for it.
        label: Name for people: a model's name, or ``trial 12``.
        state: Where it stands.
        recipe: The recipe as plain data.
        point: Its point of the space, or None where a baseline is none.
        asked_after: Number of results that the proposer had been told when it asked.
        order: Place in the order of telling, from 0; None while it runs and for baselines.
        search: Its scores on the search items.
        holdout: Its scores on the held-out items, if it was scored there.
        reason: Why it failed.
        seconds: ``materialize``, ``score``, and ``elapsed`` since the start of ``session``.
        holdout_seconds: ``materialize`` and ``score`` on the held-out items.
        worker: Process that scored it.
    """

    number: int
    kind: Kind
    label: str
    state: State
    recipe: Mapping[str, Any]
    point: Mapping[str, Value] | None = None
    asked_after: int = 0
    order: int | None = None
    search: Summary | None = None
    holdout: Summary | None = None
    reason: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    holdout_seconds: Mapping[str, float] = field(default_factory=dict)
    worker: int = 0

    @property
    def value(self) -> float | None:
        """The search objective, or None."""
        return None if self.search is None else self.search.objective.value
