"""What a run measured, in the words of a model card."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from evomerge.export.card import ScoreRow

if TYPE_CHECKING:
    from evomerge.evaluation import Estimate, TaskScore
    from evomerge.search import OpenRun, Summary, TrialRecord, Verdict

__all__ = ["card_note", "card_rows", "read_result", "read_verdicts"]


def card_rows(record: "TrialRecord", records: "Iterable[TrialRecord]") -> list[ScoreRow]:
    """Return the table's rows: the exported trial, then the baselines.

    Held-out scores where the trial has them, else search scores.
    """
    split = "holdout" if record.holdout else "search"
    rows = [(f"**this model** ({record.label})", record)]
    rows += [
        (f"`{other.label}` ({other.kind})", other)
        for other in records
        if other.is_baseline and other.number != record.number
    ]
    found = []
    for name, row in rows:
        summary: Summary | None = getattr(row, split)
        if summary is None:
            continue
        scores: dict[str, Estimate | TaskScore] = {
            **(summary.objectives or {"objective": summary.objective}),
            **summary.tasks,
        }
        found.append(
            ScoreRow(name, {key: (s.value, s.stderr, s.items) for key, s in scores.items()})
        )
    return found


def card_note(run: "OpenRun", record: "TrialRecord") -> str:
    """Return how the recipe was found, how it was scored, and what became of constraints."""
    if record.holdout:
        scored = "The scores are on items that the search never saw."
    else:
        scored = (
            "The scores are on the items that guided the search, so they are too optimistic: this "
            "trial was not scored on held-out items."
        )
        if (proxy := run.space.document.evaluation.proxy) is not None:
            scored += f" And they are those of a proxy, the engine with {proxy}."
    note = f"Found by the search `{run.name}` with seed {run.seed}, as {record.label}. {scored}"
    verdicts = read_verdicts(run, record.number)
    if not verdicts:
        return note
    held = all(verdict.holds for verdict in verdicts)
    lines = [
        note,
        "",
        "Constraints, on the same items:" if held else "**It violates a constraint**:",
        "",
    ]
    for verdict in verdicts:
        word = "holds" if verdict.holds else "violated"
        lines.append(f"* {verdict.name}: {word} ({verdict.measured()})")
    return "\n".join(lines)


def read_verdicts(run: "OpenRun", number: int) -> "tuple[Verdict, ...]":
    """Return what ``result.json`` says of a trial's constraints; nothing unless a finalist."""
    from evomerge.search import Verdict

    for entry in read_result(run).get("finalists", ()):
        if entry["trial"] == number:
            return tuple(Verdict.from_dict(each) for each in entry.get("constraints", ()))
    return ()


def read_result(run: "OpenRun") -> dict[str, Any]:
    """Return the content of ``result.json``; empty while a run is under way."""
    path = run.directory.result
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
