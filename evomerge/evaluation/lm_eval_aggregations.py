"""Aggregations that are lm-eval's own functions, or a task file's. Part of the adapter to lm-eval.

A score is computed in another process than the one that has the task, so a function is known by
name: lm-eval's registered one, or ``FILE.py:FUNCTION`` for one that a task file brings.
"""

import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from evomerge.errors import EvaluationError
from evomerge.files import import_file

__all__ = ["aggregation_name", "apply_aggregation"]


def aggregation_name(function: Callable[..., Any]) -> str | None:
    """Return the name under which a function can be found again, or None."""
    for name in _registered():
        if _registered()[name] is function:
            return name
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # a partial, or something else without a file
        return None
    name = f"{file}:{getattr(function, '__name__', '')}"
    try:
        _find(name)
    except EvaluationError:
        return None
    return name


def apply_aggregation(name: str, kept: Sequence[Any]) -> float:
    """Return the score of what was kept of some items.

    Raises:
        EvaluationError: if the function is not there, fails, or gives no number.
    """
    function = _find(name)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # sklearn on samples with one class only
            return float(function(list(kept)))
    except Exception as exc:  # the function is the task's and may do anything
        raise EvaluationError(
            f"the aggregation {name!r} failed on {len(kept)} items: {type(exc).__name__}: {exc}"
        ) from exc


@cache
def _registered() -> dict[str, Callable[..., Any]]:
    import lm_eval.api.metrics  # noqa: F401 - fills the registry
    from lm_eval.api.registry import AGGREGATION_REGISTRY, get_aggregation

    return {name: get_aggregation(name) for name in AGGREGATION_REGISTRY}


def _find(name: str) -> Callable[..., Any]:
    if name in _registered():
        return _registered()[name]
    file, _, inner = name.rpartition(":")
    try:
        module = _module(Path(file), Path(file).stat().st_mtime_ns)
        function: Callable[..., Any] = getattr(module, inner)
    except Exception as exc:  # the file is the user's and may do anything
        raise EvaluationError(
            f"the aggregation {name!r} cannot be loaded: {type(exc).__name__}: {exc}"
        ) from exc
    return function


@cache
def _module(path: Path, _changed: int) -> ModuleType:
    """Return a task file's module; an edited file is another one."""
    return import_file(path, f"evomerge_task_{path.stem}")
