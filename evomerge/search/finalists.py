"""Choosing on held-out items: finalists, the winner, and what it is worth against the baselines."""

from collections.abc import Mapping, Sequence

from evomerge.errors import StudyError
from evomerge.evaluation import ItemScores, Objective, compare
from evomerge.search.directory import RunDirectory
from evomerge.search.records import TrialRecord
from evomerge.search.result import VersusBaseline
from evomerge.search.study import Study

__all__ = ["choose_finalists", "compare_with_baselines", "pareto_front", "rank_finalists"]


def choose_finalists(study: Study, count: int) -> list[TrialRecord]:
    """Return the ``count`` best candidates by what the search raised, best first.

    The methods' usual values are a point of the space: they may win.

    Raises:
        StudyError: if no candidate has a score.
    """
    candidates = [
        record
        for record in study.records.values()
        if record.state == "complete" and record.kind in ("proposed", "default")
    ]
    if not candidates:
        reasons = [record.reason for record in study.records.values() if record.reason]
        raise StudyError(
            f"no candidate could be scored; the first reason: {reasons[0] if reasons else 'none'}"
        )
    return _best_first(candidates)[:count]


def _best_first(candidates: list[TrialRecord]) -> list[TrialRecord]:
    """Return candidates by what the search raises.

    With several objectives: the Pareto front first, in it the best of each objective, then by the
    first objective; then what the front hides, in the same way.
    """
    left = sorted(candidates, key=lambda record: (-(record.value or 0.0), record.number))
    values = {record.number: record.values or () for record in left}
    if len(next(iter(values.values()))) == 1:
        return left
    found: list[TrialRecord] = []
    while left:
        front = pareto_front(left, values)
        heads = [_best_of(front, values, place) for place in range(len(values[left[0].number]))]
        order = {record.number: record for record in (*heads, *front)}
        found += order.values()
        left = [record for record in left if record.number not in order]
    return found


def _best_of(
    records: Sequence[TrialRecord], values: Mapping[int, tuple[float, ...]], place: int
) -> TrialRecord:
    return max(records, key=lambda record: values[record.number][place])


def pareto_front(
    records: Sequence[TrialRecord], values: Mapping[int, tuple[float, ...]]
) -> list[TrialRecord]:
    """Return the records that no other one surpasses in an objective without losing in another.

    Args:
        records: In any order, which is kept.
        values: Trial number -> its objectives, all better when larger.
    """

    def is_hidden(mine: tuple[float, ...]) -> bool:
        return any(
            values[other.number] != mine
            and all(theirs >= own for theirs, own in zip(values[other.number], mine, strict=True))
            for other in records
        )

    return [record for record in records if not is_hidden(values[record.number])]


def rank_finalists(finalists: list[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Return the finalists that have held-out scores, best first by the first objective.

    Raises:
        StudyError: if none has.
    """
    scored = [record for record in finalists if record.holdout is not None]
    if not scored:
        raise StudyError("no finalist could be scored on the held-out items")
    return tuple(
        sorted(
            scored,
            key=lambda r: (-(r.holdout.objective.value if r.holdout else 0.0), r.number),
        )
    )


def compare_with_baselines(
    study: Study, directory: RunDirectory, winner: TrialRecord, objective: Objective
) -> tuple[VersusBaseline, ...]:
    """Compare the winner with every other baseline, paired on the held-out items."""
    mine = ItemScores.from_parquet(directory.items(winner.number, "holdout"))
    found = []
    for record in study.records.values():
        if record.kind == "proposed" or record.holdout is None or record.number == winner.number:
            continue
        theirs = ItemScores.from_parquet(directory.items(record.number, "holdout"))
        found.append(VersusBaseline(record, compare(mine, theirs, objective)))
    return tuple(found)
