"""What a person sees while something runs: a live panel, or plain lines without a terminal."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from evomerge.search import CANDIDATES, RunResult, Stage, Summary, TrialRecord, short_names
from evomerge.workers import PoolInfo

__all__ = ["LiveDisplay", "PlainDisplay", "make_display", "spinner"]

_STAGES = {
    "baselines": "baselines",
    "climb": "climb",
    "search": "search",
    "holdout": "held-out items",
}


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """Show that something is under way; silent where there is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def make_display(name: str, directory: Path, num_parents: int) -> "PlainDisplay":
    """Return the display that fits where the output goes."""
    console = Console()
    kind = LiveDisplay if console.is_terminal else PlainDisplay
    return kind(console, name, directory, num_parents)


class PlainDisplay:
    """A line for each evaluation.

    Args:
        console: Where to print.
        name: Name of the space.
        directory: Run directory.
        num_parents: Number of parents; more baselines than these follow.
    """

    def __init__(self, console: Console, name: str, directory: Path, num_parents: int) -> None:
        self._console = console
        self._name = name
        self._directory = directory
        self._num_parents = num_parents
        self._info: PoolInfo | None = None
        self._stage: Stage = "baselines"
        self._total = 0.0
        self._done = 0.0
        self._items_done = 0
        self._early: dict[int, int] = {}
        self._started = time.monotonic()
        self.best: TrialRecord | None = None
        self.parent: TrialRecord | None = None
        self.last: TrialRecord | None = None
        self.num_failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def loading(self) -> None:
        """Say that models are read."""
        self._say(f"{self._name}: loading models and tasks")

    def ready(self, info: PoolInfo, records: Sequence[TrialRecord]) -> None:
        """Say what is there."""
        self._info = info
        for record in records:
            self._compare(record)
        self._started = time.monotonic()
        items = info.items
        self._say(
            f"{info.workers} worker{'s' * (info.workers > 1)}, "
            f"{info.bank_bytes / 2**20:,.0f} MiB of sources each, "
            f"{sum(items['search'].values())} search items, "
            f"{sum(items['holdout'].values())} held-out items, ready in {info.load_seconds:.1f} s"
        )

    def note(self, text: str) -> None:
        """Show it."""
        self._say(text)

    def stage(self, name: Stage, *, total: float, done: float) -> None:
        """Begin a stage."""
        self._stage, self._total, self._done = name, total, done
        self._say(
            f"{_STAGES[name]}: {max(total - done, 0):.0f} to go"
            + (f", {done:.0f} there" * bool(done))
        )

    def climbed(self, value: float, *, done: float, total: float) -> None:
        """Take one step of a climb and show it."""
        self._done, self._total = done, total
        self._say(f"[{done:>3.0f}/{total:.0f}] climb: expected score {value:.3f}")

    def waits(self, record: TrialRecord, items: int, *, done: float, total: float) -> None:
        """Show that a baseline was scored."""
        self._done, self._total = done, total
        self._early[record.number] = items
        self._items_done += items
        self._say(
            f"[{done:>3.0f}/{total:.0f}] {Path(record.label).name}: {items} items scored"
            f"  {self.rate():,.0f} items/s, {_clock(self.seconds_left())} left"
        )

    def finished(self, record: TrialRecord, stage: Stage, *, done: float, total: float) -> None:
        """Take one result and show it."""
        self._done, self._total = done, total
        self._note(record, stage)
        self._show(record, stage)

    def concluded(self, result: RunResult) -> None:
        """Nothing: the result is printed after the display has closed."""

    def _note(self, record: TrialRecord, stage: Stage) -> None:
        self.last = record
        summary = _summary(record, stage)
        if summary is None:
            self.num_failed += 1
            return
        self._items_done += summary.objective.items - self._early.pop(record.number, 0)
        if stage != "holdout":
            self._compare(record)

    def _compare(self, record: TrialRecord) -> None:
        if record.search is None:
            return
        if record.kind == "parent" and _better(record, self.parent):
            self.parent = record
        whole = record.state != "pruned"
        if whole and record.kind in CANDIDATES and _better(record, self.best):
            self.best = record

    def _show(self, record: TrialRecord, stage: Stage) -> None:
        summary = _summary(record, stage)
        head = f"[{self._done:>3.0f}/{self._total:.0f}] {Path(record.label).name}"
        if summary is None:
            reason = record.reason or "no score on the held-out items"
            self._say(f"{head}: failed: {reason}")
            return
        names = short_names(list(summary.tasks))
        scores = zip(names, summary.tasks.values(), strict=True)
        tasks = "  ".join(f"{name} {score.value:.3f}" for name, score in scores)
        line = f"{head}: {_number(summary)}  ({tasks})"
        if record.state == "pruned" and stage == "search":
            line += f"  stopped after {summary.num_items} items"
        if self.best is not None and stage == "search":
            line += f"  best {_value(self.best)} ({self.best.label})"
            if self.parent is not None:
                line += f", best parent {_value(self.parent)}"
        self._say(f"{line}  {self.rate():,.0f} items/s, {_clock(self.seconds_left())} left")

    def rate(self) -> float:
        """Return items scored per second in this session."""
        return self._items_done / max(time.monotonic() - self._started, 1e-9)

    def seconds_left(self) -> float:
        """Estimate the seconds to the end of the run from the items that are left, or NaN."""
        if self._info is None or not self._items_done or self._stage == "climb":
            return float("nan")
        search = sum(self._info.items["search"].values())
        holdout = sum(self._info.items["holdout"].values())
        left = self._total - self._done
        items = left * (holdout if self._stage == "holdout" else search)
        if self._stage != "holdout":
            items += (self._num_parents + 8) * holdout
        return items / self.rate()

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


class LiveDisplay(PlainDisplay):
    """A panel that is drawn again with each result."""

    def __init__(self, console: Console, name: str, directory: Path, num_parents: int) -> None:
        super().__init__(console, name, directory, num_parents)
        self._message = "loading models and tasks"
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def _show(self, record: TrialRecord, stage: Stage) -> None:  # noqa: ARG002 - it redraws all
        self._live.refresh()

    def waits(self, record: TrialRecord, items: int, *, done: float, total: float) -> None:
        """Count a baseline that was scored; the panel draws itself."""
        super().waits(record, items, done=done, total=total)
        self._live.refresh()

    def climbed(self, value: float, *, done: float, total: float) -> None:
        """Take one step of a climb; the panel draws itself."""
        super().climbed(value, done=done, total=total)
        self._live.refresh()

    def note(self, text: str) -> None:
        """Print it above the panel, where it stays."""
        self._live.console.print(text, highlight=False, markup=False)

    def _say(self, text: str) -> None:
        self._message = text

    def _draw(self) -> RenderableType:
        if not self._total:
            return Text(self._message)
        return Group(self._bar(), self._scores(), self._footer())

    def _bar(self) -> RenderableType:
        progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            expand=True,
        )
        progress.add_task(
            f"{self._name}  {_STAGES[self._stage]}", completed=round(self._done), total=self._total
        )
        return progress

    def _scores(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("", no_wrap=True, overflow="ellipsis")
        table.add_column("objective", justify="right", no_wrap=True)
        rows = [("best so far", self.best), ("best parent", self.parent), ("last", self.last)]
        tasks = next(
            (list(r.search.tasks) for _, r in rows if r is not None and r.search is not None), []
        )
        for name in short_names(tasks):
            table.add_column(name, justify="right", overflow="ellipsis", no_wrap=True)
        for name, record in rows:
            if record is None:
                continue
            stage = self._stage if name == "last" else "search"
            summary = _summary(record, stage)
            label = f"{name}: {Path(record.label).name}"
            if summary is None:
                table.add_row(label, Text("failed", style="red"))
                continue
            values = [f"{summary.tasks[task].value:.3f}" for task in tasks if task in summary.tasks]
            style = "bold green" if name == "best so far" else ""
            table.add_row(label, _number(summary), *values, style=style)
        return table

    def _footer(self) -> RenderableType:
        text = f"{self.rate():,.0f} items/s   {_clock(self.seconds_left())} left"
        if self.num_failed:
            text += f"   {self.num_failed} failed"
        return Text(f"{text}   {self._directory}", style="dim", overflow="ellipsis", no_wrap=True)


def _summary(record: TrialRecord, stage: Stage) -> Summary | None:
    return record.holdout if stage == "holdout" else record.search


def _better(record: TrialRecord, other: TrialRecord | None) -> bool:
    if other is None:
        return True
    mine, theirs = ((-each.violation, each.value or 0.0) for each in (record, other))
    return mine > theirs


def _value(record: TrialRecord) -> str:
    """Return the reported objective: what guides the search may be on another scale."""
    return f"{record.search.objective.value:.3f}" if record.search is not None else "failed"


def _number(summary: Summary) -> str:
    return f"{summary.objective.value:.3f} ± {summary.objective.stderr:.3f}"


def _clock(seconds: float) -> str:
    if seconds != seconds:  # noqa: PLR0124 - NaN: nothing is known yet
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
