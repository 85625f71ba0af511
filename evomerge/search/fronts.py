"""Pareto fronts of a run with several objectives, and the hypervolume that they cover."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evomerge.evaluation.settings import Split
from evomerge.search.hypervolume import estimated_steps, is_quick, is_surpassed, volume_steps
from evomerge.search.records import CANDIDATES, Summary, TrialRecord

__all__ = ["Coverage", "Fronts", "make_fronts", "pareto_front", "search_front"]

Values = tuple[float, ...]


def pareto_front(records: Sequence[TrialRecord], values: Mapping[int, Values]) -> list[TrialRecord]:
    """Return the records that no other one surpasses in an objective without losing in another.

    Args:
        records: In any order, which is kept.
        values: Trial number -> its objectives, all better when larger.
    """
    hidden = is_surpassed([values[record.number] for record in records])
    return [record for record, is_hidden in zip(records, hidden, strict=True) if not is_hidden]


def search_front(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the Pareto front of a study's candidates on the search items.

    By the reported metrics, whatever guides the search. Candidates that violate a constraint there
    are left out.
    """
    candidates = [r for r in records if r.kind in CANDIDATES and _counts(r)]
    values = {r.number: r.search.reported for r in candidates if r.search is not None}
    return pareto_front(candidates, values)


def _counts(record: TrialRecord) -> bool:
    return record.state == "complete" and record.search is not None and record.violation == 0


@dataclass(frozen=True)
class Coverage:
    """A hypervolume on one split.

    Attributes:
        reference: The worst baseline's value of each objective, where the volume begins.
        baselines: Volume that the baselines cover alone.
        total: Volume that all trials cover together.
        steps: On the search items: trial -> volume after it, for the trials that added some.
        exact: False where it is counted with samples (1 or 2 % off), because many objectives and a
            large front would take hours.
    """

    reference: Values
    baselines: float
    total: float
    steps: Mapping[int, float]
    exact: bool

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the form of ``result.json``.

        Args:
            names: Names of the objectives.
        """
        content: dict[str, Any] = {
            "reference": dict(zip(names, self.reference, strict=True)),
            "baselines": self.baselines,
            "total": self.total,
            "exact": self.exact,
        }
        if self.steps:
            content["steps"] = [{"trial": n, "volume": v} for n, v in self.steps.items()]
        return content


@dataclass(frozen=True)
class Fronts:
    """What a run with several objectives found.

    Attributes:
        search: The candidates' Pareto front on the search items.
        holdout: The finalists' Pareto front on the held-out items.
        surpassed: Trial of ``holdout`` -> labels of the baselines that surpass it there.
        coverage: Split -> hypervolume.
    """

    search: tuple[TrialRecord, ...]
    holdout: tuple[TrialRecord, ...]
    surpassed: Mapping[int, tuple[str, ...]]
    coverage: Mapping[Split, Coverage]


def make_fronts(
    trials: Sequence[TrialRecord],
    finalists: Sequence[TrialRecord],
    holds: Callable[[TrialRecord], bool],
) -> Fronts:
    """Find the fronts of a run.

    Args:
        trials: All trials, by number.
        finalists: Those with held-out scores, best first. If none of them holds the constraints,
            the front is the first one alone.
        holds: Whether a trial with held-out scores holds the constraints there.
    """
    holding = [record for record in finalists if holds(record)] or list(finalists[:1])
    values = {r.number: r.holdout.reported for r in trials if r.holdout is not None}
    front = pareto_front(holding, values)
    baselines = [r for r in trials if r.is_baseline and r.holdout is not None]
    surpassed = {
        record.number: tuple(
            other.label
            for other in baselines
            if is_surpassed([values[record.number], values[other.number]])[0]
        )
        for record in front
    }
    scored = [*baselines, *(r for r in finalists if not r.is_baseline)]
    return Fronts(
        tuple(search_front(trials)),
        tuple(front),
        {number: labels for number, labels in surpassed.items() if labels},
        {
            "search": _cover(trials, _search, _counts),
            "holdout": _cover(scored, _holdout, holds),
        },
    )


def _search(record: TrialRecord) -> Summary | None:
    return record.search if record.state == "complete" else None


def _holdout(record: TrialRecord) -> Summary | None:
    return record.holdout


def _cover(
    trials: Sequence[TrialRecord],
    summary: Callable[[TrialRecord], Summary | None],
    counts: Callable[[TrialRecord], bool],
) -> Coverage:
    """Measure the volume that trials cover, baselines first."""
    scored = {r.number: s.reported for r in trials if (s := summary(r)) is not None}
    is_baseline = {r.number: r.is_baseline for r in trials}
    floor = [values for number, values in scored.items() if is_baseline[number]]
    # There may be no baseline with held-out scores; then nothing is below the trials themselves.
    reference = tuple(np.min(floor or list(scored.values()), axis=0).tolist())
    ordered = sorted(trials, key=lambda record: (not record.is_baseline, record.number))
    points = {r.number: scored[r.number] for r in ordered if r.number in scored and counts(r)}
    exact = is_quick(list(points.values()))
    measure = volume_steps if exact else estimated_steps
    volumes = dict(zip(points, measure(list(points.values()), reference), strict=True))
    steps: dict[int, float] = {}
    for number, volume in volumes.items():
        if volume > max(steps.values(), default=0.0):
            steps[number] = volume
    baselines = [volume for number, volume in volumes.items() if is_baseline[number]]
    return Coverage(
        reference,
        max(baselines, default=0.0),
        max(volumes.values(), default=0.0),
        steps if summary is _search else {},
        exact,
    )
