"""Plotly figures of a run."""

from typing import Any

import plotly.graph_objects as go

from evomerge.evaluation import Estimate, TaskScore
from evomerge.search import RunResult, TrialRecord, short_names, trial_name
from evomerge.space import Space

__all__ = ["holdout_figure", "parameter_figure", "search_figure"]

_COLORS = {
    "proposed": "#4c78a8",
    "parent": "#b279a2",
    "base": "#9d755d",
    "average": "#f58518",
    "default": "#54a24b",
    "winner": "#e45756",
}
_LAYOUT = {
    "template": "plotly_white",
    "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
    "font": {"family": "system-ui, sans-serif", "size": 13},
}


def search_figure(result: RunResult) -> Any:
    """Every trial's search objective, the best so far, and the baselines as lines."""
    figure = go.Figure()
    candidates = [r for r in result.trials if r.kind in ("proposed", "default") and r.search]
    values = [r.search.objective.value for r in candidates if r.search]
    errors = [r.search.objective.stderr for r in candidates if r.search]
    best: list[float] = []
    for value in values:
        best.append(max(value, best[-1]) if best else value)
    numbers = [record.number for record in candidates]
    figure.add_scatter(
        x=numbers,
        y=values,
        error_y={"type": "data", "array": errors, "thickness": 0.8, "width": 0},
        mode="markers",
        name="candidate",
        marker={"color": _COLORS["proposed"], "size": 7},
        text=[_hover(record) for record in candidates],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_scatter(
        x=numbers,
        y=best,
        mode="lines",
        name="best so far",
        line={"color": _COLORS["winner"], "shape": "hv"},
        hoverinfo="skip",
    )
    winner = result.winner
    if winner.search:
        figure.add_scatter(
            x=[winner.number],
            y=[winner.search.objective.value],
            mode="markers",
            name="winner on held-out items",
            marker={"color": _COLORS["winner"], "size": 13, "symbol": "star"},
            hoverinfo="skip",
        )
    ends = [0, max((record.number for record in result.trials), default=1)]
    for record in result.baselines:
        if record.search is None or record.kind == "default":
            continue
        value = record.search.objective.value
        figure.add_scatter(
            x=ends,
            y=[value, value],
            mode="lines",
            name=trial_name(record),
            line={"color": _COLORS[record.kind], "dash": "dot"},
        )
    figure.update_layout(
        **_LAYOUT, xaxis_title="trial", yaxis_title="objective on the search items", height=420
    )
    return figure


def holdout_figure(result: RunResult) -> Any:
    """Winner and baselines on held-out items, one group of bars a task."""
    figure = go.Figure()
    for record in (result.winner, *result.baselines):
        if record.holdout is None or (record is not result.winner and _is(record, result.winner)):
            continue
        scores: dict[str, Estimate | TaskScore] = {
            "objective": record.holdout.objective,
            **record.holdout.tasks,
        }
        winner = record is result.winner
        figure.add_bar(
            x=["objective", *short_names(list(record.holdout.tasks))],
            y=[score.value for score in scores.values()],
            error_y={
                "type": "data",
                "array": [score.stderr for score in scores.values()],
                "thickness": 1,
            },
            name=f"winner ({record.label})" if winner else trial_name(record),
            marker={
                "color": _COLORS["winner" if winner else record.kind],
                "line": {"width": 1, "color": "white"},
            },
        )
    figure.update_layout(
        **_LAYOUT, barmode="group", yaxis_title="score on the held-out items", height=380
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
    axes.append({"label": "objective", "values": values})
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


def _is(record: TrialRecord, other: TrialRecord) -> bool:
    return record.number == other.number


def _hover(record: TrialRecord) -> str:
    if record.search is None:
        return record.label
    scores = record.search
    lines = [f"<b>{record.label}</b>: {scores.objective.value:.3f} ± {scores.objective.stderr:.3f}"]
    lines += [f"{name} {score.value:.3f}" for name, score in scores.tasks.items()]
    return "<br>".join(lines)
