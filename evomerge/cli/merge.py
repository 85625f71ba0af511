"""``evomerge merge``: one recipe to one model."""

import re
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import OutArgument
from evomerge.cli.startup import quick_imports

__all__ = ["merge", "parse_size"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `5GB`, `500MB`, `1.5G` or `2GiB`.

    Raises:
        typer.BadParameter: if it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.strip().upper())
    if found is None or (found[3] and not found[2]):
        raise typer.BadParameter(f"{text!r} is no size; give one like 5GB, 500MB or 2GiB")
    unit = _UNITS[found[2]]
    size = int(float(found[1]) * (2 ** (10 * round(len(str(unit)) / 3)) if found[3] else unit))
    if size < 1:
        raise typer.BadParameter(f"{text!r} is too small for a shard; give one like 5GB")
    return size


def merge(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.", show_default=False)
    ],
    out: OutArgument,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random methods (DARE).")] = 0,
    device: Annotated[
        str,
        typer.Option(
            help="Where to compute: cpu, cuda (through the GPU, tensor by tensor), or auto."
        ),
    ] = "cpu",
    shard_size: Annotated[
        int,
        typer.Option(
            parser=parse_size, metavar="SIZE", help="Largest size of a weights file, as 5GB."
        ),
    ] = "5GB",  # type: ignore[assignment]  # typer parses the default as well
) -> None:
    """Merge a recipe (mergekit's YAML) to a model directory that transformers loads.

    Several recipes in one file, divided by `---`, run one after the other: the `name` of one is a
    model for the others, and the one that no other uses is the result. Several such results go to
    folders of their names below OUT. A model may be given as `MODEL+ADAPTER`, with a LoRA adapter.

    **Examples**

    `evomerge merge recipe.yml merged`

    `evomerge merge runs/quickstart/best.yml merged --seed 0`

    `evomerge merge recipe.yml merged --device cuda --shard-size 2GB`
    """
    with quick_imports():
        from evomerge.cli.byte_progress import byte_progress
        from evomerge.export import merge_recipe

    try:
        with byte_progress("merging") as bar:
            merge_recipe(
                recipe,
                out,
                seed=seed,
                progress=bar,
                device=device,
                shard_bytes=shard_size,
                on_stage=bar.stage,
            )
    except KeyboardInterrupt:
        typer.echo("stopped; nothing was written", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"wrote {out}")
