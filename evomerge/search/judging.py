"""From item scores to what the study keeps: objectives, and how far constraints are from holding.

Both may be relative to baselines. Until those are scored, the outcomes of the others wait.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from evomerge.errors import EvaluationError
from evomerge.evaluation import ItemScores, Objective, TaskScore
from evomerge.evaluation.calibration import Calibration, Logistic, blend, fit_calibrations
from evomerge.evaluation.sampling import SampledScore
from evomerge.evaluation.settings import Split
from evomerge.proposers import Told
from evomerge.search.baselines import baselines
from evomerge.search.constraints import (
    Constraint,
    Penalty,
    make_constraints,
    penalized_values,
    reference_baselines,
)
from evomerge.search.directory import RunDirectory
from evomerge.search.objectives import (
    ObjectiveFacts,
    Objectives,
    best_parents,
    make_objectives,
    needs_parents,
)
from evomerge.search.records import Summary, TrialRecord
from evomerge.search.study import Study
from evomerge.space import Space
from evomerge.workers import Outcome, Scored

__all__ = ["Judge", "find_references", "search_scores"]

References = Mapping[str, int]
"""Constraint -> trial that it is measured against; none where the space gives a number."""


def find_references(
    space: Space,
    constraints: Sequence[Constraint],
    trials: Iterable[TrialRecord],
    scores: Mapping[int, Mapping[str, TaskScore]],
) -> dict[str, int]:
    """Return the trial that each constraint is measured against.

    ``best_parent`` is the parent with the best score on the search items; of equal ones the first.

    Args:
        space: The space.
        constraints: Its constraints.
        trials: Trials, the baselines' among them.
        scores: Trial -> its task scores on the search items, if it has any.

    Raises:
        EvaluationError: if a baseline that is named could not be scored.
    """
    numbers = {(each.kind, each.label): each.number for each in trials}
    groups = reference_baselines(space, baselines(space))
    found = {}
    for constraint in constraints:
        if constraint.task not in groups:
            continue
        places = [numbers[each.kind, each.name] for each in groups[constraint.task]]
        scored = [place for place in places if place in scores]
        if not scored:
            raise EvaluationError(
                f"constraint at_least {constraint.task}: {constraint.at_least}: that baseline "
                "could not be scored on the search items, so there is nothing to measure against"
            )
        found[constraint.task] = max(
            scored, key=lambda place: (constraint.value(scores[place]), -place)
        )
    return found


def search_scores(
    trials: Iterable[TrialRecord], directory: RunDirectory, seed: int
) -> dict[int, Mapping[str, TaskScore]]:
    """Return the baselines' task scores on the search items.

    Those too of a baseline whose objective could not be computed: its items are on disk.

    Args:
        trials: Trials of a study.
        directory: Where item scores are.
        seed: Seed of bootstraps.
    """
    found: dict[int, Mapping[str, TaskScore]] = {}
    for record in trials:
        path = directory.items(record.number, "search")
        if record.search is not None:
            found[record.number] = record.search.tasks
        elif record.is_baseline and record.state == "failed" and path.is_file():
            found[record.number] = ItemScores.from_parquet(path).tasks(seed)
    return found


class Judge:
    """Summarizes item scores.

    Args:
        space: The space.
        facts: What loading its tasks said.
        study: Where trials are recorded.
        directory: Where item scores are kept.

    Raises:
        EvomergeError: if an objective cannot be made, or a constraint's baseline is not there.
    """

    def __init__(
        self,
        space: Space,
        facts: ObjectiveFacts,
        study: Study,
        directory: RunDirectory,
    ) -> None:
        self._space = space
        self._facts = facts
        self._study = study
        self._directory = directory
        self._seed = space.document.search.seed
        self._constraints = make_constraints(space, facts)
        found = baselines(space)
        groups = reference_baselines(space, found)
        self._needed = {(b.kind, b.name) for group in groups.values() for b in group}
        if needs_parents(space):
            self._needed |= {(b.kind, b.name) for b in found if b.kind == "parent"}
        if facts.blended:
            self._needed |= {(b.kind, b.name) for b in found}
        make_objectives(space, facts)  # what is wrong with them shows now
        self._baselines = {(b.kind, b.name) for b in found}
        self._held: list[Outcome] = []
        self._objectives: Objectives | None = None
        self._references: References = {}
        self._reference_scores: dict[int, Mapping[str, TaskScore]] = {}
        self._calibrations: dict[str, Calibration] = {}
        self._penalty: Penalty | None = None
        self._settle()

    @property
    def guiding(self) -> tuple[Objective, ...]:
        """What the search raises, one objective a number; once all baselines are scored."""
        made = self._made
        return tuple((made.guiding or made.reported).values())

    @property
    def worth(self) -> dict[str, Logistic]:
        """Task -> what its gold answers' probability is worth, where baselines have shown that."""
        found = {task: each.logistic for task, each in self._calibrations.items()}
        return {task: each for task, each in found.items() if each is not None}

    @property
    def _made(self) -> Objectives:
        assert self._objectives is not None  # noqa: S101 - made before any outcome is ready
        return self._objectives

    def take(self, outcome: Outcome) -> list[Outcome]:
        """Take a baseline's outcome; return those that can be summarized now, by number.

        What guides the search is in them as :meth:`guide` makes it.

        Raises:
            EvaluationError: if what objectives or constraints refer to could not be scored.
        """
        self._held.append(outcome)
        if self._objectives is None:
            self._settle()
        if self._objectives is None:
            return []
        ready, self._held = sorted(self._held, key=lambda each: each.number), []
        return [
            replace(each, scores=self.guide(each.scores)) if isinstance(each, Scored) else each
            for each in ready
        ]

    def guide(self, scores: ItemScores) -> ItemScores:
        """Return what a worker sent with the blends that guide the search; once it is settled."""
        return blend(scores, self._facts.blended, self._calibrations)

    def summarize(self, scores: ItemScores, split: Split = "search") -> Summary:
        """Return objectives, task scores and, on the search items, violations.

        Args:
            scores: All items of the split.
            split: Which items they are.

        Raises:
            EvaluationError: if an objective cannot be computed.
        """
        summary = self._made.summarize(scores)
        if split != "search":
            return summary
        return replace(summary, violations=self._violations(summary))

    def estimate(
        self, reported: Mapping[str, SampledScore], guiding: Mapping[str, SampledScore]
    ) -> Summary:
        """Return what is estimated of a candidate that was scored on a part of the search items.

        Raises:
            EvaluationError: if an objective cannot be computed.
        """
        summary = self._made.estimate(reported, guiding)
        return replace(summary, violations=self._violations(summary))

    def falls_short(self, reported: Mapping[str, SampledScore], margin: float) -> bool:
        """Return whether a candidate clearly violates a constraint on the search items.

        Args:
            reported: What is estimated from a part of the items.
            margin: By how many errors of the estimate.
        """
        return any(
            each.falls_short(reported, self._reference(each), margin) for each in self._constraints
        )

    def told(self, record: TrialRecord) -> Told:
        """Return what a proposer is told of a trial; once all baselines are scored."""
        if record.search is None or record.values is None:
            return Told(None)
        if self._penalty is None:
            trials = self._study.records.values()
            mine = [record for record in trials if (record.kind, record.label) in self._baselines]
            known = [record.values for record in mine if record.values is not None]
            self._penalty = Penalty.from_baselines(known)
        values = penalized_values(record.values, record.search.violations.values(), self._penalty)
        stderrs = record.search.sampling_stderrs or (0.0,) * len(values)
        return Told(values, stderrs, record.search.num_items)

    def _settle(self) -> None:
        """Make the objectives and find the references, if all baselines are there for that."""
        # By number, whoever was done first: sums differ in their last bits with their order.
        held = {each.number: each for each in sorted(self._held, key=lambda each: each.number)}
        trials = self._study.records.values()
        ended = {
            (record.kind, record.label)
            for record in trials
            if record.number in held or record.state != "running"
        }
        if not self._needed <= ended:
            return
        self._calibrations = self._calibrate(held)
        parents = self._study.attributes.get("parents")
        if needs_parents(self._space) and parents is None:
            parents = self._note_parents(held)
        if self._constraints:
            scores = search_scores(trials, self._directory, self._seed)
            for number, outcome in held.items():
                if isinstance(outcome, Scored):
                    scores[number] = outcome.scores.tasks(self._seed)
            self._references = find_references(self._space, self._constraints, trials, scores)
            self._reference_scores = {n: scores[n] for n in self._references.values()}
        self._objectives = make_objectives(self._space, self._facts, parents)

    def _calibrate(self, held: Mapping[int, Outcome]) -> dict[str, Calibration]:
        """Return what smooth metrics are worth; kept, once: a resumed run has the same."""
        if not self._facts.blended:
            return {}
        kept = self._study.attributes.get("calibrations")
        if kept is None:
            scored = [each.scores for each in held.values() if isinstance(each, Scored)]
            made = fit_calibrations(self._facts.blended, scored)
            kept = {task: each.to_dict() for task, each in made.items()}
            self._study.set_attribute("calibrations", kept)
        return {task: Calibration.from_dict(each) for task, each in kept.items()}

    def _note_parents(self, held: Mapping[int, Outcome]) -> dict[str, dict[str, float]]:
        """Keep the best parents' scores, once: a resumed run has the same."""
        kinds = {record.number: record.kind for record in self._study.records.values()}
        outcomes = [each for number, each in held.items() if kinds[number] == "parent"]
        scored = [self.guide(each.scores) for each in outcomes if isinstance(each, Scored)]
        if not scored:
            reasons = [each.reason for each in outcomes if not isinstance(each, Scored)]
            raise EvaluationError(
                "objective improvement: no parent could be scored, so there is nothing to improve "
                f"on; the first reason: {reasons[0] if reasons else 'the space has no parents'}"
            )
        parents = best_parents(scored, self._seed)
        self._study.set_attribute("parents", parents)
        return parents

    def _violations(self, summary: Summary) -> dict[str, float]:
        """Return how far each constraint is from holding, against the baselines' whole scores."""
        return {
            each.task: each.violation(summary.tasks, self._reference(each))
            for each in self._constraints
        }

    def _reference(self, constraint: Constraint) -> Mapping[str, TaskScore] | None:
        """Return the scores of the baseline that a constraint names; None where it has a number."""
        return self._reference_scores.get(self._references.get(constraint.task, -1))
