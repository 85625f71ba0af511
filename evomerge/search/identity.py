"""Whose study a study is: the space, the weights and the items that it was made with."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from evomerge.documents import Place, show_place
from evomerge.errors import EvaluationError, StudyError
from evomerge.evaluation.vllm_options import without_resources
from evomerge.search.directory import RunDirectory, write_atomically
from evomerge.search.storage import without_password
from evomerge.search.study import Study
from evomerge.search.task_sets import load_task_set
from evomerge.space import Space
from evomerge.version import __version__

__all__ = ["changed_since", "claim", "claim_tasks", "write_space"]

_NOTHING = "not given"

_MAY_CHANGE = ("trials", "items", "seconds", "patience", "finalists")
_NO_RESULT = ("batch_size", "task_dirs", "allow_code_execution")
"""Settings of the evaluation that change no score beyond its last bits.

What the tasks of ``task_dirs`` hold is compared by ``claim_tasks``.
"""


def claim(study: Study, space: Space, identities: Mapping[str, str]) -> None:
    """Mark a new study as this space's, or check that it is.

    Args:
        study: The study.
        space: The space.
        identities: Model name -> what identifies its content.

    Raises:
        StudyError: saying what is not as it was.
    """
    fixed = _fixed(space)
    text = json.dumps(fixed, sort_keys=True)
    mine: dict[str, Any] = {
        "space": hashlib.sha256(text.encode()).hexdigest(),
        "document": {key: value for key, value in fixed.items() if key != "lists"},
        "models": dict(identities),
        "seed": space.document.search.seed,
    }
    kept = study.attributes.get("identity")
    if kept is None:
        study.set_attribute("identity", mine)
        study.set_attribute("evomerge", __version__)
        study.set_attribute("seed", space.document.search.seed)
        if (proxy := space.document.evaluation.proxy) is not None:
            study.set_attribute("proxy", proxy)
        return
    what = None
    if kept["seed"] != mine["seed"]:
        what = f"with seed {kept['seed']}, now it is {mine['seed']}"
    elif kept["space"] != mine["space"]:
        what = "from another version of this space file"
        change = _first_change(kept.get("document", mine["document"]), mine["document"])
        what += f" ({change})" if change else ""
    elif kept["models"] != mine["models"]:
        pairs = mine["models"].items()
        changed = [name for name, mark in pairs if kept["models"].get(name) != mark]
        what = f"with other weights, config or tokenizer in {', '.join(changed) or 'a model'}"
    if what:
        raise StudyError(
            f"the study {study.name!r} was made {what}; give another --out to start anew (with "
            "--warm-start from what this run found), or undo the change to continue"
        )


def claim_tasks(study: Study, identities: Mapping[str, str]) -> None:
    """Keep what a new study's tasks are, or check that they still are.

    Args:
        study: The study, claimed.
        identities: Task -> what identifies its prompts, metrics and items.

    Raises:
        StudyError: naming the tasks that are not as they were.
    """
    if "tasks" not in study.attributes:
        study.set_attribute("tasks", dict(identities))
    elif changed := _changed(study, identities):
        raise StudyError(
            f"the study {study.name!r} was made with other documents, prompts or metrics in "
            f"{', '.join(changed)}, and scores before and after would not compare; give another "
            "--out to start anew, or undo the change to continue"
        )


def changed_since(study: Study, space: Space, *, code_confirmed: bool) -> str | None:
    """Return what a person who sees a finished run again should know of its tasks, if anything.

    Only tasks of the user's own folders are edited, so without such folders nothing is loaded.

    Args:
        study: The study.
        space: Its space.
        code_confirmed: Tasks may run code that the model wrote, if the space says so too.
    """
    document = space.document
    if not document.evaluation.task_dirs or "tasks" not in study.attributes:
        return None
    try:
        tasks = load_task_set(space, code_confirmed=code_confirmed)
    except EvaluationError as error:
        return f"whether the tasks are still those of this result is not known: {error}"
    if changed := _changed(study, tasks.identities()):
        return (
            f"the documents, prompts or metrics of {', '.join(changed)} have changed since; this "
            "result is from before, and another --out begins a run with the tasks as they are"
        )
    return None


def _changed(study: Study, identities: Mapping[str, str]) -> list[str]:
    kept = study.attributes["tasks"]
    return sorted(name for name, mark in identities.items() if kept.get(name) != mark)


def _first_change(before: Any, now: Any, place: Place = ()) -> str | None:
    """Return where two documents first differ and how; None if they do not."""
    if before == now:
        return None
    if isinstance(before, dict) and isinstance(now, dict):
        keys = {**before, **now}
        pairs = [(key, before.get(key, _NOTHING), now.get(key, _NOTHING)) for key in keys]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(key, *both) for key, both in enumerate(zip(before, now, strict=True))]
    else:
        shown = [value if value == _NOTHING else json.dumps(value) for value in (before, now)]
        return f"{show_place(place)}: {shown[0]} then, {shown[1]} now"
    changes = (_first_change(then, after, (*place, key)) for key, then, after in pairs)
    return next((change for change in changes if change), None)


def _fixed(space: Space) -> dict[str, Any]:
    """Return what a study's space must keep: all but budgets and what changes no score."""
    document = space.document.model_dump(mode="json", exclude_defaults=True)
    search = document.get("search", {})
    document["search"] = {k: v for k, v in search.items() if k not in _MAY_CHANGE}
    evaluation = {k: v for k, v in document.get("evaluation", {}).items() if k not in _NO_RESULT}
    if engine := without_resources(evaluation.pop("vllm", {})):
        evaluation["vllm"] = engine
    document["evaluation"] = evaluation
    if lists := _item_lists(space):
        document["lists"] = lists
    return document


def _item_lists(space: Space) -> dict[str, str]:
    """Return the content of the files that name items: other items are another run."""
    names = [n for task in space.document.tasks for n in (task.search_list, task.holdout_list)]
    paths = [Path(name) for name in names if name is not None]
    return {str(path): path.read_text(encoding="utf-8") for path in paths if path.is_file()}


def write_space(directory: RunDirectory, space: Space, study: Study, storage: str | None) -> None:
    """Write the space and where its study is, so that the run directory can be read alone."""
    document = space.document.model_dump(mode="json", exclude_unset=True)
    search = space.document.search
    limits = {"trials": search.trials, "items": search.items, "seconds": search.seconds}
    document["search"] = {
        **document.get("search", {}),
        "seed": search.seed,
        **{name: limit for name, limit in limits.items() if limit is not None},
    }
    write_atomically(directory.space, yaml.safe_dump(document, sort_keys=False))
    directory.write_settings(
        {
            "name": space.name,
            "study": study.name,
            "storage": without_password(storage) if storage else None,
            "folder": str(space.origin.folder.resolve()),
            "evomerge": __version__,
        }
    )
