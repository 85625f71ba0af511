"""What a study knows of a trial, and its plain-data form."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from evomerge.evaluation import Estimate, TaskScore
from evomerge.space import Value

__all__ = ["CANDIDATES", "Kind", "State", "Summary", "TrialRecord"]

Kind = Literal["proposed", "climbed", "parent", "base", "average", "default", "start"]
"""``proposed`` came from the proposer, ``climbed`` from the climb; the others are baselines."""

CANDIDATES: tuple[Kind, ...] = ("proposed", "climbed", "default", "start")
"""Kinds of trials that may win: points of the space, and recipes that the user gave."""

State = Literal["running", "complete", "failed", "pruned"]


@dataclass(frozen=True)
class Summary:
    """The scores of one recipe on one split.

    Attributes:
        objective: The first objective, on the reported metrics: the winner is chosen by it.
        tasks: Task name -> score.
        objectives: Name -> objective, where there are several.
        guides: Name -> what the search raises, where smooth metrics guide it.
        smooth: Task name -> score of its smooth metric.
        sampling_stderrs: Of a trial that stopped early: the errors of ``guiding`` as estimates of
            the scores on all search items.
        violations: Constraint -> how far it is from being held on the search items; 0 or less
            holds.
    """

    objective: Estimate
    tasks: Mapping[str, TaskScore]
    objectives: Mapping[str, Estimate] = field(default_factory=dict)
    guides: Mapping[str, Estimate] = field(default_factory=dict)
    smooth: Mapping[str, TaskScore] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    sampling_stderrs: tuple[float, ...] = ()

    @property
    def reported(self) -> tuple[float, ...]:
        """The objectives on the reported metrics."""
        return tuple(each.value for each in self.objectives.values()) or (self.objective.value,)

    @property
    def guiding(self) -> tuple[float, ...]:
        """What the search raises, one number an objective."""
        return tuple(each.value for each in self.guides.values()) or self.reported

    @property
    def num_items(self) -> int:
        """Items over all tasks."""
        return sum(score.items for score in self.tasks.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the form that ``result.json`` and the study hold."""
        content: dict[str, Any] = {
            "objective": asdict(self.objective),
            "tasks": {name: _plain(score) for name, score in self.tasks.items()},
        }
        for key, estimates in (("objectives", self.objectives), ("guides", self.guides)):
            if estimates:
                content[key] = {name: asdict(each) for name, each in estimates.items()}
        if self.smooth:
            content["smooth"] = {name: _plain(score) for name, score in self.smooth.items()}
        if self.violations:
            content["violations"] = dict(self.violations)
        if self.sampling_stderrs:
            content["sampling_stderrs"] = list(self.sampling_stderrs)
        return content

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Summary":
        """Return the summary of its plain form."""
        return cls(
            Estimate(**data["objective"]),
            {name: TaskScore(**score) for name, score in data["tasks"].items()},
            {name: Estimate(**each) for name, each in data.get("objectives", {}).items()},
            {name: Estimate(**each) for name, each in data.get("guides", {}).items()},
            {name: TaskScore(**score) for name, score in data.get("smooth", {}).items()},
            data.get("violations", {}),
            tuple(data.get("sampling_stderrs", ())),
        )


def _plain(score: TaskScore) -> dict[str, Any]:
    plain = asdict(score)
    if score.higher_is_better:
        del plain["higher_is_better"]
    return plain


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
        search: Its scores on the search items; estimates if it is ``pruned``: stopped early.
        holdout: Its scores on the held-out items, if it was scored there.
        reason: Why it failed.
        seconds: ``materialize``, ``score``, and ``elapsed`` since the start of ``session``.
        holdout_seconds: ``materialize`` and ``score`` on the held-out items.
        worker: Process that scored it.
        scored_items: Split -> how many of its items the model was asked for it; the others were
            known.
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
    scored_items: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_baseline(self) -> bool:
        """Whether candidates are measured against it: nobody searched for it."""
        return self.kind not in ("proposed", "climbed")

    @property
    def values(self) -> tuple[float, ...] | None:
        """What the search raises, one number an objective, or None."""
        return None if self.search is None else self.search.guiding

    @property
    def value(self) -> float | None:
        """The first number that the search raises, or None."""
        return None if self.values is None else self.values[0]

    @property
    def violation(self) -> float:
        """By how much it violates the constraints on the search items; 0 if it holds all."""
        violations = {} if self.search is None else self.search.violations
        return sum(each for each in violations.values() if each > 0)
