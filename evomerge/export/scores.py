"""What a run measured, in the words of a model card."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evomerge.export.card import ScoreRow

if TYPE_CHECKING:
    from evomerge.evaluation import Estimate, TaskScore
    from evomerge.search import Summary, TrialRecord

__all__ = ["card_note", "card_rows"]


def card_rows(record: "TrialRecord", records: "Iterable[TrialRecord]") -> list[ScoreRow]:
    """Return the table's rows: the exported trial, then the baselines.

    Held-out scores where the trial has them, else search scores.
    """
    split = "holdout" if record.holdout else "search"
    rows = [(f"**this model** ({record.label})", record)]
    rows += [
        (f"`{other.label}` ({other.kind})", other)
        for other in records
        if other.kind != "proposed" and other.number != record.number
    ]
    found = []
    for name, row in rows:
        summary: Summary | None = getattr(row, split)
        if summary is None:
            continue
        scores: dict[str, Estimate | TaskScore] = {
            "objective": summary.objective,
            **summary.tasks,
        }
        found.append(
            ScoreRow(name, {key: (s.value, s.stderr, s.items) for key, s in scores.items()})
        )
    return found


def card_note(run: str, record: "TrialRecord", seed: int) -> str:
    """Return the sentence that says how the recipe was found and how it was scored."""
    if record.holdout:
        scored = "The scores are on items that the search never saw."
    else:
        scored = (
            "The scores are on the items that guided the search, so they are too optimistic: this "
            "trial was not scored on held-out items."
        )
    return f"Found by the search `{run}` with seed {seed}, as {record.label}. {scored}"
