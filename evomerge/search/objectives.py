"""The objectives of a space: what the search raises, and what the winner is chosen by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.evaluation import Estimate, ItemScores, Objective
from evomerge.evaluation.rules import Improvement, Rule, UserFunction, Worst
from evomerge.evaluation.sampling import SampledScore
from evomerge.search.records import Summary
from evomerge.space import ObjectiveSettings, Space
from evomerge.user_code import load_callable
from evomerge.workers import PoolInfo

__all__ = ["ObjectiveFacts", "Objectives", "best_parents", "make_objectives", "needs_parents"]

Parents = Mapping[str, Mapping[str, float]]
"""``reported`` and ``guiding`` -> task -> the best parent's score on the search items."""


@dataclass(frozen=True)
class ObjectiveFacts:
    """What loading the tasks said, which objectives need; plain data that a study keeps.

    Attributes:
        weights: Task -> weight, groups and tags expanded.
        members: Task, group or tag as the space names it -> its tasks.
        smooth: Tasks that a smooth metric guides while the search goes on.
        blended: Those of them that the reported metric guides too.
    """

    weights: Mapping[str, float]
    members: Mapping[str, tuple[str, ...]]
    smooth: tuple[str, ...] = ()
    blended: tuple[str, ...] = ()

    @classmethod
    def from_info(cls, info: PoolInfo) -> "ObjectiveFacts":
        """Return what a pool says of its tasks."""
        members = info.members or {name: (name,) for name in info.objective}
        return cls(dict(info.objective), members, tuple(info.smooth), tuple(info.blended))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        members = {name: list(tasks) for name, tasks in self.members.items()}
        return {
            "weights": dict(self.weights),
            "members": members,
            "smooth": list(self.smooth),
            "blended": list(self.blended),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ObjectiveFacts":
        """Return the facts of their plain form."""
        if "weights" not in data:  # a study from before objectives had rules
            return cls(data, {name: (name,) for name in data})
        members = {name: tuple(tasks) for name, tasks in data["members"].items()}
        smooth, blended = tuple(data["smooth"]), tuple(data.get("blended", ()))
        return cls(data["weights"], members, smooth, blended)


@dataclass(frozen=True)
class Objectives:
    """All objectives of a space, the first one first.

    Attributes:
        reported: Name -> objective on the reported metrics.
        guiding: Name -> objective on what guides the search; empty where that is the same.
        seed: Seed of bootstraps.
    """

    reported: Mapping[str, Objective]
    guiding: Mapping[str, Objective]
    seed: int

    @property
    def first(self) -> Objective:
        """The objective that the winner is chosen by."""
        return next(iter(self.reported.values()))

    def summarize(self, scores: ItemScores) -> Summary:
        """Return scores, standard errors and counts.

        Raises:
            EvaluationError: if an objective cannot be computed.
        """
        several = len(self.reported) > 1
        estimates = {name: each.estimate(scores) for name, each in self.reported.items()}
        guides = scores.guiding()
        return Summary(
            next(iter(estimates.values())),
            scores.tasks(self.seed),
            estimates if several else {},
            {name: each.estimate(guides) for name, each in self.guiding.items()},
            {name: task.summary(self.seed) for name, task in scores.smooth.items()},
        )

    def estimate(
        self, reported: Mapping[str, SampledScore], guiding: Mapping[str, SampledScore]
    ) -> Summary:
        """Return what is estimated of a candidate that was scored on a part of the items.

        Args:
            reported: Task -> its score on the reported metric.
            guiding: Task -> its score on what guides the search.

        Raises:
            EvaluationError: if an objective cannot be computed.
        """
        several = len(self.reported) > 1
        estimates = {name: _estimate(each, reported) for name, each in self.reported.items()}
        guides = {name: _estimate(each, guiding) for name, each in self.guiding.items()}
        leading = (self.guiding or self.reported).values()
        return Summary(
            next(iter(estimates.values())),
            {name: each.score for name, each in reported.items()},
            estimates if several else {},
            guides,
            {name: guiding[name].score for name in guiding if guiding[name] != reported[name]}
            if guides
            else {},
            sampling_stderrs=tuple(_combine(each, guiding)[1] for each in leading),
        )


def _estimate(objective: Objective, tasks: Mapping[str, SampledScore]) -> Estimate:
    value, _ = _combine(objective, tasks)
    points = {name: tasks[name].score for name in objective.weights}
    errors = {name: score.stderr for name, score in points.items()}
    items = sum(score.items for score in points.values())
    return Estimate(value, objective.combine(points, errors)[1], items)


def _combine(objective: Objective, tasks: Mapping[str, SampledScore]) -> tuple[float, float]:
    points = {name: tasks[name].score for name in objective.weights}
    return objective.combine(points, {name: tasks[name].stderr for name in points})


def needs_parents(space: Space) -> bool:
    """Return whether an objective is relative to the parents' scores."""
    return any(each.kind == "improvement" for each in space.document.objective.values())


def best_parents(parents: Sequence[ItemScores], seed: int) -> dict[str, dict[str, float]]:
    """Return the best parent's score of each task.

    Args:
        parents: The parents' item scores, at least one.
        seed: Seed of bootstraps.
    """
    best: dict[str, dict[str, float]] = {}
    for kind in ("reported", "guiding"):
        scored = [(each if kind == "reported" else each.guiding()).tasks(seed) for each in parents]
        best[kind] = {
            task: (max if score.higher_is_better else min)(each[task].value for each in scored)
            for task, score in scored[0].items()
        }
    return best


def make_objectives(
    space: Space,
    facts: ObjectiveFacts,
    parents: Parents | None = None,
    *,
    folder: Path | None = None,
) -> Objectives:
    """Make the objectives of a space.

    Args:
        space: The space.
        facts: What loading its tasks said.
        parents: The best parents' scores, where an objective is relative to them.
        folder: Where a user's module may be; by default the space file's folder.

    Raises:
        EvaluationError: if a user's function cannot be loaded.
    """
    seed = space.document.search.seed
    made: dict[str, dict[str, Objective]] = {"reported": {}, "guiding": {}}
    for name, settings in space.document.objective.items():
        wanted = settings.tasks or list(facts.members)
        tasks = [task for each in wanted for task in facts.members[each]]
        weights = {task: facts.weights[task] for task in tasks}
        if settings.tasks is not None and settings.kind == "weighted_sum":
            weights = _own_weights(space, weights)
        for kind, group in made.items():
            references = (parents or {}).get(kind, {})
            rule = _rule(settings, weights, references, folder or space.origin.folder)
            group[name] = Objective(weights, rule, seed)
    return Objectives(made["reported"], made["guiding"] if facts.smooth else {}, seed)


def _own_weights(space: Space, weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights that add up to 1 where the space gives none: an objective of its own."""
    if any(task.weight is not None for task in space.document.tasks):
        return dict(weights)
    whole = sum(weights.values())
    return {task: weight / whole for task, weight in weights.items()}


def _rule(
    settings: ObjectiveSettings,
    weights: Mapping[str, float],
    parents: Mapping[str, float],
    folder: Path,
) -> Rule | None:
    if settings.kind == "weighted_sum":
        return None
    if settings.kind == "min":
        return Worst(tuple(weights))
    if settings.kind == "improvement":
        return Improvement(weights, {task: parents.get(task, 0.0) for task in weights})
    return UserFunction(
        settings.kind, load_callable(settings.kind, folder, role="objective"), tuple(weights)
    )
