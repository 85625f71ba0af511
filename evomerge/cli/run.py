"""``evomerge run``: search a space to the end."""

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import AllowCode, Device, IncludePath, SpaceArgument
from evomerge.cli.startup import quick_imports

__all__ = ["run"]


def run(
    space: SpaceArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run directory.", show_default="runs/NAME"),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Trials in all; more than before continues a finished run."),
    ] = None,
    items: Annotated[
        int | None, typer.Option(min=1, help="Item evaluations on the search items in all.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Seconds of searching in all, over all sessions.")
    ] = None,
    warm_start: Annotated[
        Path | None,
        typer.Option(help="Run directory of an earlier search over an overlapping space."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the file's.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Workers; more than one are Ray actors, one a device.")
    ] = 1,
    ray_address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster, for example auto or ray://head:10001."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna storage URL of a new study.", show_default="RUN/study.db"),
    ] = None,
    device: Device = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of results that runs share.", show_default="RUN/cache"),
    ] = None,
    include_path: IncludePath = None,
    allow_code_execution: AllowCode = False,
) -> None:
    """Search a space: baselines, candidates, finalists on held-out items, winner.

    The run directory gets `space.yml`, `study.db`, `best.yml`, `result.json`, `report.html` and the
    per-item scores. The same command again continues an unfinished run.

    Ctrl-C ends the search after the trials under way and chooses the winner among what there is;
    Ctrl-C again stops at once. Either way the same command continues.

    **Examples**

    `evomerge run search_spaces/quickstart.yml`

    `evomerge run space.yml --out runs/big --trials 500 --workers 4 --seed 1`

    `evomerge run finer.yml --items 50000 --warm-start runs/big`
    """
    with quick_imports():
        from evomerge.space import load_space

    loaded = load_space(space).with_search(trials=trials, items=items, seconds=seconds, seed=seed)
    loaded = loaded.with_task_dirs(map(str, include_path or ()))
    # What is wrong with the file is said before torch and lm-eval are imported.
    with quick_imports():
        from evomerge.cli.interrupt import interruptible
        from evomerge.cli.progress import make_display
        from evomerge.cli.tables import print_result
        from evomerge.report import write_report
        from evomerge.search import RunDirectory, find_models
        from evomerge.search import run as run_search

    directory = RunDirectory(out if out is not None else Path("runs") / loaded.name)
    parents, _ = find_models(loaded)
    with (
        make_display(loaded.name, directory.path, len(parents)) as display,
        interruptible() as interrupted,
    ):
        result = run_search(
            loaded,
            directory.path,
            workers=workers,
            ray_address=ray_address,
            storage=storage,
            device=device,
            allow_code_execution=allow_code_execution,
            cache=cache,
            monitor=display,
            interrupted=interrupted,
            warm_start=warm_start,
        )
        write_report(result, loaded, directory.report)
    print_result(result, directory)
