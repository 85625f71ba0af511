"""Constraints: what a candidate must hold to win, and what a proposer is told if it does not.

A violation is positive, as in Optuna: how far a score lies below what it should reach, as a share
of that. Zero or less holds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import SpaceError
from evomerge.evaluation import TaskScore
from evomerge.evaluation.sampling import SampledScore
from evomerge.search.baselines import Baseline
from evomerge.search.objectives import ObjectiveFacts
from evomerge.space import Space

__all__ = [
    "Constraint",
    "Penalty",
    "make_constraints",
    "penalized_values",
    "reference_baselines",
    "total_violation",
]

LEAST_UNIT = 0.1
_LARGEST = 1e6

TaskScores = Mapping[str, TaskScore]


@dataclass(frozen=True)
class Constraint:
    """A score that is to be at least as good as another.

    Attributes:
        task: The task, group or tag, as the space names it.
        at_least: A baseline's name, or a score, as the space says.
        shares: Share of each of its tasks; together 1.
    """

    task: str
    at_least: str | float
    shares: Mapping[str, float]

    def value(self, scores: TaskScores) -> float:
        """Return what is compared: the mean of the tasks, larger is better."""
        return math.fsum(
            share * _sign(scores[name]) * scores[name].value for name, share in self.shares.items()
        )

    def bound(self, scores: TaskScores, reference: TaskScores | None) -> float:
        """Return what the value is to reach.

        Args:
            scores: A candidate's, which know whether larger is better.
            reference: The baseline's; None where the space gives a number.
        """
        if reference is not None:
            return self.value(reference)
        number = float(self.at_least)
        return number * math.fsum(s * _sign(scores[name]) for name, s in self.shares.items())

    def violation(self, scores: TaskScores, reference: TaskScores | None) -> float:
        """Return how far the value lies below the bound, as a share of it.

        Of a tenth at least, so that a bound of 0 is a bound; finite whatever the scores are.
        """
        bound = self.bound(scores, reference)
        excess = (bound - self.value(scores)) / max(abs(bound), LEAST_UNIT)
        if math.isnan(excess):
            return _LARGEST
        return min(max(excess, -_LARGEST), _LARGEST)

    def falls_short(
        self, scores: Mapping[str, SampledScore], reference: TaskScores | None, margin: float
    ) -> bool:
        """Return whether estimated scores lie clearly below the bound.

        Args:
            scores: What is estimated from a part of the items.
            reference: As for :meth:`bound`.
            margin: By how many errors of the estimate.
        """
        known = {name: each.score for name, each in scores.items()}
        stderr = math.hypot(*(share * scores[name].stderr for name, share in self.shares.items()))
        return self.value(known) + margin * stderr < self.bound(known, reference)


def _sign(score: TaskScore) -> float:
    return 1.0 if score.higher_is_better else -1.0


def make_constraints(space: Space, facts: ObjectiveFacts) -> tuple[Constraint, ...]:
    """Make the constraints of a space; a group's tasks count by their weights.

    Args:
        space: The space.
        facts: What loading its tasks said.
    """
    made = []
    for task, at_least in space.document.constraints.at_least.items():
        weights = {name: facts.weights[name] for name in facts.members[task]}
        whole = math.fsum(weights.values())
        equal = 1.0 / len(weights)
        shares = {name: each / whole if whole > 0 else equal for name, each in weights.items()}
        made.append(Constraint(task, at_least, shares))
    return tuple(made)


def reference_baselines(space: Space, found: Sequence[Baseline]) -> dict[str, tuple[Baseline, ...]]:
    """Return the baselines among which each constraint finds what it is measured against.

    Args:
        space: The space.
        found: Its baselines.

    Returns:
        Task, group or tag -> one baseline; for ``best_parent`` every parent.

    Raises:
        SpaceError: naming file, line and key, if the space has no such baseline.
    """
    wanted: dict[str, tuple[Baseline, ...]] = {}
    for task, at_least in space.document.constraints.at_least.items():
        if not isinstance(at_least, str):
            continue
        matches = tuple(each for each in found if _is_meant(each, at_least, space))
        if not matches:
            names = ", ".join(each.name for each in found if each.kind != "default")
            raise SpaceError(
                f"{space.origin.where('constraints', 'at_least', task)}: this space has no "
                f"baseline {at_least!r}; it has {names}"
            )
        wanted[task] = matches
    return wanted


def _is_meant(baseline: Baseline, name: str, space: Space) -> bool:
    if name == "best_parent":
        return baseline.kind == "parent"
    if name == "average":
        return baseline.kind == "average"
    if name == "base":  # which is one of the parents where the method merges it like them
        name = str(space.document.recipe.get("base_model"))
    return baseline.kind in ("parent", "base") and baseline.name == name


def total_violation(violations: Iterable[float]) -> float:
    """Return by how much constraints are violated together; 0 if all hold."""
    return math.fsum(each for each in violations if each > 0)


@dataclass(frozen=True)
class Penalty:
    """The scale on which proposers are told of violations, one number an objective.

    Attributes:
        worst: The worst baseline's value.
        span: The best baseline's minus the worst's; 1 where that is 0.
    """

    worst: tuple[float, ...]
    span: tuple[float, ...]

    @classmethod
    def from_baselines(cls, values: Sequence[Sequence[float]]) -> "Penalty":
        """Return the scale that the baselines' values give.

        Args:
            values: One row a baseline, at least one.
        """
        columns = list(zip(*values, strict=True))
        return cls(
            tuple(min(column) for column in columns),
            tuple(max(column) - min(column) or 1.0 for column in columns),
        )


def penalized_values(
    values: Sequence[float], violations: Iterable[float], penalty: Penalty
) -> tuple[float, ...]:
    """Return what a proposer is told: whoever violates ranks below all who hold, by the violation.

    The values of those who hold stay as they are down to the worst baseline's; below that they are
    compressed into one span, ``w - s (1 - exp((v - w) / s))``, which begins with slope 1. Whoever
    violates by x gets ``w - s (1.1 + log(1 + x))`` whatever its values. Nothing here depends on
    other candidates, so a history that is told again is told the same. Where there are no
    constraints, the values are told.

    Args:
        values: One number an objective, larger is better.
        violations: Of each constraint; 0 or less holds.
        penalty: The scale.

    Returns:
        Finite numbers, as many as objectives.
    """
    all_of_them = tuple(violations)
    if not all_of_them:
        return tuple(values)
    total = total_violation(all_of_them)
    told = []
    for value, worst, span in zip(values, penalty.worst, penalty.span, strict=True):
        if total > 0:
            told.append(worst - span * (1.1 + math.log1p(total)))
        elif value < worst:
            told.append(worst + span * math.expm1((value - worst) / span))
        else:
            told.append(value)
    return tuple(told)
