"""Tables of per-item results, readable at 80 columns."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from evomerge.evaluation import ItemScores
from evomerge.search import TaskComparison, TrialRecord, item_values, trial_name

__all__ = ["print_comparison", "print_items"]

_SMALLEST_P = 0.0001
_SPLITS = {"search": "search items", "holdout": "held-out items"}


def print_items(record: TrialRecord, split: str, scores: ItemScores, rows: int) -> None:
    """Print a trial's items: task, item, score, and what guided the search if that is another."""
    guided = bool(scores.smooth)
    table = _table(f"{trial_name(record)}, {_SPLITS[split]}", ["task", "item"])
    table.add_column("score", justify="right", overflow="ellipsis", no_wrap=True)
    if guided:
        table.add_column("guide", justify="right")
    count = 0
    for name, task in scores.by_task.items():
        guides = scores.smooth.get(name)
        for place, value in enumerate(item_values(task)):
            count += 1
            if rows and count > rows:
                continue
            cells = [name, task.items[place], _cell(value)]
            if guided:
                cells.append(_cell(float(guides.values[place])) if guides is not None else "")
            table.add_row(*cells)
    console = Console()
    console.print(table)
    _say_left(console, count, rows)
    for name, task in scores.by_task.items():
        score = task.summary()
        text = f"{name}: {task.metric} {score.value:.4f} ± {score.stderr:.4f}, {score.items} items"
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_comparison(
    first: TrialRecord,
    second: TrialRecord,
    split: str,
    scores: tuple[ItemScores, ItemScores],
    found: Sequence[TaskComparison],
    rows: int,
) -> None:
    """Print the items on which two trials differ, and the paired differences."""
    names = (trial_name(first), trial_name(second))
    table = _table(f"{names[0]} against {names[1]}, {_SPLITS[split]}", ["task", "item"])
    for heading in names:
        table.add_column(heading, justify="right", overflow="ellipsis", no_wrap=True)
    count = 0
    for name, task in scores[0].by_task.items():
        others = scores[1].by_task[name].select(task.items)
        pairs = zip(task.items, item_values(task), item_values(others), strict=True)
        for item, mine, theirs in pairs:
            if mine == theirs:
                continue
            count += 1
            if not rows or count <= rows:
                table.add_row(name, item, _cell(mine), _cell(theirs))
    console = Console()
    console.print(table)
    total = sum(len(task.items) for task in scores[0].by_task.values())
    _say_left(console, count, rows)
    console.print(f"{count} of {total} items that both have differ", highlight=False)
    summary = _table("paired difference, positive where the first is better", [""])
    for heading in names:
        summary.add_column(heading, justify="right")  # a long name takes two lines
    for heading in ("difference", "95 %", "p"):
        cells = [_difference(each)[heading] for each in found]
        width = max(len(cell) for cell in (heading, *cells))
        # Numbers stay whole: a task's name gives way.
        summary.add_column(heading, justify="right", no_wrap=True, min_width=width)
    for each in found:
        values = (f"{each.first:.3f}", f"{each.second:.3f}")
        summary.add_row(each.name, *values, *_difference(each).values())
    console.print(summary)


def _difference(found: TaskComparison) -> dict[str, str]:
    """Return what is said of a paired difference, by heading."""
    comparison = found.comparison
    low, high = comparison.interval
    small = comparison.p_value < _SMALLEST_P
    return {
        "difference": f"{comparison.difference:+.3f} ± {comparison.stderr:.3f}",
        "95 %": f"{low:+.3f} to {high:+.3f}",
        "p": f"<{_SMALLEST_P:g}" if small else f"{comparison.p_value:.4f}",
    }


def _table(title: str, words: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for heading in words:
        wide = heading != "item"
        table.add_column(heading, no_wrap=True, overflow="ellipsis" if wide else "fold")
    return table


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _say_left(console: Console, count: int, rows: int) -> None:
    if rows and count > rows:
        console.print(f"… {count - rows:,} more; --rows 0 prints all", highlight=False)
