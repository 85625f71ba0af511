"""A task's configuration as plain data, functions by their source; part of the adapter."""

import dataclasses
import hashlib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["plain_config"]

LIBRARIES = ("lm_eval", "torch", "transformers", "tokenizers", "vllm")
UNIMPORTANT = ("metadata", "tag", "task_alias")


def plain_config(task: Any) -> dict[str, Any]:
    """Return what decides a task's prompts and metrics, the same in every process.

    Functions are their names and the content of the files that they are in; versions of the
    libraries that compute are part of it.
    """
    config = {
        field.name: getattr(task.config, field.name) for field in dataclasses.fields(task.config)
    }
    plain = {key: _plain(value) for key, value in config.items() if key not in UNIMPORTANT}
    return {**plain, "class": _function(type(task)), "libraries": _versions()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if callable(value):
        return _function(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def _function(function: Any) -> str:
    """Return a function's name and a hash of its file."""
    inner = inspect.unwrap(getattr(function, "func", function))
    name = getattr(inner, "__qualname__", type(inner).__name__)
    try:
        file = inspect.getsourcefile(inner)
    except TypeError:
        file = None
    return f"{name}:{_digest(file)}" if file else name


@cache
def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
