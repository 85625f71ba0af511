"""Loading a user's Python function by the name that a space gives it."""

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from evomerge.errors import SpaceError, nearest
from evomerge.files import import_file

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
            import_file(places[0], f"evomerge_objective_{module_name}")
            if places
            else importlib.import_module(module_name)
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
