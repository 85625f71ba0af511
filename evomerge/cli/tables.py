"""Tables that commands print at their end."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evomerge.search import (
    Inspection,
    RunDirectory,
    RunResult,
    Summary,
    score_columns,
    short_constraint,
    short_names,
    trial_name,
)

__all__ = ["print_inspection", "print_result", "print_summary"]

_FRONT_ERRORS = 4


def print_result(result: RunResult, directory: RunDirectory) -> None:
    """Print the winner against the baselines, and where everything is."""
    console = Console()
    winner = result.winner
    table = Table(
        box=None,
        pad_edge=False,
        title=f"{result.space}: held-out items, mean ± standard error",
        title_justify="left",
    )
    first, tasks = score_columns(result)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for heading in (first, *short_names(tasks), "winner is better by"):
        table.add_column(heading, justify="right")
    versus = {v.baseline.number: v.comparison for v in result.comparisons}
    for record in (winner, *(r for r in result.baselines if r.number != winner.number)):
        summary = record.holdout
        if summary is None:
            table.add_row(trial_name(record), "failed")
            continue
        difference = versus.get(record.number)
        table.add_row(
            f"winner ({record.label})" if record is winner else trial_name(record),
            f"{summary.objective.value:.3f} ± {summary.objective.stderr:.3f}",
            *[f"{summary.tasks[task].value:.3f}" for task in tasks],
            f"{difference.difference:+.3f} ± {difference.stderr:.3f}" if difference else "",
            style="bold" if record is winner else "",
        )
    console.print(table)
    console.print(escape(_verdict(result)), highlight=False)
    for note in result.notes():
        console.print(escape(note), highlight=False)
    _print_constraints(console, result)
    _print_front(console, result)
    failed = sum(record.state == "failed" for record in result.trials)
    stopped = sum(record.state == "pruned" for record in result.trials)
    console.print(
        f"{len(result.trials)} trials ({stopped} stopped early, {failed} failed), "
        f"{result.item_evaluations:,} item evaluations, {result.seconds['total']:.0f} s",
        highlight=False,
    )
    for name, path in (
        ("winner", directory.best),
        ("result", directory.result),
        ("report", directory.report),
    ):
        console.print(f"{name}: {path}", highlight=False, soft_wrap=True, markup=False)


def _print_constraints(console: Console, result: RunResult) -> None:
    """Print whether the winner holds each constraint on the held-out items."""
    verdicts = result.winner_verdicts
    if not verdicts:
        return
    if not all(verdict.holds for verdict in verdicts):
        console.print(
            "[bold red]no finalist holds every constraint on the held-out items; the winner is the "
            "one that violates them least[/]",
            highlight=False,
        )
    for verdict in verdicts:
        word = "[green]holds[/]" if verdict.holds else "[bold red]VIOLATED[/]"
        text = escape(f"{short_constraint(verdict, result)}: {verdict.measured()}")
        console.print(f"{word} {text}", highlight=False)


def _print_front(console: Console, result: RunResult) -> None:
    """Print the finalists that none surpasses in all objectives, in as many columns as fit."""
    if result.fronts is None:
        return
    fronts = result.fronts
    cover = fronts.coverage["holdout"]
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    names = short_names(list(result.objective_names))
    with_errors = len(names) <= _FRONT_ERRORS
    for heading in names:
        table.add_column(heading, justify="right", overflow="fold")
    if fronts.surpassed:
        table.add_column("surpassed by", overflow="fold")
    for record in fronts.holdout:
        if record.holdout is None:
            continue
        cells = [
            f"{each.value:.3f} ± {each.stderr:.3f}" if with_errors else f"{each.value:.3f}"
            for each in record.holdout.objectives.values()
        ]
        if fronts.surpassed:
            labels = fronts.surpassed.get(record.number, ())
            cells.append(escape(", ".join(Path(label).name for label in labels)))
        is_winner = record.number == result.winner.number
        table.add_row(trial_name(record), *cells, style="bold" if is_winner else "")
    console.print(
        f"Pareto front: {len(fronts.holdout)} of {len(result.finalists)} finalists, held-out items "
        f"(hypervolume {cover.total:.4f}, baselines {cover.baselines:.4f})",
        highlight=False,
    )
    console.print(table)


def _verdict(result: RunResult) -> str:
    best = result.versus("parent")
    if best is None:
        return "no parent has held-out scores to compare with"
    low, high = best.comparison.interval
    name = best.baseline.label
    if result.objective_names:
        name += f", in {result.objective_names[0]}"
    if low > 0:
        how = "better than the best parent"
    elif high < 0:
        how = "WORSE than the best parent"
    else:
        how = "not significantly different from the best parent"
    return f"the winner is {how} ({name}): difference {low:+.3f} to {high:+.3f} (95 %)"


def print_summary(title: str, summary: Summary) -> None:
    """Print one score a task."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for heading in ("", "metric", "score", "items"):
        table.add_column(heading, justify="left" if heading in ("", "metric") else "right")
    for name, score in summary.tasks.items():
        table.add_row(
            name, score.metric, f"{score.value:.4f} ± {score.stderr:.4f}", str(score.items)
        )
    objective = summary.objective
    table.add_row(
        "objective",
        "",
        f"{objective.value:.4f} ± {objective.stderr:.4f}",
        str(objective.items),
        style="bold",
    )
    Console().print(table)


def print_inspection(inspection: Inspection) -> None:
    """Print what ``evomerge check`` found."""
    console = Console()
    console.print(f"[bold]{inspection.kind}[/] {escape(inspection.name)}", highlight=False)
    if inspection.dimensions:
        table = Table(
            box=None,
            pad_edge=False,
            title=f"{len(inspection.dimensions)} dimensions",
            title_justify="left",
        )
        for heading in ("name", "kind", "searched"):
            table.add_column(heading)
        for dimension in inspection.dimensions:
            table.add_row(*(escape(cell) for cell in dimension))
        console.print(table)
    table = Table(
        box=None, pad_edge=False, title=f"{len(inspection.models)} models", title_justify="left"
    )
    for heading in ("model", "parameters", "dtype", "tokens", ""):
        table.add_column(
            heading, justify="right" if heading in ("parameters", "tokens") else "left"
        )
    for model in inspection.models:
        table.add_row(
            model.name,
            f"{model.parameters:,}" if model.parameters is not None else "?",
            model.dtype or "?",
            str(model.tokens) if model.tokens is not None else "?",
            model.note,
        )
    console.print(table)
    for line in inspection.facts:
        console.print(escape(line), highlight=False)
    for line in inspection.notes:
        console.print(f"[yellow]note:[/] {escape(line)}", highlight=False)
    for line in inspection.problems:
        console.print(f"[red]wrong:[/] {escape(line)}", highlight=False)
    if not inspection.problems:
        console.print(
            "[green]nothing is wrong[/]"
            + (" as far as can be seen from here" * bool(inspection.notes))
        )
