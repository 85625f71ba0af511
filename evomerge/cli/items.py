"""``evomerge items``: what a run's trials got for each item, and two trials side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.options import JsonFlag, Side
from evomerge.cli.startup import quick_imports

if TYPE_CHECKING:
    from evomerge.evaluation import TaskItems

__all__ = ["items"]


def items(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.", show_default=False)],
    trial: Annotated[
        int | None,
        typer.Option(min=0, help="Trial number.", show_default="the winner; with --output all"),
    ] = None,
    task: Annotated[str | None, typer.Option(help="This task only.", show_default="all")] = None,
    split: Annotated[
        Side | None,
        typer.Option(help="Which items.", show_default="holdout if scored; with --output both"),
    ] = None,
    versus: Annotated[
        int | None,
        typer.Option(min=0, help="Compare with this trial, item by item.", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows to print; 0 prints all.")] = 20,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write .csv, .parquet or .jsonl instead.", show_default=False
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print or export what trials got for each item; compare two of them.

    With `--versus` the items on which two trials differ are printed, of those that both were scored
    on, and the paired difference of each task and of the objective with its error and p-value.

    **Examples**

    `evomerge items runs/quickstart`

    `evomerge items runs/quickstart --trial 12 --versus 0 --task playground_add`

    `evomerge items runs/quickstart --output items.csv`
    """
    with quick_imports():
        from evomerge.cli.item_tables import print_comparison, print_items
        from evomerge.errors import StudyError
        from evomerge.search import (
            compare_trials,
            export_items,
            open_run,
            shared_items,
            trial_items,
        )

    opened = open_run(run)
    wanted = split.side if split is not None else None
    if output is not None:
        if versus is not None:
            raise StudyError("--output writes single trials; use --json with --versus")
        records = list(opened.study.records.values()) if trial is None else [opened.trial(trial)]
        count = export_items(opened, records, output, split=wanted, task=task)
        typer.echo(f"wrote {count:,} rows to {output}")
        return
    record = opened.trial(trial)
    if versus is None:
        side, scores = trial_items(opened, record, wanted, task)
        if as_json:
            values = {name: items_of(task) for name, task in scores.by_task.items()}
            typer.echo(json.dumps({"trial": record.number, "split": side, "items": values}))
        else:
            print_items(record, side, scores, rows)
        return
    other = opened.trial(versus)
    side, scores, theirs = shared_items(opened, record, other, wanted, task)
    found = compare_trials(opened, scores, theirs)
    if as_json:
        content = {
            "first": record.number,
            "second": other.number,
            "split": side,
            "items": scores.num_items,
            "comparisons": [each.to_dict() for each in found],
        }
        typer.echo(json.dumps(content, indent=2))
        return
    print_comparison(record, other, side, (scores, theirs), found, rows)


def items_of(task: "TaskItems") -> dict[str, float | str]:
    """Return item id -> what it got."""
    from evomerge.search import item_values

    return dict(zip(task.items, item_values(task), strict=True))
