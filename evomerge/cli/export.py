"""``evomerge export``: a run's winner, any trial, or the Pareto front, to model directories."""

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import OutArgument
from evomerge.cli.startup import quick_imports

__all__ = ["export"]

PARETO = "pareto"


def _trial(text: str) -> str:
    """Return what ``--trial`` may be."""
    if text != PARETO and not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is no trial; give a number such as 17, or {PARETO}")
    return text


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.", show_default=False)],
    out: OutArgument,
    trial: Annotated[
        str | None,
        typer.Option(
            callback=lambda value: value if value is None else _trial(value),
            metavar=f"N|{PARETO}",
            help=f"Trial number; or {PARETO}: each model of the Pareto front, in OUT/trial-N.",
            show_default="the winner",
        ),
    ] = None,
) -> None:
    """Write a run's winner as weights, tokenizer, recipe and model card.

    The weights are bit for bit those that the trial was scored with.

    **Examples**

    `evomerge export runs/quickstart merged`

    `evomerge export runs/quickstart other --trial 17`

    `evomerge export runs/two_objectives front --trial pareto`
    """
    with quick_imports():
        from evomerge.cli.byte_progress import byte_progress
        from evomerge.export import export_front, export_run

    with byte_progress("exporting") as bar:
        if trial == PARETO:
            records = export_front(run, out, progress=bar, on_member=bar.stage)
        else:
            number = None if trial is None else int(trial)
            records = (export_run(run, out, trial=number, progress=bar),)
    labels = ", ".join(record.label for record in records)
    typer.echo(f"wrote {labels} to {out}")
