"""Plotly figures of a run."""

from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

from evomerge.evaluation import Estimate, TaskScore
from evomerge.report.style import COLORS, LAYOUT, baseline_colors
from evomerge.search import CANDIDATES, RunResult, Summary, TrialRecord, short_names, trial_name
from evomerge.space import Space

__all__ = ["holdout_figure", "parameter_figure", "search_figure"]


def search_figure(result: RunResult) -> Any:
    """Every trial's search objective, the best so far, and the baselines as lines."""
    figure = go.Figure()
    candidates = [r for r in result.trials if r.kind in CANDIDATES and r.search]
    stopped = [record for record in candidates if record.state == "pruned"]
    if stopped:
        marker = {"color": COLORS["proposed"], "opacity": 0.35, "symbol": "circle-open"}
        _add_candidates(figure, stopped, "candidate that stopped early", marker)
    candidates = [record for record in candidates if record.state == "complete"]
    holding = [record for record in candidates if not record.violation]
    _add_candidates(figure, holding, "candidate", {"color": COLORS["proposed"]})
    violating = [record for record in candidates if record.violation]
    if violating:
        name = "candidate that violates a constraint"
        _add_candidates(figure, violating, name, {"color": COLORS["violating"], "symbol": "x"})
    best: list[float] = []
    for value in [r.search.objective.value for r in holding if r.search]:
        best.append(max(value, best[-1]) if best else value)
    figure.add_scatter(
        x=[record.number for record in holding],
        y=best,
        mode="lines",
        name="best so far",
        line={"color": COLORS["winner"], "shape": "hv"},
        hoverinfo="skip",
    )
    winner = result.winner
    if winner.search:
        figure.add_scatter(
            x=[winner.number],
            y=[winner.search.objective.value],
            mode="markers",
            name="winner on held-out items",
            marker={"color": COLORS["winner"], "size": 13, "symbol": "star"},
            hoverinfo="skip",
        )
    colors = baseline_colors(result)
    ends = [0, max((record.number for record in result.trials), default=1)]
    for record in result.baselines:
        if record.search is None or record.kind in ("default", "start"):
            continue
        value = record.search.objective.value
        figure.add_scatter(
            x=ends,
            y=[value, value],
            mode="lines",
            name=trial_name(record),
            line={"color": colors[record.number], "dash": "dot"},
        )
    figure.update_layout(
        **LAYOUT,
        xaxis_title="trial",
        yaxis_title=f"{_first(result)} on the search items",
        height=420,
    )
    return figure


def _add_candidates(
    figure: Any, records: list[TrialRecord], name: str, marker: dict[str, Any]
) -> None:
    estimates = [record.search.objective for record in records if record.search]
    errors = [estimate.stderr for estimate in estimates]
    figure.add_scatter(
        x=[record.number for record in records],
        y=[estimate.value for estimate in estimates],
        error_y={"type": "data", "array": errors, "thickness": 0.8, "width": 0},
        mode="markers",
        name=name,
        marker={"size": 7, **marker},
        text=[_hover(record) for record in records],
        hovertemplate="%{text}<extra></extra>",
    )


def _first(result: RunResult) -> str:
    """Return the name of the objective that the winner is chosen by."""
    return next(iter(short_names(list(result.objective_names))), "objective")


def holdout_figure(result: RunResult) -> Any:
    """Winner and baselines on held-out items, one group of bars a task."""
    figure = go.Figure()
    colors = baseline_colors(result)
    for record in (result.winner, *result.baselines):
        if record.holdout is None or (record is not result.winner and _is(record, result.winner)):
            continue
        several = record.holdout.objectives
        scores: dict[str, Estimate | TaskScore] = {
            **(several or {"objective": record.holdout.objective}),
            **record.holdout.tasks,
        }
        winner = record is result.winner
        figure.add_bar(
            x=_columns(record.holdout, scores),
            y=[score.value for score in scores.values()],
            error_y={
                "type": "data",
                "array": [score.stderr for score in scores.values()],
                "thickness": 1,
            },
            name=f"winner ({record.label})" if winner else trial_name(record),
            marker={
                "color": COLORS["winner"] if winner else colors[record.number],
                "line": {"width": 1, "color": "white"},
            },
        )
    figure.update_layout(
        **LAYOUT, barmode="group", yaxis_title="score on the held-out items", height=380
    )
    return figure


def parameter_figure(result: RunResult, space: Space) -> Any:
    """Parallel coordinates: which values the good candidates have."""
    records = [r for r in result.trials if r.point and r.search is not None]
    axes: list[dict[str, Any]] = []
    for dimension in space.dimensions:
        # A candidate without this dimension has no place on its axis.
        column: list[Any] = [(r.point or {}).get(dimension.name) for r in records]
        if dimension.kind == "choice":
            ticks = [str(choice) for choice in dimension.choices]
            axes.append(
                {
                    "label": dimension.name,
                    "values": [None if v is None else dimension.choices.index(v) for v in column],
                    "tickvals": list(range(len(ticks))),
                    "ticktext": ticks,
                }
            )
        else:
            axes.append({"label": dimension.name, "values": column})
    values = [record.search.objective.value for record in records if record.search]
    axes.append({"label": _first(result), "values": values})
    figure = go.Figure(
        go.Parcoords(
            dimensions=axes,
            labelangle=-35,
            line={"color": values, "colorscale": "Viridis", "showscale": True},
        )
    )
    figure.update_layout(
        template="plotly_white",
        height=440,
        margin={"l": 60, "r": 40, "t": 130, "b": 30},
        width=max(900, 90 * len(axes)),
    )
    return figure


def _columns(summary: Summary, names: Iterable[str]) -> list[str]:
    """Return what objectives and tasks are called below their bars; an objective may be a task."""
    tasks = list(summary.tasks)
    short = dict(zip(tasks, short_names(tasks), strict=True))
    return [short.get(name, name) for name in names]


def _is(record: TrialRecord, other: TrialRecord) -> bool:
    return record.number == other.number


def _hover(record: TrialRecord) -> str:
    if record.search is None:
        return record.label
    scores = record.search
    lines = [f"<b>{record.label}</b>: {scores.objective.value:.3f} ± {scores.objective.stderr:.3f}"]
    lines += [f"{name} {score.value:.3f}" for name, score in scores.tasks.items()]
    return "<br>".join(lines)
