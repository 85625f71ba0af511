"""Does a smooth metric find better merges than accuracy when there are few search items?

Searches the playground with the same seeds and budgets, guided by accuracy and by smooth metrics,
and scores each winner on the same held-out items by accuracy::

    python scripts/bench_smooth.py --seeds 5 --items 20
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import yaml

import evomerge
from evomerge.documents import Origin

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("add", "reverse", "sort")
GUIDES = {
    "accuracy": {},
    "blend": dict.fromkeys(TASKS, "blend"),
    "bits per byte": dict.fromkeys(TASKS, "gold_bits_per_byte"),
    "probability": dict.fromkeys(TASKS, "gold_probability"),
}


def main() -> None:
    """Run the searches and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--items", type=int, default=20, help="search items a task")
    parser.add_argument("--holdout", type=int, default=300, help="held-out items a task")
    parser.add_argument("--trials", type=int, default=60, help="trials of each search")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in GUIDES}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for name, smooth in GUIDES.items():
                started = time.perf_counter()
                result = search(Path(folder) / f"{name}-{seed}", seed, smooth, options)
                score = result.winner.holdout.objective
                found[name].append(score.value)
                seconds = time.perf_counter() - started
                print(
                    f"seed {seed}, {name}: {score.value:.4f} ± {score.stderr:.4f}"
                    f" ({result.winner.label}, {seconds:.0f} s)",
                    flush=True,
                )
    print(f"\n| guide | mean of {options.seeds} seeds | standard error | worst |")
    print("| --- | --- | --- | --- |")
    for name, scores in found.items():
        print(
            f"| {name} | {statistics.mean(scores):.4f} | {_error(scores):.4f} | {min(scores):.4f} |"
        )
    first, *others = found.values()
    for name, scores in zip(list(found)[1:], others, strict=True):
        gains = [theirs - mine for mine, theirs in zip(first, scores, strict=True)]
        print(f"{name} is better by {statistics.mean(gains):+.4f} ± {_error(gains):.4f} (paired)")
    if options.json:
        options.json.write_text(json.dumps({"items": options.items, "scores": found}, indent=2))


def search(out: Path, seed: int, smooth: dict[str, str], options: argparse.Namespace):
    """Run the quickstart with few items."""
    path = ROOT / "search_spaces" / "quickstart.yml"
    data = yaml.safe_load(path.read_text())
    for task in data["tasks"]:
        task["smooth"] = smooth.get(task["name"].removeprefix("playground_"), False)
    # Guides alone: what else would spend the budget differs between them.
    data["search"] |= {"seed": seed, "trials": options.trials, "racing": False, "climb": False}
    data["evaluation"] |= {"search_items": options.items, "holdout_items": options.holdout}
    # Paths are as in the file that was read.
    space = evomerge.parse_space(data, Origin(str(path), path.read_text()), name="smooth")
    return evomerge.run(space, out, device="cpu")


def _error(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


if __name__ == "__main__":
    main()
