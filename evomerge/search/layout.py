"""How a trial is written into an Optuna trial: its attributes, and back.

Every attribute that is set after a trial began is a transaction of its own, so a trial has two:
``trial``, which is written with the trial itself, and ``result``, which is written when it ends.
What people look for stands first in them: the dashboard shows the first 1,024 characters of one.
Studies of earlier versions, with an attribute for each fact, are read too.
"""

from collections.abc import Mapping
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from evomerge.errors import StudyError
from evomerge.search.records import Kind, State, Summary, TrialRecord
from evomerge.space import Value

__all__ = ["BEGUN", "ENDED", "begun", "failed", "num_items", "read_trial", "scored"]

BEGUN = "trial"
"""The attribute that says what is tried."""

ENDED = "result"
"""The attribute that says what came of it; it counts once the trial's state says that it ended."""

_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


def begun(
    *,
    kind: Kind,
    label: str,
    recipe: Mapping[str, Any],
    point: Mapping[str, Value] | None,
    asked_after: int,
    seed: int,
) -> dict[str, Any]:
    """Return the content of ``trial``."""
    return {
        "label": label,
        "kind": kind,
        "asked_after": asked_after,
        "seed": seed,
        "recipe": dict(recipe),
        "point": None if point is None else dict(point),
    }


def scored(
    summary: Summary,
    *,
    seconds: Mapping[str, float],
    order: int | None,
    worker: int,
    scored_items: int,
) -> dict[str, Any]:
    """Return the content of ``result`` for a trial that has scores."""
    return {
        **{name: score.value for name, score in summary.tasks.items()},
        "stderr": summary.objective.stderr,
        "items": summary.objective.items,
        "scored_items": scored_items,
        "order": order,
        "worker": worker,
        "seconds": dict(seconds),
        "scores": summary.to_dict(),
    }


def failed(reason: str, *, seconds: Mapping[str, float], order: int | None) -> dict[str, Any]:
    """Return the content of ``result`` for a trial that failed."""
    return {"reason": reason, "order": order, "seconds": dict(seconds)}


def num_items(summary: Summary) -> int:
    """Return how many items are behind the scores."""
    return sum(score.items for score in summary.tasks.values())


def read_trial(trial: FrozenTrial, holdout: Mapping[str, Any] | None) -> TrialRecord:
    """Return what a trial of a study says.

    Args:
        trial: The trial.
        holdout: Its held-out scores, which are an attribute of the study.

    Raises:
        StudyError: if it was not written by evomerge.
    """
    begin, end = _parts(trial)
    state = _STATES[trial.state]
    if state == "running":
        end = {}  # the process died before the state was written: scored again, from the cache
    counts = {"search": end["scored_items"]} if "scored_items" in end else {}
    if holdout and "scored_items" in holdout:
        counts["holdout"] = holdout["scored_items"]
    return TrialRecord(
        number=trial.number,
        kind=begin["kind"],
        label=begin["label"],
        state=state,
        recipe=begin["recipe"],
        point=begin["point"],
        asked_after=begin["asked_after"],
        order=end.get("order"),
        search=Summary.from_dict(end["scores"]) if "scores" in end else None,
        holdout=Summary.from_dict(holdout) if holdout else None,
        reason=None if "scores" in end else end.get("reason"),  # a task may have this name
        seconds=end.get("seconds", {}),
        holdout_seconds=(holdout or {}).get("seconds", {}),
        worker=end.get("worker", 0),
        scored_items=counts,
    )


def _parts(trial: FrozenTrial) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the contents of ``trial`` and ``result``."""
    kept = trial.user_attrs
    if isinstance(kept.get(BEGUN), dict):
        return kept[BEGUN], kept.get(ENDED, {})
    if "kind" in kept and "recipe" in kept:  # one attribute a fact; the recipe is YAML text
        point = dict(trial.params) or None
        begin = {**kept, "recipe": yaml.safe_load(kept["recipe"]), "point": point}
        return begin, kept.get(ENDED, kept)
    raise StudyError(
        f"trial {trial.number} of the study was not written by evomerge; use another --storage "
        "or another run name"
    )
