"""From a model's name in a recipe to an open checkpoint."""

import copy
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evomerge.checkpoints.adapters import AdaptedCheckpoint
from evomerge.checkpoints.checkpoint import Checkpoint
from evomerge.checkpoints.lora import ADAPTER_CONFIG, Adapter, is_adapter, read_adapter
from evomerge.checkpoints.tokenizer import read_json
from evomerge.documents import Place
from evomerge.errors import CheckpointError
from evomerge.recipe import model_name

__all__ = [
    "locate",
    "locate_models",
    "model_places",
    "open_adapter",
    "open_checkpoint",
    "split_adapter",
]

_MODEL_KEYS = ("model", "base_model", "tokenizer_source")
_TOKENIZER_KEYS = ("tokenizer_source", "source")
_TOKENIZER_WORDS = ("base", "union")
_LONGEST_PATH = 256

_HUB_NAME = re.compile(r"^\w[\w.-]*(/\w[\w.-]*)?$")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]


def model_places(data: Any, place: Place = ()) -> list[tuple[Place, str]]:
    """Return every place of a recipe that names a model, and the name, in its short form.

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
        # `tokenizer.source`, and the `source` of one of its tokens
        names_model = key in _MODEL_KEYS or (key == "source" and "tokenizer" in place)
        short = model_name(value) if names_model else None
        if isinstance(short, str):
            options: list[tuple[Place, Any]] = [(inner, short)]
        elif names_model and isinstance(value, dict) and "choice" in value:
            choice = value["choice"] if isinstance(value["choice"], list) else []
            options = [((*inner, "choice", i), model_name(each)) for i, each in enumerate(choice)]
        else:
            found += model_places(value, inner)
            continue
        words = _TOKENIZER_WORDS if key in _TOKENIZER_KEYS else ()
        found += [(at, name) for at, name in options if isinstance(name, str) and name not in words]
    return found


def locate_models(
    data: Mapping[str, Any], folder: Path, known: Collection[str] = ()
) -> dict[str, Any]:
    """Return recipe data whose model names are what the working directory needs, in short form.

    The path of a chat template is looked for in the same way.

    Args:
        data: A recipe as plain data; it is not changed.
        folder: The folder of the file that it came from.
        known: Names that are neither paths nor hub names (those of a merge's stages) and stay.
    """
    located = copy.deepcopy(dict(data))
    for place, name in model_places(located):
        node: Any = located
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = locate(name, folder, known)
    template = located.get("chat_template")
    if isinstance(template, str) and "{" not in template and len(template) < _LONGEST_PATH:
        beside = folder / template
        if not Path(template).exists() and beside.is_file():
            located["chat_template"] = str(beside)
    return located


def locate(name: str, folder: Path, known: Collection[str] = ()) -> str:
    """Return the path or hub name that a model's name stands for.

    A path is looked for from the working directory, then from `folder` (the recipe's); what is
    neither is a hub name (`org/name` or `org/name@revision`) and returned as it is. The parts of
    `model+adapter` are located one by one. A name that is `known` stays.
    """
    if name in known or Path(name).expanduser().is_dir():
        return name
    beside = folder / name
    if beside.is_dir():
        return str(beside)
    pair = split_adapter(name, folder, known)
    return name if pair is None else "+".join(locate(part, folder, known) for part in pair)


def split_adapter(
    name: str, folder: Path = Path(), known: Collection[str] = ()
) -> tuple[str, str] | None:
    """Return the model and the adapter of `model+adapter`, or None if there is no adapter.

    A plus sign may be part of a folder's name, so that split counts whose parts are folders (or
    `known`), if there is one; else the last sign separates the adapter.
    """

    def is_folder(part: str) -> bool:
        return part in known or Path(part).expanduser().is_dir() or (folder / part).is_dir()

    pieces = name.split("+")
    splits = tuple(
        ("+".join(pieces[:i]), "+".join(pieces[i:])) for i in range(len(pieces) - 1, 0, -1)
    )
    both = [pair for pair in splits if is_folder(pair[0]) and is_folder(pair[1])]
    either = [pair for pair in splits if is_folder(pair[0]) or is_folder(pair[1])]
    return next(iter((*both, *either, *splits)), None)


def open_checkpoint(name: str, known: Mapping[str, Path] = MappingProxyType({})) -> Checkpoint:
    """Open a local folder, or the snapshot of a hub repository, downloading it if allowed.

    `model+adapter`, each a folder or a hub name, opens as the model with the adapter merged in.

    Args:
        name: What a recipe calls the model.
        known: Folders of names that are neither paths nor hub names, as those of a merge's stages.

    Raises:
        CheckpointError: if there is no such folder or repository, it is damaged, or the adapter
            does not fit its model.
    """
    if name in known:
        return Checkpoint(name, known[name])
    pair = None if Path(name).expanduser().exists() else split_adapter(name, known=known)
    if pair is not None:
        model, adapter = pair
        if not model or not adapter:
            raise CheckpointError(f"{name}: a model with an adapter is written model+adapter")
        return AdaptedCheckpoint(name, open_checkpoint(model, known), open_adapter(adapter))
    path = _folder(name, "checkpoint")
    if is_adapter(path):
        base = read_json(path / ADAPTER_CONFIG).get("base_model_name_or_path") or "MODEL"
        raise CheckpointError(
            f"{name}: this is an adapter and no whole model; write its model before it: "
            f"{base}+{name}"
        )
    return Checkpoint(name, path)


def open_adapter(name: str) -> Adapter:
    """Open a LoRA adapter from a local folder or a hub repository.

    Raises:
        CheckpointError: if there is none, or it is damaged or of another kind.
    """
    return read_adapter(name, _folder(name, "adapter"))


def _folder(name: str, kind: str) -> Path:
    """Return the folder of a local path or of a hub repository's snapshot."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        article = "an" if kind == "adapter" else "a"
        raise CheckpointError(f"{name}: {article} {kind} is a folder, this is a file")
    repository, _, revision = name.partition("@")
    if not _HUB_NAME.match(repository):
        raise CheckpointError(f"{name}: no such folder (looked from {Path.cwd()})")
    return _snapshot(name, repository, revision or None)


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
