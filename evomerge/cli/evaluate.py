"""``evomerge eval``: score any checkpoint or recipe as a run would."""

import json
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import AllowCode, Device, IncludePath, JsonFlag, Side
from evomerge.cli.startup import quick_imports

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_RECIPE",
            help="Checkpoint directory, hub name, or recipe YAML.",
            show_default=False,
        ),
    ],
    space: Annotated[
        Path,
        typer.Option("--space", help="Search space with tasks and settings.", show_default=False),
    ],
    items: Annotated[Side, typer.Option(help="Which items to score.")] = Side.holdout,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the file's.")] = None,
    device: Device = "auto",
    include_path: IncludePath = None,
    allow_code_execution: AllowCode = False,
    as_json: JsonFlag = False,
) -> None:
    """Score a checkpoint or recipe on a space's tasks, the way a run scores its candidates.

    **Examples**

    `evomerge eval merged --space search_spaces/quickstart.yml`

    `evomerge eval runs/quickstart/best.yml --space search_spaces/quickstart.yml --json`
    """
    with quick_imports():
        from evomerge.space import load_space

    loaded = load_space(space).with_search(seed=seed)
    loaded = loaded.with_task_dirs(map(str, include_path or ()))
    with quick_imports():
        from evomerge.cli.progress import spinner
        from evomerge.cli.tables import print_summary
        from evomerge.search import evaluate_recipe

    with spinner(f"scoring {model}"):
        summary = evaluate_recipe(
            model,
            loaded,
            split=items.value,
            device=device,
            allow_code_execution=allow_code_execution,
        )
    if as_json:
        content = {"model": model, "space": loaded.name, "split": items.value, **summary.to_dict()}
        typer.echo(json.dumps(content, indent=2))
        return
    print_summary(f"{model}, {items.value} items", summary)
