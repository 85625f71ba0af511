"""The console script: commands, errors and exit codes."""

import errno
import os
import sys
from typing import Annotated

import typer

from evomerge.cli.check import check
from evomerge.cli.convert import convert
from evomerge.cli.dashboard import dashboard
from evomerge.cli.evaluate import evaluate
from evomerge.cli.export import export
from evomerge.cli.interrupt import STOPPED
from evomerge.cli.items import items
from evomerge.cli.merge import merge
from evomerge.cli.methods import methods
from evomerge.cli.run import run
from evomerge.errors import EvomergeError
from evomerge.version import __version__

__all__ = ["app", "main"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
"""Why the system takes no file that is written: nothing that a traceback would explain."""

app = typer.Typer(
    name="evomerge",
    help="Finds the best merge of fine-tuned language models by itself.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)
app.command()(run)
app.command()(check)
app.command()(convert)
app.command()(merge)
app.command()(export)
app.command("eval")(evaluate)
app.command()(items)
app.command()(methods)
app.command()(dashboard)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"evomerge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; user errors are one message and exit code 2."""
    # Progress bars and advice of the libraries below would break ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except EvomergeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        # A file of ours that could not be written: whole or not there.
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{os.strerror(error.errno)}", err=True)
        sys.exit(2)
    except SystemExit as end:  # typer makes one of Ctrl-C
        if end.code in STOPPED:
            typer.echo("\nstopped; the same command goes on from here", err=True)
        raise
