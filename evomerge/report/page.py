"""The HTML page of a run: one file, no network."""

import html
from pathlib import Path

import yaml

from evomerge.report.figures import holdout_figure, parameter_figure, search_figure
from evomerge.report.front_figures import front_figure, hypervolume_figure
from evomerge.search import (
    RunResult,
    Summary,
    TrialRecord,
    score_columns,
    short_constraint,
    short_names,
    trial_name,
    write_atomically,
)
from evomerge.space import Space
from evomerge.version import __version__

__all__ = ["write_report"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.sub { color: #666; margin-top: .2rem; }
table { border-collapse: collapse; margin-bottom: 1.2rem; }
td, th { padding: .25rem .8rem; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid #bbb; font-weight: 600; }
td:first-child, th:first-child { text-align: left; padding-left: 0; }
tr.winner { font-weight: 700; } .bad { color: #b3261e; } .verdict { font-size: 1.1rem; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .85rem; }
.wide { overflow-x: auto; }
"""


def write_report(result: RunResult, space: Space, path: Path) -> None:
    """Write the page; plotly's script is inside, so it opens anywhere."""
    winner = result.winner
    settings = space.document.search
    figures = [
        ("The search", search_figure(result)),
        ("Held-out items", holdout_figure(result)),
        ("What the candidates had", parameter_figure(result, space)),
    ]
    if result.fronts is not None:
        figures[:0] = [
            ("The objectives against each other", front_figure(result)),
            ("Hypervolume", hypervolume_figure(result)),
        ]
    climb = f"a climb of {result.climb['steps']} steps, " if result.climb else ""
    facts = (
        f"{len(result.trials)} trials, {len(space.dimensions)} dimensions, "
        f"{climb}{settings.optimizer}, seed {result.seed}, "
        f"{result.item_evaluations:,} item evaluations, "
        f"{result.seconds['total']:.0f} s, evomerge {__version__}"
    )
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{_text(result.space)}: evomerge</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(result.space)}</h1>",
        f"<p class='sub'>{_text(facts)}</p>",
        f"<p class='verdict'>{_verdict(result)}</p>",
        *[f"<p>{_text(note)}</p>" for note in result.notes()],
        _constraints(result),
        _table(result),
        _front(result),
    ]
    for index, (title, figure) in enumerate(figures):
        script: bool | str = index == 0
        parts.append(f"<h2>{title}</h2><div class='wide'>")
        parts.append(figure.to_html(full_html=False, include_plotlyjs=script))
        parts.append("</div>")
    recipe = yaml.safe_dump(dict(winner.recipe), sort_keys=False)
    parts += [f"<h2>The winner's recipe</h2><pre>{_text(recipe)}</pre>", _failures(result)]
    parts.append("</body></html>\n")
    write_atomically(path, "\n".join(parts))


def _verdict(result: RunResult) -> str:
    best = result.versus("parent")
    winner = _text(result.winner.label)
    if best is None:
        return f"Winner: {winner}."
    low, high = best.comparison.interval
    where = f" in {_text(result.objective_names[0])}" if result.objective_names else ""
    how = "better" if low > 0 else "worse" if high < 0 else "not significantly different"
    than = "than" if how != "not significantly different" else "from"
    return (
        f"Winner: {winner}, {how} {than} the best parent "
        f"<code>{_text(best.baseline.label)}</code>{where}: "
        f"difference {best.comparison.difference:+.3f} (95 %: {low:+.3f} to {high:+.3f}, "
        f"p = {best.comparison.p_value:.2g})."
    )


def _table(result: RunResult) -> str:
    first, tasks = score_columns(result)
    names = ("held-out items", first, *short_names(tasks))
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    rows = [f"<tr>{head}<th>search items</th><th>winner is better by</th><th>p</th></tr>"]
    versus = {v.baseline.number: v.comparison for v in result.comparisons}
    records = [result.winner]
    records += [r for r in result.baselines if r.number != result.winner.number]
    for record in records:
        is_winner = record is result.winner
        cells = [f"winner ({record.label})" if is_winner else trial_name(record)]
        cells += _cells(record.holdout, tasks)
        cells.append(_value(record.search))
        compared = versus.get(record.number)
        cells.append(f"{compared.difference:+.3f} ± {compared.stderr:.3f}" if compared else "")
        cells.append(f"{compared.p_value:.1g}" if compared else "")
        body = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        rows.append(f"<tr class='{'winner' if is_winner else ''}'>{body}</tr>")
    return f"<div class='wide'><table>{''.join(rows)}</table></div>"


def _constraints(result: RunResult) -> str:
    """Return a line a constraint: whether the winner holds it, and how sure that is."""
    verdicts = result.winner_verdicts
    if not verdicts:
        return ""
    lines = []
    if not all(verdict.holds for verdict in verdicts):
        lines.append(
            "<p class='verdict bad'>No finalist holds every constraint on the held-out items; the "
            "winner is the one that violates them least.</p>"
        )
    rows = ["<tr><th>constraint, held-out items</th><th></th><th>winner is better by</th></tr>"]
    for verdict in verdicts:
        word = "holds" if verdict.holds else "<b class='bad'>violated</b>"
        cells = (_text(short_constraint(verdict, result)), word, _text(verdict.measured()))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    lines.append(f"<div class='wide'><table>{''.join(rows)}</table></div>")
    return "".join(lines)


def _front(result: RunResult) -> str:
    if result.fronts is None:
        return ""
    fronts = result.fronts
    names = short_names(list(result.objective_names))
    surpassed = ["surpassed by"] if fronts.surpassed else []
    head = "".join(f"<th>{_text(name)}</th>" for name in ("held-out items", *names, *surpassed))
    rows = [f"<tr>{head}</tr>"]
    for record in fronts.holdout:
        estimates = record.holdout.objectives.values() if record.holdout else ()
        cells = [trial_name(record), *[f"{e.value:.3f} ± {e.stderr:.3f}" for e in estimates]]
        if surpassed:
            labels = fronts.surpassed.get(record.number, ())
            cells.append(", ".join(Path(label).name for label in labels))
        is_winner = record.number == result.winner.number
        body = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        rows.append(f"<tr class='{'winner' if is_winner else ''}'>{body}</tr>")
    out = sum(not all(v.holds for v in result.verdicts.get(r.number, ())) for r in result.finalists)
    left_out = f", {out} of which violate a constraint there" if out else ""
    text = (
        f"Of {len(result.finalists)} finalists{left_out}, these are left: none is better than "
        "another in one objective without being worse in another. "
        f"The Pareto front on the search items has {len(fronts.search)} candidates. "
    )
    text += " ".join(
        f"Hypervolume on the {what} items above the worst baselines: {cover.total:.4f}, of the "
        f"baselines alone {cover.baselines:.4f}" + ("." if cover.exact else " (estimated).")
        for what, cover in (
            ("search", fronts.coverage["search"]),
            ("held-out", fronts.coverage["holdout"]),
        )
    )
    return (
        f"<h2>Pareto front</h2><p>{_text(text)}</p>"
        f"<div class='wide'><table>{''.join(rows)}</table></div>"
    )


def _cells(summary: Summary | None, tasks: list[str]) -> list[str]:
    if summary is None:
        return ["not scored", *[""] * len(tasks)]
    return [_value(summary), *[f"{summary.tasks[task].value:.3f}" for task in tasks]]


def _value(summary: Summary | None) -> str:
    if summary is None:
        return "failed"
    return f"{summary.objective.value:.3f} ± {summary.objective.stderr:.3f}"


def _failures(result: RunResult) -> str:
    failed: list[TrialRecord] = [r for r in result.trials if r.state == "failed"]
    if not failed:
        return ""
    rows = "".join(f"<li>{_text(r.label)}: {_text(r.reason or '')}</li>" for r in failed)
    return f"<h2>{len(failed)} failed trials</h2><ul>{rows}</ul>"


def _text(text: str) -> str:
    return html.escape(str(text))
