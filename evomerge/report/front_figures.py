"""Figures of a run with several objectives: its Pareto fronts, and the hypervolume over trials."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from evomerge.evaluation import Estimate
from evomerge.evaluation.settings import Split
from evomerge.report.style import COLORS, LAYOUT, baseline_colors
from evomerge.search import RunResult, TrialRecord, short_names, trial_name

__all__ = ["front_figure", "hypervolume_figure"]

_PLANES_UP_TO = 3
_TITLES: dict[Split, str] = {"search": "search items", "holdout": "held-out items"}


def front_figure(result: RunResult) -> Any:
    """The objectives against each other: a plane for each pair, or parallel coordinates.

    Left all candidates on the search items, right the finalists on held-out items, with standard
    errors; baselines are marked on both.
    """
    if len(result.objective_names) > _PLANES_UP_TO:
        return _parallel_figure(result)
    names = short_names(list(result.objective_names))
    pairs = list(combinations(range(len(names)), 2))
    figure = make_subplots(
        rows=len(pairs),
        cols=2,
        column_titles=[f"on the {title}" for title in _TITLES.values()],
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.28 / len(pairs) if len(pairs) > 1 else 0.1,
    )
    for row, pair in enumerate(pairs, start=1):
        for column, split in enumerate(_TITLES, start=1):
            plane = _Plane(figure, result, split, pair, (row, column))
            plane.draw()
            axes = {"row": row, "col": column}
            figure.update_xaxes(title_text=names[pair[0]], title_standoff=4, **axes)
            figure.update_xaxes(matches="x" if row == 1 else f"x{2 * row - 1}", **axes)
        figure.update_yaxes(title_text=names[pair[1]], title_standoff=4, row=row, col=1)
    figure.update_layout(
        **LAYOUT | {"margin": {"l": 60, "r": 20, "t": 70, "b": 50}},
        height=380 * len(pairs) + 120,
        legend={"orientation": "h", "yanchor": "top", "y": -0.25 / len(pairs) - 0.02, "x": 0},
    )
    return figure


class _Plane:
    """Two objectives of the trials on one split.

    Args:
        figure: Where to draw.
        result: The run.
        split: Which items.
        pair: Places of the two objectives.
        cell: Row and column in the figure.
    """

    def __init__(
        self,
        figure: Any,
        result: RunResult,
        split: Split,
        pair: tuple[int, int],
        cell: tuple[int, int],
    ) -> None:
        self._figure = figure
        self._result = result
        self._split = split
        self._pair = pair
        self._cell = cell

    def draw(self) -> None:
        """Draw candidates, baselines, the front and its edge."""
        on_search = self._split == "search"
        fronts = self._result.fronts
        front = () if fronts is None else fronts.search if on_search else fronts.holdout
        drawn = {record.number for record in front}
        others = _candidates(self._result, self._split)
        others = [record for record in others if record.number not in drawn]
        style = {"size": 6, "opacity": 0.55}
        self._points(
            [r for r in others if not _violates(self._result, r, self._split)],
            "candidate",
            {**style, "color": COLORS["proposed"]},
        )
        self._points(
            [r for r in others if _violates(self._result, r, self._split)],
            "candidate that violates a constraint",
            {**style, "color": COLORS["violating"], "symbol": "x"},
        )
        self._edge(front)
        colors = baseline_colors(self._result)
        for record in self._result.baselines:
            if record.number not in drawn:
                name = trial_name(record)
                marker = {"color": colors[record.number], "size": 11, "symbol": "diamond"}
                self._points([record], name, marker)
        self._points(front, "Pareto front", {"color": COLORS["winner"], "size": 9})
        if not on_search:
            marker = {"color": COLORS["winner"], "size": 15, "symbol": "star"}
            self._points([self._result.winner], "winner", marker)

    def _estimates(self, record: TrialRecord) -> tuple[Estimate, Estimate] | None:
        summary = record.search if self._split == "search" else record.holdout
        if summary is None:
            return None
        values = list(summary.objectives.values())
        return values[self._pair[0]], values[self._pair[1]]

    def _points(self, records: Sequence[TrialRecord], name: str, marker: dict[str, Any]) -> None:
        found = [(r, pair) for r in records if (pair := self._estimates(r)) is not None]
        if not found:
            return
        errors = {}
        if self._split == "holdout":
            for place, axis in enumerate(("error_x", "error_y")):
                array = [pair[place].stderr for _, pair in found]
                errors[axis] = {"array": array, "thickness": 1, "width": 0}
        self._figure.add_scatter(
            x=[pair[0].value for _, pair in found],
            y=[pair[1].value for _, pair in found],
            mode="markers",
            name=name,
            legendgroup=name,
            showlegend=not self._is_in_legend(name),
            marker={**marker, "line": {"width": 1, "color": "white"}},
            text=[_hover(record, self._split) for record, _ in found],
            hovertemplate="%{text}<extra></extra>",
            row=self._cell[0],
            col=self._cell[1],
            **errors,
        )

    def _edge(self, front: Sequence[TrialRecord]) -> None:
        """Draw the edge of what the front covers; with more than two objectives there is none."""
        if len(self._result.objective_names) > 2:
            return
        pairs = [pair for record in front if (pair := self._estimates(record)) is not None]
        points = sorted((first.value, second.value) for first, second in pairs)
        self._figure.add_scatter(
            x=[point[0] for point in points],
            y=[point[1] for point in points],
            mode="lines",
            line={"color": COLORS["winner"], "width": 1, "shape": "vh"},
            hoverinfo="skip",
            showlegend=False,
            row=self._cell[0],
            col=self._cell[1],
        )

    def _is_in_legend(self, name: str) -> bool:
        return any(trace.name == name for trace in self._figure.data)


def _candidates(result: RunResult, split: Split) -> list[TrialRecord]:
    if split == "holdout":
        return list(result.finalists)
    return [r for r in result.trials if not r.is_baseline and r.state == "complete"]


def _violates(result: RunResult, record: TrialRecord, split: Split) -> bool:
    if split == "search":
        return record.violation > 0
    return not all(verdict.holds for verdict in result.verdicts.get(record.number, ()))


def _hover(record: TrialRecord, split: Split) -> str:
    summary = record.search if split == "search" else record.holdout
    lines = [f"<b>{trial_name(record)}</b>, {_TITLES[split]}"]
    if summary is not None:
        lines += [f"{n}: {e.value:.3f} ± {e.stderr:.3f}" for n, e in summary.objectives.items()]
    return "<br>".join(lines)


def _parallel_figure(result: RunResult) -> Any:
    """Draw a line for each trial: candidates by their search scores, the rest by held-out ones."""
    front = {record.number for record in result.pareto_front}
    proposed = {record.number for record in _candidates(result, "search")}
    rows: list[tuple[int, list[float]]] = []
    for record in result.trials:
        if record.number in front and record.holdout is not None:
            rows.append((2, list(record.holdout.reported)))
        elif record.is_baseline and record.holdout is not None:
            rows.append((1, list(record.holdout.reported)))
        elif record.number in proposed and record.search is not None:
            rows.append((0, list(record.search.reported)))
    rows.sort(key=lambda row: row[0])
    steps = ("#c3d3e6", COLORS["average"], COLORS["winner"])
    names = short_names(list(result.objective_names))
    figure = go.Figure(
        go.Parcoords(
            dimensions=[
                {"label": name, "values": [values[place] for _, values in rows]}
                for place, name in enumerate(names)
            ],
            line={
                "color": [group for group, _ in rows],
                "colorscale": [
                    [(place + shift) / 3, color]
                    for place, color in enumerate(steps)
                    for shift in (0, 1)
                ],
                "cmin": -0.5,
                "cmax": 2.5,
                "showscale": True,
                "colorbar": {
                    "tickvals": [0, 1, 2],
                    "ticktext": [
                        "candidate (search items)",
                        "baseline (held-out items)",
                        "Pareto front (held-out items)",
                    ],
                },
            },
        )
    )
    figure.update_layout(
        template=LAYOUT["template"],
        height=440,
        margin={"l": 60, "r": 40, "t": 60, "b": 30},
        width=max(900, 130 * len(names) + 250),
    )
    return figure


def hypervolume_figure(result: RunResult) -> Any:
    """The hypervolume on the search items after each trial, and that of the baselines alone."""
    figure = go.Figure()
    cover = result.fronts.coverage["search"] if result.fronts is not None else None
    if cover is None:
        return figure
    last = max((record.number for record in result.trials), default=0)
    numbers = [*cover.steps, last]
    volumes = [*cover.steps.values(), cover.total]
    figure.add_scatter(
        x=numbers,
        y=volumes,
        mode="lines",
        name="all trials",
        line={"color": COLORS["winner"], "shape": "hv"},
        hovertemplate="trial %{x}: %{y:.4f}<extra></extra>",
    )
    figure.add_scatter(
        x=[0, last],
        y=[cover.baselines, cover.baselines],
        mode="lines",
        name="baselines alone",
        line={"color": COLORS["parent"], "dash": "dot"},
        hovertemplate="baselines: %{y:.4f}<extra></extra>",
    )
    figure.update_layout(
        **LAYOUT,
        xaxis_title="trial",
        yaxis_title="hypervolume on the search items",
        yaxis_rangemode="tozero",
        height=340,
    )
    return figure
