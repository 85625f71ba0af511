"""From a model's name in a recipe to an open checkpoint."""

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evomerge.checkpoints.checkpoint import Checkpoint
from evomerge.documents import Place
from evomerge.errors import CheckpointError

__all__ = ["locate", "locate_models", "model_places", "open_checkpoint"]

_MODEL_KEYS = ("model", "base_model", "tokenizer_source")
_TOKENIZER_WORDS = ("base", "union")

_HUB_NAME = re.compile(r"^\w[\w.-]*(/\w[\w.-]*)?$")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]


def model_places(data: Any, place: Place = ()) -> list[tuple[Place, str]]:
    """Return every place of a recipe that names a model, and the name.

    The options of a search expression (`{choice: [a, b]}`) are places too.
    """
    found: list[tuple[Place, str]] = []
    items: Iterable[tuple[str | int, Any]]
    if isinstance(data, dict):
        items = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list):
        items = list(enumerate(data))
    else:
        return found
    for key, value in items:
        inner: Place = (*place, key)
        if key in _MODEL_KEYS and isinstance(value, str):
            options: list[tuple[Place, Any]] = [(inner, value)]
        elif key in _MODEL_KEYS and isinstance(value, dict) and "choice" in value:
            choice = value["choice"] if isinstance(value["choice"], list) else []
            options = [((*inner, "choice", index), option) for index, option in enumerate(choice)]
        else:
            found += model_places(value, inner)
            continue
        words = _TOKENIZER_WORDS if key == "tokenizer_source" else ()
        found += [(at, name) for at, name in options if isinstance(name, str) and name not in words]
    return found


def locate_models(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return recipe data whose model names are what the working directory needs.

    Args:
        data: A recipe as plain data; it is not changed.
        folder: The folder of the file that it came from.
    """
    located = copy.deepcopy(dict(data))
    for place, name in model_places(located):
        node: Any = located
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = locate(name, folder)
    return located


def locate(name: str, folder: Path) -> str:
    """Return the path or hub name that a model's name stands for.

    A path is looked for from the working directory, then from `folder` (the recipe's); what is
    neither is a hub name (`org/name` or `org/name@revision`) and returned as it is.
    """
    if Path(name).expanduser().is_dir():
        return name
    beside = folder / name
    return str(beside) if beside.is_dir() else name


def open_checkpoint(name: str) -> Checkpoint:
    """Open a local folder, or the snapshot of a hub repository, downloading it if allowed.

    Raises:
        CheckpointError: if there is no such folder or repository, or it is damaged.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Checkpoint(name, folder)
    if folder.exists():
        raise CheckpointError(f"{name}: a checkpoint is a folder, this is a file")
    if "+" in name:
        raise CheckpointError(
            f"{name}: adapters (model+adapter) are not supported yet; merge the adapter into its "
            "model first, with peft's merge_and_unload"
        )
    repository, _, revision = name.partition("@")
    if not _HUB_NAME.match(repository):
        raise CheckpointError(f"{name}: no such folder (looked from {Path.cwd()})")
    return Checkpoint(name, _snapshot(name, repository, revision or None))


def _snapshot(name: str, repository: str, revision: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    # `models/math` is a missing folder and no repository where a folder `models` is at hand.
    local = "/" in repository and Path(repository).parent.is_dir()
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=_HUB_FILES,
                local_files_only=local,
            )
        )
    except GatedRepoError as exc:
        raise CheckpointError(
            f"{name}: this repository asks for consent: accept its terms at "
            f"https://huggingface.co/{repository} and log in with `hf auth login`"
        ) from exc
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as exc:
        if local:
            raise CheckpointError(
                f"{name}: no such folder (there is {Path(repository).parent}, but not this one in "
                f"it), and no hub repository of this name in the local cache"
            ) from exc
        if constants.HF_HUB_OFFLINE:
            reason = "not in the local cache, and HF_HUB_OFFLINE is set"
        else:
            reason = "not in the local cache, and the hub cannot be reached"
        raise CheckpointError(
            f"{name}: no such folder (looked from {Path.cwd()}), and no hub repository: {reason}. "
            f"Give the path of a folder, or run `hf download {repository}` where there is a network"
        ) from exc
    except (HfHubHTTPError, HFValidationError, OSError) as exc:
        first = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
        raise CheckpointError(
            f"{name}: no such folder (looked from {Path.cwd()}), and the hub says: {first}"
        ) from exc
