"""Loading a user's Python function by the name that a space gives it."""

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from evomerge.errors import SpaceError, nearest

__all__ = ["load_function"]


@cache
def load_function(name: str, folder: Path = Path()) -> Callable[..., Any]:
    """Return the function that ``module:function`` stands for.

    A module is a file ``module.py`` beside the space or in the current folder, else one that Python
    can import.

    Args:
        name: The name.
        folder: The space file's folder.

    Raises:
        SpaceError: if there is no such module or function, or importing it fails.
    """
    module_name, _, inner = name.partition(":")
    file = Path(*module_name.split(".")).with_suffix(".py")
    places = [place / file for place in (folder, Path()) if (place / file).is_file()]
    try:
        module = (
            _load_file(places[0], module_name) if places else importlib.import_module(module_name)
        )
    except ModuleNotFoundError as exc:
        raise SpaceError(
            f"objective {name!r}: there is no module {exc.name!r}: neither {file} in "
            f"{folder.resolve()} or the current folder, nor an installed one"
        ) from exc
    except Exception as exc:  # the module is the user's
        raise SpaceError(
            f"objective {name!r}: importing it failed: {type(exc).__name__}: {exc}"
        ) from exc
    function = getattr(module, inner, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise SpaceError(
            f"objective {name!r}: the module has no function {inner!r}; {nearest(inner, known)}"
        )
    return function  # type: ignore[no-any-return]


def _load_file(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"evomerge_objective_{name}", path)
    assert spec is not None  # noqa: S101 - a .py file has one
    assert spec.loader is not None  # noqa: S101 - and a loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
