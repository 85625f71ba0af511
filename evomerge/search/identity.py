"""Whose study a study is: the space, the weights and the items that it was made with."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from evomerge.documents import Place, show_place
from evomerge.errors import StudyError
from evomerge.evaluation.vllm_options import without_resources
from evomerge.search.directory import RunDirectory, write_atomically
from evomerge.search.storage import without_password
from evomerge.search.study import Study
from evomerge.space import Space
from evomerge.version import __version__

__all__ = ["claim", "write_space"]

_NOTHING = "not given"

_MAY_CHANGE = ("trials", "items", "seconds", "patience", "finalists")


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
        if change := _first_change(kept.get("document"), mine["document"]):
            what += f" ({change})"
    elif kept["models"] != mine["models"]:
        pairs = mine["models"].items()
        changed = [name for name, mark in pairs if kept["models"].get(name) != mark]
        what = f"with other weights, config or tokenizer in {', '.join(changed) or 'a model'}"
    if what:
        raise StudyError(
            f"the study {study.name!r} was made {what}; give another --out to start anew (with "
            "--warm-start from what this run found), or undo the change to continue"
        )


def _first_change(before: Any, now: Any, place: Place = ()) -> str | None:
    """Return where two documents first differ and how; None if they do not, or one is not known."""
    if before is None or before == now:
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
    return next(change for change in changes if change)


def _fixed(space: Space) -> dict[str, Any]:
    """Return what a study's space must keep: all but budgets and what says how memory is used."""
    document = space.document.model_dump(mode="json", exclude_defaults=True)
    search = document.get("search", {})
    document["search"] = {k: v for k, v in search.items() if k not in _MAY_CHANGE}
    evaluation = document.get("evaluation", {})
    if "vllm" in evaluation:
        engine = without_resources(evaluation.pop("vllm"))
        document["evaluation"] = {**evaluation, **({"vllm": engine} if engine else {})}
    if lists := _item_lists(space):
        document["lists"] = lists
    return document


def _item_lists(space: Space) -> dict[str, str]:
    """Return the content of the files that name items: other items are another run."""
    names = [n for task in space.document.tasks for n in (task.search_list, task.holdout_list)]
    paths = [Path(name) for name in names if name is not None]
    return {str(path): path.read_text(encoding="utf-8") for path in paths if path.is_file()}


def write_space(directory: RunDirectory, space: Space, storage: str | None) -> None:
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
            "storage": without_password(storage) if storage else None,
            "folder": str(space.origin.folder.resolve()),
            "evomerge": __version__,
        }
    )
