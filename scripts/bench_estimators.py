"""Compares estimates of a candidate's score from a part of the items, on the playground.

Random candidates around the average are scored once on all search items of
search_spaces/bench_search_write.yml; the results stay in the folder. Then searches are played: of
some candidates, in a random order, only a rung of items is told, as racing would have it (one in
four is complete), and the score of each other candidate is estimated from a draw of 32, 64 or 128
items.

    python scripts/bench_estimators.py --out runs/bench-estimators

The plain mean draws evenly; the others draw items on which the baselines differ more often.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import numpy as np
import numpy.typing as npt
from bench_search_problem import SPACES, Protocol
from benchmark_models import print_table

from evomerge.evaluation import ItemScores
from evomerge.evaluation.sampling import Strata, draw_items, make_strata
from evomerge.files import replacing
from evomerge.search import worker_spec
from evomerge.search.baselines import baselines
from evomerge.search.estimators import IrtEstimator, PlainEstimator
from evomerge.workers import Assignment, Failed
from evomerge.workers.worker import Worker

RUNGS = (32, 64, 128)
SPREAD = 0.15
PLAIN, STRATIFIED, CONTROLLED, IRT = ESTIMATORS = (
    "plain mean, drawn evenly",
    "stratified, no control",
    "stratified with control",
    "irt",
)
COLUMNS = ("estimator", "items", "bias", "its error", "RMSE", "mean stated error", "covered")

ByTask = Mapping[str, Strata]
Found = dict[tuple[str, int], list[tuple[int, float, float]]]


def recipes(seed: int, count: int, search_items: int) -> tuple[Any, Iterator[tuple[str, Any]]]:
    """Return the space and, by name, the baselines' recipes and then the candidates'."""
    protocol = Protocol(
        budget=0,
        search_items=search_items,
        holdout_items=2,
        true_items=0,
        space=SPACES / "bench_search_write.yml",
    )
    space = protocol.parse(protocol.document(seed))
    generator = np.random.default_rng(seed)
    middle = 1 / (len(space.merged_names()) - 1)

    def found() -> Iterator[tuple[str, Any]]:
        for place, baseline in enumerate(baselines(space)):
            yield f"baseline-{place}", baseline.recipe
        for place in range(count):
            point = {
                each.name: float(np.clip(generator.normal(middle, SPREAD), each.low, each.high))
                for each in space.dimensions
            }
            yield f"candidate-{place}", space.decode(point).to_dict()

    return space, found()


def score_all(options: argparse.Namespace) -> tuple[list[ItemScores], list[ItemScores]]:
    """Return the item scores of baselines and candidates; those in the folder are read."""
    space, wanted = recipes(options.seed, options.candidates, options.search_items)
    folder = options.out / f"items.seed-{options.seed}.{options.search_items}"
    folder.mkdir(parents=True, exist_ok=True)
    worker: Worker | None = None
    found: dict[str, ItemScores] = {}
    for name, recipe in wanted:
        file = folder / f"{name}.parquet"
        if not file.is_file():
            worker = worker or Worker(worker_spec(space, device="cpu"))
            outcome = worker.evaluate(Assignment(0, dict(recipe), "search"))
            if isinstance(outcome, Failed):
                raise SystemExit(f"{name} failed: {outcome.reason}")
            outcome.scores.to_parquet(file)
        found[name] = ItemScores.from_parquet(file)
    known = [scores for name, scores in found.items() if name.startswith("baseline")]
    return known, [scores for name, scores in found.items() if name.startswith("candidate")]


def divide(known: Sequence[ItemScores], *, order: bool) -> ByTask:
    """Return the strata that a run makes from its baselines."""
    strata = {}
    for task, items in known[0].by_task.items():
        table = np.array([scores.by_task[task].select(items.items).values for scores in known])
        most = RUNGS[0] // (2 * len(known[0].by_task))
        strata[task] = make_strata(items.items, table, order=order, most=most)
    return strata


def draw(
    scores: ItemScores, strata: ByTask, rung: int, generator: np.random.Generator
) -> ItemScores:
    """Return what a candidate got on the first items of a draw of its own."""
    wanted: dict[str, list[str]] = {}
    items = draw_items(strata, dict.fromkeys(strata, 1.0 / len(strata)), generator)
    for _, (task, item) in zip(range(rung), items, strict=False):
        wanted.setdefault(task, []).append(item)
    return scores.select(wanted)


def objective(scores: ItemScores) -> float:
    """Return the mean over tasks of the score on all items."""
    return float(np.mean([task.values.mean() for task in scores.by_task.values()]))


def worst_first(
    places: npt.NDArray[np.int64], rest: Sequence[ItemScores], told: int
) -> npt.NDArray[np.int64]:
    """Return the same order, but all that are told are worse than all others."""
    truths = np.array([objective(rest[place]) for place in places])
    is_told = np.argsort(np.argsort(truths, kind="stable")) < told
    return np.concatenate([places[is_told], places[~is_told]])


def play(
    known: Sequence[ItemScores], rest: Sequence[ItemScores], options: argparse.Namespace
) -> Iterator[tuple[str, int, int, float, float]]:
    """Yield estimator, rung, candidate, error of the estimate and its stated error."""
    generator = np.random.default_rng([options.seed, options.told])
    ordered, even = divide(known, order=True), divide(known, order=False)
    everything = known[0].num_items
    for _ in range(options.repeats):
        places = generator.permutation(len(rest))
        if options.better:
            places = worst_first(places, rest, options.told)
        controlled, irt = PlainEstimator(ordered, known), IrtEstimator(ordered, known)
        for place in places[: options.told]:
            rung = int(generator.choice([*RUNGS, everything]))
            told = draw(rest[place], ordered, rung, generator)
            controlled.learn(told)
            irt.learn(told)
        # Without baselines nothing is expected.
        estimates: dict[str, tuple[ByTask, Callable[[ItemScores], Any]]] = {
            PLAIN: (even, PlainEstimator(even, []).current()),
            STRATIFIED: (ordered, PlainEstimator(ordered, []).current()),
            CONTROLLED: (ordered, controlled.current()),
            IRT: (ordered, irt.current()),
        }
        for place in places[options.told :]:
            truth = objective(rest[place])
            for rung in RUNGS:
                seed = int(generator.integers(2**63))
                for name, (strata, estimate) in estimates.items():
                    drawn = draw(rest[place], strata, rung, np.random.default_rng(seed))
                    tasks = estimate(drawn).values()
                    value = np.mean([each.score.value for each in tasks])
                    stated = np.sqrt(np.sum([each.stderr**2 for each in tasks])) / len(tasks)
                    yield name, rung, int(place), float(value) - truth, float(stated)


def summarize(found: Found) -> list[dict[str, Any]]:
    """Return bias, RMSE and what share of draws is within 1.96 stated errors."""
    rows = []
    for rung in RUNGS:
        for name in ESTIMATORS:
            draws = found[name, rung]
            errors = np.array([error for _, error, _ in draws])
            stated = np.array([each for _, _, each in draws])
            # Draws of one candidate are not independent of each other: candidates are.
            by_candidate: dict[int, list[float]] = {}
            for place, error, _ in draws:
                by_candidate.setdefault(place, []).append(error)
            middles = [np.mean(each) for each in by_candidate.values()]
            rows.append(
                {
                    "estimator": name,
                    "items": rung,
                    "bias": float(errors.mean()),
                    "bias_stderr": float(np.std(middles, ddof=1) / np.sqrt(len(middles))),
                    "rmse": float(np.sqrt(np.mean(errors**2))),
                    "stated": float(np.sqrt(np.mean(stated**2))),
                    "covered": float(np.mean(np.abs(errors) <= 1.96 * stated)),
                }
            )
    return rows


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="where the results go")
    parser.add_argument("--candidates", type=int, default=48, help="around the average")
    parser.add_argument("--told", type=int, nargs="+", default=[0, 30], help="earlier trials")
    parser.add_argument("--repeats", type=int, default=25, help="searches that are played")
    parser.add_argument(
        "--better", action="store_true", help="estimate candidates better than all that are told"
    )
    parser.add_argument("--search-items", type=int, default=150, help="items a skill")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Score what is missing, play the searches, print the tables and write them."""
    options = parse_arguments(arguments)
    known, rest = score_all(options)
    truths = [objective(scores) for scores in rest]
    result: dict[str, Any] = {
        "candidates": len(rest),
        "scores": {"mean": float(np.mean(truths)), "spread": float(np.std(truths))},
        "repeats": options.repeats,
        "better": options.better,
        "told": {},
    }
    for count in options.told:
        if count >= len(rest):
            raise SystemExit(f"--told is below --candidates ({len(rest)}), got {count}")
        found: Found = {}
        options.told = count
        for name, rung, place, error, stated in play(known, rest, options):
            found.setdefault((name, rung), []).append((place, error, stated))
        result["told"][count] = rows = summarize(found)
        print(f"\nafter {len(known)} baselines and {count} trials of {known[0].num_items} items:")
        numbers = ("bias", "bias_stderr", "rmse", "stated")
        cells = [
            [
                row["estimator"],
                str(row["items"]),
                *(f"{row[number]:.4f}" for number in numbers),
                f"{row['covered']:.1%}",
            ]
            for row in rows
        ]
        print_table(COLUMNS, cells)
    name = "estimators.better.json" if options.better else "estimators.json"
    with replacing(options.out / name) as opened:
        opened.write((json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
