"""``evomerge dashboard``: a run's study in the Optuna dashboard."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["dashboard"]


def dashboard(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.", show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port.")] = 8080,
) -> None:
    """Serve the Optuna dashboard for a run, while it runs or afterwards.

    **Examples**

    `evomerge dashboard runs/quickstart`

    `evomerge dashboard runs/quickstart --port 9000`
    """
    from evomerge.report import serve_dashboard
    from evomerge.search import open_run

    opened = open_run(run)
    typer.echo(f"http://{host}:{port}/dashboard (Ctrl-C ends it)")
    serve_dashboard(opened.study, host=host, port=port)
