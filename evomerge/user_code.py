"""Loading a user's Python function or class by the name that a space gives it."""

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from evomerge.errors import SpaceError, nearest
from evomerge.files import import_file

__all__ = ["load_callable"]


@cache
def load_callable(name: str, folder: Path = Path(), *, role: str) -> Callable[..., Any]:
    """Return the function or class that ``module:name`` stands for.

    A module is a file ``module.py`` beside the space or in the current folder, else one that Python
    can import.

    Args:
        name: The name.
        folder: The space file's folder.
        role: What it is for, in messages: ``objective`` or ``optimizer``.

    Raises:
        SpaceError: if there is no such module or object, or importing it fails.
    """
    module_name, _, inner = name.partition(":")
    file = Path(*module_name.split(".")).with_suffix(".py")
    try:
        module = _load_module(module_name, file, folder)
    except ModuleNotFoundError as exc:
        raise SpaceError(
            f"{role} {name!r}: there is no module {exc.name!r}: neither {file} in "
            f"{folder.resolve()} or the current folder, nor an installed one"
        ) from exc
    except Exception as exc:  # the module is the user's
        raise SpaceError(
            f"{role} {name!r}: importing it failed: {type(exc).__name__}: {exc}"
        ) from exc
    found = getattr(module, inner, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        kind = "class" if role == "optimizer" else "function"
        raise SpaceError(
            f"{role} {name!r}: the module has no {kind} {inner!r}; {nearest(inner, known)}"
        )
    return found  # type: ignore[no-any-return]


@cache
def _load_module(name: str, file: Path, folder: Path) -> ModuleType:
    places = [place / file for place in (folder, Path()) if (place / file).is_file()]
    if places:
        return import_file(places[0], f"evomerge_user_{name}")
    return importlib.import_module(name)
