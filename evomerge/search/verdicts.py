"""Whether candidates hold the constraints on held-out items, and how sure that is."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge.evaluation import Comparison, ItemScores, Objective, compare
from evomerge.evaluation.statistics import difference_of
from evomerge.search.constraints import Constraint, make_constraints
from evomerge.search.directory import RunDirectory
from evomerge.search.judging import find_references, search_scores
from evomerge.search.objectives import ObjectiveFacts
from evomerge.search.records import TrialRecord
from evomerge.search.study import Study
from evomerge.space import BASELINE_WORDS, Space

__all__ = ["HoldoutCheck", "Verdict"]

_SURE = 0.001


@dataclass(frozen=True)
class Verdict:
    """One constraint and one candidate on the held-out items.

    Attributes:
        task: The task, group or tag.
        reference: What it is measured against, for people: ``base``, ``best parent math``, ``0.6``.
        comparison: Candidate minus reference, paired by item where the reference is a baseline;
            positive where the candidate is better. None if the baseline has no held-out scores.
        violation: How far it is from holding, as a share of what it should reach; 0 or less holds.
    """

    task: str
    reference: str
    comparison: Comparison | None
    violation: float

    @property
    def holds(self) -> bool:
        """Whether it holds by point estimate."""
        return self.comparison is not None and self.violation <= 0

    @property
    def confidence(self) -> float | None:
        """One-sided confidence that the candidate is not worse; None where no error is known."""
        if self.comparison is None or math.isnan(self.comparison.p_value):
            return None
        half = self.comparison.p_value / 2
        return 1 - half if self.comparison.difference >= 0 else half

    @property
    def name(self) -> str:
        """The constraint for people: ``add at least base``."""
        return f"{self.task} at least {self.reference}"

    def measured(self) -> str:
        """Return the difference, its error and the confidence, for people."""
        if self.comparison is None:
            return "not checked: no held-out scores to compare with"
        text = f"{self.comparison.difference:+.3f} ± {self.comparison.stderr:.3f}"
        if self.comparison.difference == 0 and self.comparison.stderr == 0:
            return f"{text}, equal on every item"
        if self.confidence is None:
            return text
        return f"{text}, confidence {_percent(self.confidence)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the form of ``result.json``."""
        content: dict[str, Any] = {
            "task": self.task,
            "at_least": self.reference,
            "holds": self.holds,
            "violation": self.violation,
        }
        if self.comparison is not None:
            content |= {
                **asdict(self.comparison),
                "interval": list(self.comparison.interval),
                "confidence": self.confidence,
            }
        return content

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Verdict":
        """Return the verdict that ``result.json`` holds."""
        compared = None
        if "difference" in data:
            numbers = {key: data[key] for key in ("difference", "stderr", "p_value", "items")}
            compared = Comparison(interval=tuple(data["interval"]), **numbers)
        return cls(data["task"], data["at_least"], compared, data["violation"])


def _percent(share: float) -> str:
    """Return a share for people; a sample never gives 0 or 100 %."""
    if share < _SURE:
        return f"below {100 * _SURE:g} %"
    if share > 1 - _SURE:
        return f"above {100 * (1 - _SURE):g} %"
    return f"{100 * share:.1f} %"


class HoldoutCheck:
    """Checks the constraints of a space on held-out items.

    Args:
        space: The space.
        facts: What loading its tasks said.
        study: The study, whose baselines have been scored.
        directory: Where item scores are.

    Raises:
        EvaluationError: if a baseline that a constraint names has no scores.
    """

    def __init__(
        self, space: Space, facts: ObjectiveFacts, study: Study, directory: RunDirectory
    ) -> None:
        self._constraints = make_constraints(space, facts)
        self._seed = space.document.search.seed
        self._directory = directory
        self._records = dict(study.records)
        self._references: Mapping[str, int] = {}
        if self._constraints:
            trials = self._records.values()
            scores = search_scores(trials, directory, self._seed)
            self._references = find_references(space, self._constraints, trials, scores)
        self._items: dict[int, ItemScores | None] = {}

    def verdicts(self, record: TrialRecord) -> tuple[Verdict, ...]:
        """Return a verdict for each constraint; none if the trial has no held-out items."""
        mine = self._read(record.number) if self._constraints else None
        if mine is None:
            return ()
        return tuple(self._verdict(each, mine) for each in self._constraints)

    def holds(self, record: TrialRecord) -> bool:
        """Return whether a trial holds every constraint on the held-out items."""
        return all(verdict.holds for verdict in self.verdicts(record))

    def _verdict(self, constraint: Constraint, mine: ItemScores) -> Verdict:
        number = self._references.get(constraint.task)
        objective = Objective(constraint.shares, seed=self._seed)
        tasks = mine.tasks(self._seed)
        if number is None:
            violation = constraint.violation(tasks, None)
            estimate = objective.estimate(mine)
            difference = estimate.value - constraint.bound(tasks, None)
            compared = difference_of(difference, estimate.stderr, estimate.items)
            return Verdict(constraint.task, f"{constraint.at_least:g}", compared, violation)
        name = _reference_name(str(constraint.at_least), self._records[number])
        theirs = self._read(number)
        if theirs is None:
            return Verdict(constraint.task, name, None, 0.0)
        violation = constraint.violation(tasks, theirs.tasks(self._seed))
        return Verdict(constraint.task, name, compare(mine, theirs, objective), violation)

    def _read(self, number: int) -> ItemScores | None:
        if number not in self._items:
            path = self._directory.items(number, "holdout")
            self._items[number] = ItemScores.from_parquet(path) if path.is_file() else None
        return self._items[number]


def _reference_name(at_least: str, record: TrialRecord) -> str:
    short = Path(record.label).name
    if at_least == "best_parent":
        return f"best parent {short}"
    return at_least if at_least in BASELINE_WORDS else short
