"""``evomerge convert``: a file of mergekit-evolve as a search space."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["convert"]


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            help="A file of mergekit-evolve, with genome and tasks.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; without it the space is printed."),
    ] = None,
) -> None:
    """Write a mergekit-evolve file as a **search space**.

    `evomerge run` takes either. The search space has the same dimensions and recipes, and shows
    every setting.

    **Examples**

    `evomerge convert genome.yml`

    `evomerge convert genome.yml --out space.yml`
    """
    from evomerge.errors import SpaceError
    from evomerge.files import replacing
    from evomerge.space import convert_genome

    if out is not None and out.exists():
        raise SpaceError(f"--out {out}: this file is there already; give another name")
    text, notes = convert_genome(file, None if out is None else out.parent)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    if out is None:
        typer.echo(text, nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as stream:
        stream.write(text.encode())
    typer.echo(f"wrote {out}; `evomerge check {out}` shows what it searches")
