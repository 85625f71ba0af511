"""A task's configuration as plain data, functions by their source; part of the adapter."""

import dataclasses
import hashlib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["plain_config", "task_definition"]

LIBRARIES = ("lm_eval", "torch", "transformers", "tokenizers", "vllm")
UNIMPORTANT = ("metadata", "tag", "task_alias")
DATA = ("dataset_path", "dataset_name", "dataset_kwargs", "custom_dataset")
"""Where documents come from; what they are is in the ids of items and examples."""


def plain_config(task: Any) -> dict[str, Any]:
    """Return what decides a task's prompts and metrics, the same in every process.

    Functions are their names and the content of the files that they are in; versions of the
    libraries that compute are part of it.
    """
    config = {
        field.name: getattr(task.config, field.name) for field in dataclasses.fields(task.config)
    }
    left_out = (*UNIMPORTANT, *DATA)
    plain = {key: _plain(value) for key, value in config.items() if key not in left_out}
    return {**plain, "class": _function(type(task)), "libraries": _versions()}


def task_definition(task: Any) -> dict[str, Any]:
    """Return what a task asks and how it judges, wherever its data and whichever its libraries.

    What is as lm-eval has it by default is left out, so that a newer lm-eval with more settings
    gives the same.
    """
    from lm_eval.api.task import ConfigurableTask

    found = {}
    for field in dataclasses.fields(task.config):
        value = getattr(task.config, field.name)
        if field.name not in (*UNIMPORTANT, *DATA) and value != field.default:
            found[field.name] = _plain(value)
    if type(task) is not ConfigurableTask:
        found["class"] = _function(type(task))
    return found


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
