"""Choosing on held-out items: finalists, the winner, and what it is worth against the baselines."""

from evomerge.errors import StudyError
from evomerge.evaluation import ItemScores, Objective, compare
from evomerge.search.directory import RunDirectory
from evomerge.search.records import TrialRecord
from evomerge.search.result import VersusBaseline
from evomerge.search.study import Study

__all__ = ["choose_finalists", "compare_with_baselines", "rank_finalists"]


def choose_finalists(study: Study, count: int) -> list[TrialRecord]:
    """Return the ``count`` candidates with the best search objective, best first.

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
    candidates.sort(key=lambda record: (-(record.value or 0.0), record.number))
    return candidates[:count]


def rank_finalists(finalists: list[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Return the finalists that have held-out scores, best first.

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
