"""``evomerge check``: what a recipe or a space means, and what is wrong with it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import AllowCode, IncludePath, JsonFlag
from evomerge.cli.startup import quick_imports

__all__ = ["check"]


def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Recipe or search space.", show_default=False)
    ],
    include_path: IncludePath = None,
    allow_code_execution: AllowCode = False,
    as_json: JsonFlag = False,
) -> None:
    """Check a recipe or a search space without loading weights.

    Prints the searched dimensions, the models with parameter counts and dtypes, whether their
    tokenizers agree, and the memory that each worker needs. Exit code 2 if something is wrong.

    **Examples**

    `evomerge check search_spaces/quickstart.yml`

    `evomerge check recipe.yml --json`
    """
    with quick_imports():
        from evomerge.space import Space, load_file

    loaded = load_file(file)
    if isinstance(loaded, Space):
        loaded = loaded.with_task_dirs(map(str, include_path or ()))
    with quick_imports():
        from evomerge.cli.tables import print_inspection
        from evomerge.search import inspect_loaded

    inspection = inspect_loaded(loaded, str(file), allow_code_execution=allow_code_execution)
    if as_json:
        typer.echo(json.dumps(inspection.to_dict(), indent=2))
    else:
        print_inspection(inspection)
    if inspection.problems:
        raise typer.Exit(2)
