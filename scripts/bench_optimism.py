"""Shows how optimistic the score is that a candidate was selected by, and what held-out items do.

For each seed a small search on the playground models selects one candidate by its search score and
one as evomerge does, among five finalists by held-out items. Both are then scored on all items that
neither the search nor the choice has seen: nearly their true score. What a score has more than the
true one is its optimism.

    python scripts/bench_optimism.py --out runs/optimism --plot docs/optimism.svg

Seeds that are in the folder already are not run again.
"""

import argparse
import json
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from benchmark_models import print_table

from evomerge import parse_space, run
from evomerge.evaluation import ItemScores, mean
from evomerge.recipe import parse_recipe
from evomerge.search import open_run
from evomerge.search.evaluate import score_recipe

SPACE = Path(__file__).parent.parent / "search_spaces" / "quickstart.yml"
COLUMNS = (
    "seed",
    "search score",
    "its true score",
    "optimism",
    "held-out score",
    "its true score",
    "optimism",
)


def space_of(seed: int, options: argparse.Namespace, holdout: int) -> Any:
    """Return the quickstart's space with few search items."""
    data = yaml.safe_load(SPACE.read_text(encoding="utf-8"))
    data["search"] |= {"seed": seed, "trials": options.trials}
    data["evaluation"] |= {"search_items": options.search_items, "holdout_items": holdout}
    for section in data["recipe"]["models"]:
        section["model"] = str(SPACE.parent / section["model"])
    data["recipe"]["base_model"] = str(SPACE.parent / data["recipe"]["base_model"])
    for task in data["tasks"]:
        task["smooth"] = False  # the optimism of what was raised
    data["evaluation"]["task_dirs"] = [str(SPACE.parent / "../tasks/playground")]
    return parse_space(data)


def true_score(recipe: Any, seen: ItemScores, space: Any) -> float:
    """Return the mean over tasks of a recipe's scores on the items nobody has seen."""
    scores, _ = score_recipe(parse_recipe(recipe), space, split="holdout", device="cpu")
    means = []
    for name, task in scores.by_task.items():
        known = set(seen.by_task[name].items)
        fresh = [item for item in task.items if item not in known]
        means.append(mean(task.select(fresh).values))
    return math.fsum(means) / len(means)


def measure(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one search and find out how good its choices are."""
    folder = options.out / f"seed-{seed}"
    run(space_of(seed, options, options.holdout_items), folder, device="cpu")
    opened = open_run(folder)
    scored = [r for r in opened.study.records.values() if r.search is not None]
    selected = max(scored, key=lambda record: record.search.objective.value)
    winner = opened.trial()
    seen = ItemScores.from_parquet(opened.directory.items(winner.number, "holdout"))
    rest = space_of(seed, options, options.true_items + options.holdout_items)
    found: dict[str, Any] = {"seed": seed, "candidates": len(scored)}
    for name, record in (("selected", selected), ("winner", winner)):
        found[name] = {
            "trial": record.number,
            "search": record.search.objective.value,
            "true": true_score(record.recipe, seen, rest),
        }
    found["winner"]["holdout"] = winner.holdout.objective.value
    return found


def plot(results: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw each seed's two optimisms."""
    width, height, left, top = 640, 300, 60, 30
    values = [v for found in results for v in optimisms(found)]
    low, high = min(*values, 0.0) - 0.005, max(values) + 0.005

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - 2 * top)

    step = 0.02
    ticks = [round(k * step, 2) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in ticks:
        weight = 1.5 if tick == 0 else 0.5
        parts += [
            (
                f'<line x1="{left}" x2="{width - 20}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
                f'stroke="#888" stroke-width="{weight}"/>'
            ),
            f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:+.2f}</text>',
        ]
    labels = ("score it was selected by", "held-out score of the winner")
    for column, (label, colour) in enumerate(zip(labels, ("#c0392b", "#2471a3"), strict=True)):
        middle = left + (width - left - 20) * (2 * column + 1) / 4
        chosen = [optimisms(found)[column] for found in results]
        for i, value in enumerate(chosen):
            x = middle + (i - (len(chosen) - 1) / 2) * 16
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y(value):.1f}" r="5" fill="{colour}" opacity="0.7"/>'
            )
        average = statistics.mean(chosen)
        parts += [
            (
                f'<line x1="{middle - 110}" x2="{middle + 110}" y1="{y(average):.1f}" '
                f'y2="{y(average):.1f}" stroke="{colour}" stroke-width="2"/>'
            ),
            (
                f'<text x="{middle}" y="{height - 8}" text-anchor="middle">{label}: mean '
                f"{average:+.3f}</text>"
            ),
        ]
    parts.append(f'<text x="{left}" y="18">score minus true score, one dot a seed</text></svg>')
    file.write_text("\n".join(parts) + "\n", encoding="utf-8")


def optimisms(found: dict[str, Any]) -> tuple[float, float]:
    """Return how much too high the selected candidate's and the winner's scores are."""
    selected, winner = found["selected"], found["winner"]
    return selected["search"] - selected["true"], winner["holdout"] - winner["true"]


def main() -> None:
    """Measure, print a table, draw it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument("--seeds", type=int, default=10, help="searches (10)")
    parser.add_argument("--trials", type=int, default=60, help="trials of each (60)")
    parser.add_argument("--search-items", type=int, default=30, help="search items a task (30)")
    parser.add_argument(
        "--holdout-items", type=int, default=200, help="held-out items a task (200)"
    )
    parser.add_argument("--true-items", type=int, default=1000, help="items for the truth (1000)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw there (SVG)")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in range(options.seeds):
        file = options.out / f"seed-{seed}.json"
        if not file.is_file():
            file.write_text(json.dumps(measure(seed, options), indent=2), encoding="utf-8")
        results.append(json.loads(file.read_text(encoding="utf-8")))
    rows = []
    for found in results:
        selected, winner = found["selected"], found["winner"]
        one, other = optimisms(found)
        numbers = (selected["search"], selected["true"], one)
        numbers += (winner["holdout"], winner["true"], other)
        rows.append([str(found["seed"]), *(f"{number:+.3f}" for number in numbers)])
    print_table(COLUMNS, rows)
    for name, column in (("search score", 0), ("held-out score", 1)):
        values = [optimisms(found)[column] for found in results]
        error = statistics.stdev(values) / math.sqrt(len(values))
        print(f"optimism of the {name}: {statistics.mean(values):+.4f} +- {error:.4f}")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
