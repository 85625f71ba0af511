"""``evomerge export``: a run's winner, or any trial, to a model directory."""

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import OutArgument

__all__ = ["export"]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.", show_default=False)],
    out: OutArgument,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Trial number.", show_default="the winner")
    ] = None,
) -> None:
    """Write a run's winner as weights, tokenizer, recipe and model card.

    The weights are bit for bit those that the trial was scored with.

    **Examples**

    `evomerge export runs/quickstart merged`

    `evomerge export runs/quickstart other --trial 17`
    """
    from evomerge.cli.byte_progress import byte_progress
    from evomerge.export import export_run

    with byte_progress("exporting") as progress:
        record = export_run(run, out, trial=trial, progress=progress)
    typer.echo(f"wrote {record.label} to {out}")
