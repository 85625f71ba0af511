"""Finds the best merge of fine-tuned language models by itself.

The functions a script needs::

    import evomerge

    space = evomerge.load_space("search_spaces/quickstart.yml")
    result = evomerge.run(space, "runs/quickstart")
    print(result.winner.holdout.objective)
    evomerge.export_run("runs/quickstart", "merged")

Nothing heavy is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from evomerge.errors import EvomergeError
from evomerge.version import __version__

if TYPE_CHECKING:
    from evomerge.export import export_front, export_run, merge_recipe
    from evomerge.recipe import Recipe, load_recipe
    from evomerge.search import RunResult, evaluate_recipe, open_run, run
    from evomerge.space import Space, load_space, parse_space

__all__ = [
    "EvomergeError",
    "Recipe",
    "RunResult",
    "Space",
    "__version__",
    "evaluate_recipe",
    "export_front",
    "export_run",
    "load_recipe",
    "load_space",
    "merge_recipe",
    "open_run",
    "parse_space",
    "run",
]

_HOMES = {
    "Recipe": "evomerge.recipe",
    "load_recipe": "evomerge.recipe",
    "RunResult": "evomerge.search",
    "open_run": "evomerge.search",
    "run": "evomerge.search",
    "Space": "evomerge.space",
    "load_space": "evomerge.space",
    "parse_space": "evomerge.space",
    "evaluate_recipe": "evomerge.search",
    "export_front": "evomerge.export",
    "export_run": "evomerge.export",
    "merge_recipe": "evomerge.export",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
