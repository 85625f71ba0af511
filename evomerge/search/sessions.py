"""The processes that worked on a run, one after the other, and where their time went."""

from typing import Any

from evomerge.search.study import Study
from evomerge.workers import Pool

__all__ = ["add_up_seconds", "close_session", "open_session"]


def open_session(study: Study, pool: Pool) -> int:
    """Note that a process begins to work on a run; return its number."""
    sessions = study.attributes.get("sessions", [])
    info = {"workers": pool.info.workers, "load": pool.info.load_seconds}
    study.set_attribute("sessions", [*sessions, info])
    return len(sessions)


def close_session(study: Study, session: int, *, propose: float, total: float) -> None:
    """Note where the time of a process went.

    Args:
        study: The study.
        session: Number of the process.
        propose: Seconds of the proposer.
        total: Seconds in all.
    """
    sessions = study.attributes["sessions"]
    sessions[session] |= {"propose": propose, "store": study.store_seconds, "total": total}
    study.set_attribute("sessions", sessions)


def add_up_seconds(study: Study) -> dict[str, float]:
    """Add up where the time went, over all sessions; a killed one counts to its last trial."""
    sessions: list[dict[str, Any]] = study.attributes.get("sessions", [])
    last = dict.fromkeys(range(len(sessions)), 0.0)
    seconds = dict.fromkeys(("load", "materialize", "score", "propose", "store", "total"), 0.0)
    for record in study.records.values():
        for part in ("materialize", "score"):
            seconds[part] += record.seconds.get(part, 0.0) + record.holdout_seconds.get(part, 0.0)
        session = int(record.seconds.get("session", 0))
        last[session] = max(last.get(session, 0.0), record.seconds.get("elapsed", 0.0))
    for index, session_data in enumerate(sessions):
        for part in ("load", "propose", "store"):
            seconds[part] += session_data.get(part, 0.0)
        seconds["total"] += session_data.get("total", last.get(index, 0.0))
    return seconds
