"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Device", "JsonFlag", "OutArgument", "SpaceArgument"]

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
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
