"""What the results of bench_search.py say: medians and quartiles over the seeds, tables, a plot."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = "mergekit-evolve"
COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b9770e", "#7d3c98", "#17a589", "#5d6d7e", "#d35400")
_SAME = 1e-9


def summarize(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the seeds of each arm have in common.

    Args:
        results: What ``measure`` returned; shares of the budget that an arm ran one by one
            (``evomerge@0.1``) become points of one arm.

    Returns:
        ``arms``: name -> ``points``, by the share of the budget. A point has the medians ``spent``
        and ``search``, the quartiles ``true``, and how it compares with the reference over the
        seeds that both have, ``equal``: with its choice at the same share, and ``final``: with its
        last one; ``[seeds that are better, seeds, mean difference, standard error]``.
        ``reaches``: name -> the fewest item evaluations with which a point's median is at least
        the reference's last one, or None.
    """
    by_arm: dict[str, dict[float, dict[int, Mapping[str, Any]]]] = {}
    for found in results:
        name = found["arm"].partition("@")[0]
        for choice in found["choices"]:
            points = by_arm.setdefault(name, {})
            points.setdefault(choice["fraction"], {})[found["seed"]] = choice
    reference = by_arm.get(REFERENCE, {})
    arms = {
        name: {
            "points": [_point(fraction, points[fraction], reference) for fraction in sorted(points)]
        }
        for name, points in by_arm.items()
    }
    goal = arms[REFERENCE]["points"][-1]["true"][1] if reference else None
    return {
        "reference": REFERENCE if reference else None,
        "goal": goal,
        "arms": arms,
        "reaches": {name: _reaches(arm["points"], goal) for name, arm in arms.items()},
    }


def _point(
    fraction: float,
    choices: Mapping[int, Mapping[str, Any]],
    reference: Mapping[float, Mapping[int, Mapping[str, Any]]],
) -> dict[str, Any]:
    true = [choice["true"] for choice in choices.values()]
    paid = [each for each in reference if each <= fraction + _SAME]
    return {
        "fraction": fraction,
        "seeds": len(choices),
        "spent": float(np.median([choice["spent"] for choice in choices.values()])),
        "search": float(np.median([choice["search"] for choice in choices.values()])),
        "optimism": float(np.mean([c["search"] - c["true"] for c in choices.values()])),
        "true": np.percentile(true, [25, 50, 75]).tolist(),
        "equal": _compare(choices, reference[max(paid)]) if paid else None,
        "final": _compare(choices, reference[max(reference)]) if reference else None,
    }


def _compare(
    choices: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]
) -> list[float | None] | None:
    """Return how often the first ones are better, of how many seeds, and by how much, paired."""
    shared = sorted(set(choices) & set(others))
    if not shared:
        return None
    apart = np.array([choices[seed]["true"] - others[seed]["true"] for seed in shared])
    error = float(apart.std(ddof=1) / math.sqrt(len(apart))) if len(apart) > 1 else None
    return [int((apart > 0).sum()), len(shared), float(apart.mean()), error]


def _reaches(points: Sequence[Mapping[str, Any]], goal: float | None) -> float | None:
    if goal is None:
        return None
    return min((point["spent"] for point in points if point["true"][1] >= goal), default=None)


def print_tables(summary: Mapping[str, Any]) -> None:
    """Print the arms' last choices, and then how they came there, as Markdown."""
    head = ["arm", "seeds", "item evaluations", "true score", "quartiles", "search score too high"]
    if summary["reference"]:
        head += ["beats the reference", "items for its median"]
    rows = []
    for name, arm in summary["arms"].items():
        point = arm["points"][-1]
        low, median, high = point["true"]
        row = [name, str(point["seeds"]), f"{point['spent']:,.0f}", f"{median:.4f}"]
        row += [f"{low:.4f} to {high:.4f}", f"{point['optimism']:+.4f}"]
        if summary["reference"]:
            needed = summary["reaches"][name]
            row.append("reference" if name == summary["reference"] else _versus(point["equal"]))
            row.append("never" if needed is None else f"{needed:,.0f}")
        rows.append(row)
    _print_table(head, rows)
    fractions = sorted({p["fraction"] for a in summary["arms"].values() for p in a["points"]})
    columns = ["median true score at", *(f"{fraction:.3g}" for fraction in fractions)]
    by_arm = {
        name: {point["fraction"]: point for point in arm["points"]}
        for name, arm in summary["arms"].items()
    }
    curve = [
        [name, *(f"{points[f]['true'][1]:.4f}" if f in points else "" for f in fractions)]
        for name, points in by_arm.items()
    ]
    _print_table(columns, curve)
    if not summary["reference"]:
        return
    for key, title in (
        ("equal", f"beats {summary['reference']} at equal cost"),
        ("final", f"beats the last choice of {summary['reference']}"),
    ):
        wins = [
            [name, *(_versus(points[f][key]) if f in points else "" for f in fractions)]
            for name, points in by_arm.items()
            if name != summary["reference"]
        ]
        if wins:
            _print_table([title, *columns[1:]], wins)


def _versus(found: Sequence[float | None] | None) -> str:
    if not found:
        return ""
    won, seeds, mean, error = found
    return f"{won} of {seeds}, {mean:+.4f}" + ("" if error is None else f" ± {error:.4f}")


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    sides = ["---", *["---:"] * (len(columns) - 1)]
    print()
    for row in (columns, sides, *rows):
        print(f"| {' | '.join(row)} |")


class _Axes:
    """Places in the picture: item evaluations on a log scale, true scores."""

    width, height, left, top, right, bottom = 760, 430, 60, 34, 190, 44

    def __init__(self, points: Sequence[Mapping[str, Any]]) -> None:
        spent = [point["spent"] for point in points]
        scores = [score for point in points for score in point["true"]]
        self.low_x, self.high_x = math.log10(min(spent)) - 0.05, math.log10(max(spent)) + 0.05
        margin = max(0.05 * (max(scores) - min(scores)), 0.001)
        self.low_y, self.high_y = min(scores) - margin, max(scores) + margin

    def x(self, spent: float) -> float:
        share = (math.log10(spent) - self.low_x) / (self.high_x - self.low_x)
        return self.left + share * (self.width - self.left - self.right)

    def y(self, score: float) -> float:
        share = (self.high_y - score) / (self.high_y - self.low_y)
        return self.top + share * (self.height - self.top - self.bottom)

    def lines(self) -> list[str]:
        """Return the grid with its numbers."""
        step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1) if self._steps(s) <= 10)
        first, last = math.ceil(self.low_y / step), math.floor(self.high_y / step)
        edge = self.width - self.right
        parts = []
        for k in range(first, last + 1):
            y = self.y(k * step)
            parts.append(
                f'<line x1="{self.left}" x2="{edge}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            )
            parts.append(_text(self.left - 8, y + 4, f"{k * step:.3g}", anchor="end"))
        for exponent in range(1, 9):
            for digit in (1, 2, 5):
                spent = digit * 10**exponent
                if self.low_x <= math.log10(spent) <= self.high_x:
                    x, end = self.x(spent), self.height - self.bottom
                    parts.append(
                        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{end}" '
                        'stroke="#eee"/>'
                    )
                    parts.append(_text(x, end + 18, f"{spent:,}", anchor="middle"))
        return parts

    def _steps(self, step: float) -> float:
        return (self.high_y - self.low_y) / step


def plot(summary: Mapping[str, Any], file: Path) -> None:
    """Draw median and quartiles of the true score against the item evaluations."""
    arms = summary["arms"]
    axes = _Axes([point for arm in arms.values() for point in arm["points"]])
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {axes.width} {axes.height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{axes.width}" height="{axes.height}" fill="white"/>',
        *axes.lines(),
        _text(axes.left, 18, "true score of what is chosen: median and quartiles over the seeds"),
        _text(axes.left, axes.height - 8, "item evaluations spent"),
    ]
    edge = axes.width - axes.right
    if summary["goal"] is not None:
        y = axes.y(summary["goal"])
        parts.append(
            f'<line x1="{axes.left}" x2="{edge}" y1="{y:.1f}" y2="{y:.1f}" stroke="#555" '
            'stroke-dasharray="4 4"/>'
        )
    for i, (name, arm) in enumerate(arms.items()):
        colour = COLOURS[i % len(COLOURS)]
        parts += _curve(axes, arm["points"], colour)
        y = axes.top + 10 + 20 * i
        parts.append(f'<rect x="{edge + 16}" y="{y - 9}" width="14" height="10" fill="{colour}"/>')
        parts.append(_text(edge + 36, y, name))
    parts.append("</svg>")
    file.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _curve(axes: _Axes, points: Sequence[Mapping[str, Any]], colour: str) -> list[str]:
    """Return one arm: a band between the quartiles, a line, and a dot with a bar at each point."""
    x = [axes.x(point["spent"]) for point in points]
    low, median, high = ([axes.y(point["true"][k]) for point in points] for k in range(3))
    around = [*zip(x, high, strict=True), *reversed(list(zip(x, low, strict=True)))]
    return [
        f'<polygon points="{_pairs(around)}" fill="{colour}" opacity="0.1"/>',
        (
            f'<polyline points="{_pairs(zip(x, median, strict=True))}" fill="none" '
            f'stroke="{colour}" stroke-width="2"/>'
        ),
        *(
            f'<line x1="{a:.1f}" x2="{a:.1f}" y1="{b:.1f}" y2="{c:.1f}" stroke="{colour}" '
            'opacity="0.5"/>'
            for a, b, c in zip(x, low, high, strict=True)
        ),
        *(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>'
            for a, b in zip(x, median, strict=True)
        ),
    ]


def _pairs(points: Any) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
