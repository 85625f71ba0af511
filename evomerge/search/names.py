"""Names of trials and tasks that fit into a table."""

from pathlib import Path

from evomerge.search.records import TrialRecord

__all__ = ["short_names", "trial_name"]


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
