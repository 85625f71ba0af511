"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["AllowCode", "Device", "IncludePath", "JsonFlag", "OutArgument", "Side", "SpaceArgument"]


class Side(StrEnum):
    """Which items."""

    search = "search"
    holdout = "holdout"

    @property
    def side(self) -> Literal["search", "holdout"]:
        """The same as the rest of the program says it."""
        return "search" if self is Side.search else "holdout"


SpaceArgument = Annotated[
    Path, typer.Argument(metavar="SPACE", help="Search space, a YAML file.", show_default=False)
]
OutArgument = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="New directory for the merged model.", show_default=False),
]
Device = Annotated[
    str, typer.Option("--device", help="Torch device; auto is CUDA where there is one.")
]
IncludePath = Annotated[
    list[Path] | None,
    typer.Option(
        "--include-path",
        help="Folder with lm-eval task YAML, beside the space's task_dirs; may be repeated.",
        show_default=False,
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code-execution",
        help="Let tasks run code that the model wrote; the space must allow it too.",
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
