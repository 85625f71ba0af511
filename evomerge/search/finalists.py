"""Choosing on held-out items: finalists, the winner, and what it is worth against the baselines."""

from collections.abc import Iterable, Mapping, Sequence

from evomerge.errors import StudyError
from evomerge.evaluation import ItemScores, Objective, compare
from evomerge.search.constraints import total_violation
from evomerge.search.directory import RunDirectory
from evomerge.search.fronts import pareto_front
from evomerge.search.hypervolume import spread_out
from evomerge.search.records import CANDIDATES, TrialRecord
from evomerge.search.result import Preference, VersusBaseline
from evomerge.search.study import Study
from evomerge.search.verdicts import Verdict

__all__ = ["choose_finalists", "compare_with_baselines", "prefer_climbed", "rank_finalists"]

LEVEL = 0.05
"""Of the two-sided test by which a finalist beats the climb's end: its 95 % interval is above 0."""


def choose_finalists(study: Study, count: int) -> list[TrialRecord]:
    """Return the ``count`` best candidates by what the search raised, best first.

    The methods' usual values are a point of the space: they may win. Candidates that violate a
    constraint on the search items come after all that hold, the least violation first. Where the
    climb led is always among several: nobody chose it among many for its score on these items, so
    they flatter it less than the others.

    Raises:
        StudyError: if no candidate has a score.
    """
    candidates = [
        record
        for record in study.records.values()
        if record.state == "complete" and record.kind in CANDIDATES
    ]
    if not candidates:
        reasons = [record.reason for record in study.records.values() if record.reason]
        raise StudyError(
            f"no candidate could be scored; the first reason: {reasons[0] if reasons else 'none'}"
        )
    candidates.sort(key=lambda record: (-(record.value or 0.0), record.number))
    holding = [record for record in candidates if not record.violation]
    violating = [record for record in candidates if record.violation]
    violating.sort(key=lambda record: record.violation)
    if holding and len(holding[0].values or ()) > 1:
        baselines = [r.values for r in study.records.values() if r.is_baseline and r.values]
        holding = _spread(holding, baselines, count)
    chosen = (holding + violating)[:count]
    climbed = [record for record in holding[count:] if record.kind == "climbed"]
    return [*chosen[:-1], *climbed] if climbed and count > 1 else chosen


def _spread(
    candidates: list[TrialRecord], baselines: Sequence[tuple[float, ...]], count: int
) -> list[TrialRecord]:
    """Return the candidates that represent the Pareto front, then what it hides in the same way.

    In each front the best of each objective come first, then always the one that adds most to the
    hypervolume above the worst baselines.

    Args:
        candidates: Best first by the first objective, which decides where nothing else does.
        baselines: Their values.
        count: How many to return.
    """
    values = {record.number: record.values or () for record in candidates}
    reference = [min(column) for column in zip(*(baselines or values.values()), strict=True)]
    left, found = list(candidates), list[TrialRecord]()
    while left and len(found) < count:
        front = pareto_front(left, values)
        points = [values[record.number] for record in front]
        heads = [
            max(range(len(front)), key=lambda i: points[i][place])
            for place in range(len(reference))
        ]
        found += [front[i] for i in spread_out(points, reference, count - len(found), heads)]
        numbers = {record.number for record in front}
        left = [record for record in left if record.number not in numbers]
    return found


def rank_finalists(
    finalists: Iterable[TrialRecord], verdicts: Mapping[int, tuple[Verdict, ...]] | None = None
) -> tuple[TrialRecord, ...]:
    """Return the finalists that have held-out scores, best first by the first objective.

    The next ones decide where that is equal, so the best is on the Pareto front. Those that hold
    every constraint there come before all others, which follow by violation.

    Args:
        finalists: In any order.
        verdicts: Trial -> what became of each constraint on the held-out items.

    Raises:
        StudyError: if none has.
    """
    scored = [record for record in finalists if record.holdout is not None]
    if not scored:
        raise StudyError("no finalist could be scored on the held-out items")

    def rank(record: TrialRecord) -> tuple[bool, float, tuple[float, ...], int]:
        mine = (verdicts or {}).get(record.number, ())
        losses = tuple(-value for value in (record.holdout.reported if record.holdout else ()))
        violation = total_violation(each.violation for each in mine)
        return not all(each.holds for each in mine), violation, losses, record.number

    return tuple(sorted(scored, key=rank))


def prefer_climbed(
    ranked: tuple[TrialRecord, ...],
    directory: RunDirectory,
    objective: Objective,
    verdicts: Mapping[int, tuple[Verdict, ...]],
) -> tuple[tuple[TrialRecord, ...], Preference | None]:
    """Put where the climb led first, unless the best one is significantly better (5 %, paired).

    A wider form of the one-standard-error rule (Breiman et al. 1984, Classification and Regression
    Trees), with "chosen for its search score among the fewest" in the place of "simplest". What
    held-out items tell of finalists so close to each other is mostly noise, the more so of the best
    of several; that the others were chosen for a score on few items, and the climb's end was not,
    is known before. A usual value or a recipe of the user's was not chosen for a score either:
    where such a one is the best, nothing changes.

    Args:
        ranked: The finalists, best first.
        directory: Where the item scores are.
        objective: The first objective.
        verdicts: Trial -> what became of each constraint on the held-out items.

    Returns:
        The finalists, and why the first one is not the best; None if it is.
    """
    best = ranked[0]
    climbed = next((record for record in ranked[1:] if record.kind == "climbed"), None)
    if best.kind != "proposed" or climbed is None:
        return ranked, None
    if not all(each.holds for each in verdicts.get(climbed.number, ())):
        return ranked, None
    first, second = (
        ItemScores.from_parquet(directory.items(record.number, "holdout"))
        for record in (best, climbed)
    )
    found = compare(first, second, objective)
    if not found.p_value > LEVEL:
        return ranked, None
    rest = [record for record in ranked if record is not climbed]
    return (climbed, *rest), Preference(best, found)


def compare_with_baselines(
    study: Study, directory: RunDirectory, winner: TrialRecord, objective: Objective
) -> tuple[VersusBaseline, ...]:
    """Compare the winner with every other baseline, paired on the held-out items."""
    mine = ItemScores.from_parquet(directory.items(winner.number, "holdout"))
    found = []
    for record in study.records.values():
        if not record.is_baseline or record.holdout is None or record.number == winner.number:
            continue
        theirs = ItemScores.from_parquet(directory.items(record.number, "holdout"))
        found.append(VersusBaseline(record, compare(mine, theirs, objective)))
    return tuple(found)
