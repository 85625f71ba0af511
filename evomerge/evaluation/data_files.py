"""Where the relative data files of a local task YAML are, and which content they have."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import EvaluationError

__all__ = ["dataset_overrides"]

BUILDERS = ("json", "csv", "parquet", "arrow", "text")


def dataset_overrides(config: Mapping[str, Any], yaml_path: Path | None) -> dict[str, Any]:
    """Return the keys of a task's configuration that must change for its data to be found.

    Relative ``data_files`` are looked for from the current folder, then from the task file's
    folder and its parents. The configuration's name becomes the hash of the files' content, which
    keys the cache of ``datasets``: an edited file is read anew even if its time stamp is old.

    Args:
        config: The task's configuration, as lm-eval's index has it.
        yaml_path: The task file; ``None`` for a task without one.

    Raises:
        EvaluationError: if a data file is nowhere.
    """
    kwargs: Mapping[str, Any] = config.get("dataset_kwargs") or {}
    if config.get("dataset_path") not in BUILDERS or not kwargs.get("data_files"):
        return {}
    if yaml_path is None:
        return {}
    places = [Path.cwd(), *yaml_path.resolve().parents]
    found: list[Path] = []

    def locate(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: locate(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [locate(inner) for inner in value]
        if "://" in str(value):
            return value
        files, pattern = _find(str(value), places, yaml_path)
        found.extend(files)
        return pattern

    overrides: dict[str, Any] = {
        "dataset_kwargs": {**kwargs, "data_files": locate(kwargs["data_files"])}
    }
    if not config.get("dataset_name") and found:
        overrides["dataset_name"] = _digest(found)
    return overrides


def _find(name: str, places: Iterable[Path], yaml_path: Path) -> tuple[list[Path], str]:
    """Return the files that a name or a glob pattern stands for, and its absolute form."""
    for place in places:
        path = place / name
        if path.is_file():
            return [path], str(path)
        if any(sign in name for sign in "*?[") and not Path(name).is_absolute():
            files = sorted(file for file in place.glob(name) if file.is_file())
            if files:
                return files, str(path)
    raise EvaluationError(
        f"{yaml_path}: the data file {name!r} is neither in the current folder nor in the task "
        "file's folder or one of its parents"
    )


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"content-{digest.hexdigest()[:16]}"
