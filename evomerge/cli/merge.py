"""``evomerge merge``: one recipe to one model."""

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import OutArgument

__all__ = ["merge"]


def merge(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.", show_default=False)
    ],
    out: OutArgument,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random methods (DARE).")] = 0,
) -> None:
    """Merge a recipe (mergekit's YAML) to a model directory that transformers loads.

    **Examples**

    `evomerge merge recipe.yml merged`

    `evomerge merge runs/quickstart/best.yml merged --seed 0`
    """
    from evomerge.cli.progress import byte_progress
    from evomerge.export import merge_recipe

    with byte_progress("merging") as progress:
        merge_recipe(recipe, out, seed=seed, progress=progress)
    typer.echo(f"wrote {out}")
