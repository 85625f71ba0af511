"""Names of trials and tasks that fit into a table."""

from pathlib import Path

from evomerge.search.records import TrialRecord
from evomerge.search.result import RunResult
from evomerge.search.verdicts import Verdict

__all__ = ["score_columns", "short_constraint", "short_names", "trial_name"]


def trial_name(record: TrialRecord) -> str:
    """Return what a trial is called in tables: ``parent math``, ``average``, ``trial 12``."""
    name = Path(record.label).name
    if record.kind in ("parent", "base") and name != record.kind:
        return f"{record.kind} {name}"
    return name


def short_names(names: list[str]) -> list[str]:
    """Return names without the words that all of them begin with."""
    parts = [name.split("_") for name in names]
    while len(parts) > 1 and len({part[0] for part in parts}) == 1 and all(p[1:] for p in parts):
        parts = [part[1:] for part in parts]
    return ["_".join(part) for part in parts]


def score_columns(result: RunResult) -> tuple[str, list[str]]:
    """Return the objective that the winner is chosen by, and the tasks to show beside it."""
    tasks = list(result.winner.holdout.tasks) if result.winner.holdout else []
    if not result.objective_names:
        return "objective", tasks
    first = result.objective_names[0]
    short = short_names(tasks)
    if first in tasks:
        return short[tasks.index(first)], [task for task in tasks if task != first]
    return (f"objective {first}" if first in short else first), tasks


def short_constraint(verdict: Verdict, result: RunResult) -> str:
    """Return a constraint for people, with its task as the columns beside it name it."""
    tasks = list(result.winner.holdout.tasks) if result.winner.holdout else []
    short = dict(zip(tasks, short_names(tasks), strict=True))
    return f"{short.get(verdict.task, verdict.task)} at least {verdict.reference}"
