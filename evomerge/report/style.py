"""Colours and layout that the figures share."""

from typing import Any

from evomerge.search import RunResult

__all__ = ["COLORS", "LAYOUT", "baseline_colors"]

COLORS = {
    "proposed": "#4c78a8",
    "parent": "#b279a2",
    "base": "#9d755d",
    "average": "#f58518",
    "default": "#54a24b",
    "start": "#72b7b2",
    "winner": "#e45756",
    "violating": "#999999",
}
_PARENTS = ("#b279a2", "#72b7b2", "#d4a72c", "#ff9da6", "#7570b3", "#8c6d31")
LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
    "font": {"family": "system-ui, sans-serif", "size": 13},
}


def baseline_colors(result: RunResult) -> dict[int, str]:
    """Return the colour of each baseline, by trial; parents have one of their own each."""
    parents = [record.number for record in result.baselines if record.kind == "parent"]
    colors = {record.number: COLORS[record.kind] for record in result.baselines}
    return colors | {n: _PARENTS[place % len(_PARENTS)] for place, n in enumerate(parents)}
