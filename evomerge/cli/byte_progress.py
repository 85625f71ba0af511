"""The bar of a merge: bytes, bytes per second and time left."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

__all__ = ["ByteBar", "byte_progress"]

_MAX_NAME = 24


class ByteBar:
    """One bar at a time.

    Args:
        progress: What draws it.
        what: What is done, before the bar.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._what = what
        self._task = progress.add_task(what, total=None)

    def __call__(self, done: int, total: int) -> None:
        """Show the bytes done and the bytes in all."""
        self._progress.update(self._task, completed=done, total=total)

    def stage(self, number: int, count: int, name: str) -> None:
        """Begin anew for a stage of a merge in several; a line where there is no terminal."""
        if self._progress.disable:
            line = f"stage {number} of {count}: {name}"
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        self._progress.remove_task(self._task)
        short = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
        self._task = self._progress.add_task(f"{self._what} {number}/{count} {short}", total=None)


@contextmanager
def byte_progress(what: str, console: Console | None = None) -> Iterator[ByteBar]:
    """Show bytes done, per second and left; silent where there is no terminal.

    Args:
        what: What is done.
        console: Where to show it; by default the error stream.

    Yields:
        What is told the bytes.
    """
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TransferSpeedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("left"),
    )
    with Progress(
        *columns, console=console, expand=True, disable=not console.is_terminal
    ) as progress:
        yield ByteBar(progress, what)
