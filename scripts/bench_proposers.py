"""Compares the optimizers on cheap functions of the kind that merges are: the rule of ``auto``.

Each function is a bowl whose steep and flat directions are turned against the axes, with its best
point away from the start; results are told with an error of a fifth of what there is to gain. The
start is the best of a few known points, as a run's baselines are. Printed is what is left of the
start's distance from the best value, in percent, after so many trials: of the best of five
finalists that are scored again; for two objectives, of the hypervolume. 0 is perfect, 100 is the
start. Also the seconds that one question costs after so many trials.

    python scripts/bench_proposers.py
    python scripts/bench_proposers.py --seeds 8 --optimizers cma gp --problems 18

Conditional spaces and several objectives are run with the optimizers that take them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmark_models import print_table

from evomerge.proposers import PROPOSERS, Told, make_proposer
from evomerge.proposers.plain_space import PlainSpace
from evomerge.space import OPTIMIZERS, Condition, Dimension, SearchSettings, Value

Point = Mapping[str, Value]
PROBLEMS = ("3", "6", "12", "18", "60", "mixed", "conditional", "two", "two18", "three")
DEFAULT = ("3", "6", "18", "60")
METHODS = ("linear", "ties", "dare", "della")
SLOW = ("gp",)


@dataclass(frozen=True)
class Problem:
    """A function to search.

    Attributes:
        space: Its dimensions.
        losses: Point -> one number an objective, smaller is better, 0 is best.
        num_objectives: How many.
    """

    space: PlainSpace
    losses: Callable[[Point], tuple[float, ...]]
    num_objectives: int = 1


def bowl(count: int, generator: np.random.Generator) -> Callable[[np.ndarray], float]:
    """Return a bowl in the unit cube: curvatures from 1 to 30, its axes turned."""
    best = generator.uniform(0.15, 0.85, count)
    turned, _ = np.linalg.qr(generator.standard_normal((count, count)))
    scales = generator.permutation(np.geomspace(1.0, 30.0, count))

    def loss(vector: np.ndarray) -> float:
        away = turned @ (vector - best)
        return float(np.sum(scales * away**2) / np.sum(scales))

    return loss


def make_problem(name: str, seed: int) -> Problem:
    """Return a problem of :data:`PROBLEMS`."""
    generator = np.random.default_rng([7, seed])
    if name.startswith(("two", "three")):
        objectives = 2 if name.startswith("two") else 3
        space = floats(18 if name.endswith("18") else 6)
        bowls = [bowl(len(space.dimensions), generator) for _ in range(objectives)]
        return Problem(space, lambda p: tuple(b(vector_of(space, p)) for b in bowls), objectives)
    if name == "mixed":
        space = PlainSpace(
            *floats(4).dimensions,
            *[Dimension(f"n{i}", "int", 1, 8) for i in range(4)],
            *[Dimension(f"c{i}", "choice", choices=("a", "b", "c")) for i in range(2)],
        )
        numbers = bowl(8, generator)
        right = generator.integers(0, 3, 2)

        def mixed(point: Point) -> tuple[float, ...]:
            wrong = sum(point[f"c{i}"] != "abc"[right[i]] for i in range(2))
            return (numbers(vector_of(space, point)[:8]) + 0.03 * wrong,)

        return Problem(space, mixed)
    if name == "conditional":
        densities = [
            Dimension(f"density {method}", "float", condition=Condition("method", (method,)))
            for method in METHODS[1:]
        ]
        space = PlainSpace(
            Dimension("method", "choice", choices=METHODS), *floats(6).dimensions, *densities
        )
        weights = bowl(6, generator)
        best = generator.uniform(0.1, 0.9, len(METHODS))
        offsets = generator.permutation([0.0, 0.01, 0.02, 0.04])

        def conditional(point: Point) -> tuple[float, ...]:
            index = METHODS.index(str(point["method"]))
            density = point.get(f"density {point['method']}", float(best[index]))
            away = 0.2 * (float(density or 0.0) - best[index]) ** 2
            return (weights(vector_of(space, point)[1:7]) + float(away + offsets[index]),)

        return Problem(space, conditional)
    space = floats(int(name))
    loss = bowl(int(name), generator)
    return Problem(space, lambda point: (loss(vector_of(space, point)),))


def floats(count: int) -> PlainSpace:
    """Return the unit cube."""
    return PlainSpace(*[Dimension(f"w{i}", "float", 0.0, 1.0) for i in range(count)])


def vector_of(space: PlainSpace, point: Point) -> np.ndarray:
    """Return a point's vector of the unit cube."""
    return np.array(space.to_unit(point))


def known_points(problem: Problem) -> list[Point]:
    """Return what baselines are: the middle, and corners that have one value high."""
    count = len(problem.space.dimensions)
    vectors = [np.full(count, 0.5)]
    for parent in range(min(3, count)):
        vector = np.full(count, 0.3)
        vector[parent::3] = 0.7
        vectors.append(vector)
    return [problem.space.from_unit(vector.tolist()) for vector in vectors]


def search(
    optimizer: str, name: str, seed: int, cuts: Sequence[int], noise: float
) -> tuple[dict[int, float], dict[int, float]]:
    """Run one search.

    Returns:
        Trials -> percent of the start's distance that is left, and trials -> seconds a question.
    """
    problem = make_problem(name, seed)
    chance = np.random.default_rng([8, seed])
    baselines = known_points(problem)
    true = [problem.losses(point) for point in baselines]
    error = noise * min(loss[0] for loss in true)

    def tell_of(losses: Sequence[float]) -> Told:
        values = [-loss + error * chance.standard_normal() for loss in losses]
        return Told(tuple(map(float, values)), (error,) * len(values), items=100)

    known = [(p, tell_of(losses)) for p, losses in zip(baselines, true, strict=True)]
    start = max(known, key=lambda pair: pair[1].values or ())[0]
    proposer = make_proposer(
        problem.space,
        SearchSettings(optimizer=optimizer, seed=seed, trials=max(cuts)),
        start=start,
        known=known,
        num_objectives=problem.num_objectives,
    )
    results = [(told.values or (), losses) for (_, told), losses in zip(known, true, strict=True)]
    reference = [max(loss[i] for loss in true) for i in range(problem.num_objectives)]
    left: dict[int, float] = {}
    seconds: dict[int, float] = {}
    spent: list[float] = []
    for number in range(max(cuts) - len(known)):
        begun = time.perf_counter()
        point = proposer.ask(number)
        spent.append(time.perf_counter() - begun)
        losses = problem.losses(point)
        told = tell_of(losses)
        proposer.tell(number, told)
        results.append((told.values or (), losses))
        if len(results) in cuts:
            left[len(results)] = 100.0 * remaining(results, true, reference, error, chance)
            seconds[len(results)] = statistics.median(spent[-9:])
    return left, seconds


def remaining(
    results: Sequence[tuple[tuple[float, ...], tuple[float, ...]]],
    true: Sequence[tuple[float, ...]],
    reference: Sequence[float],
    error: float,
    chance: np.random.Generator,
) -> float:
    """Return the share of the start's distance from the best that is left."""
    if len(reference) == 1:
        finalists = sorted(results, reverse=True)[:5]
        scored = [loss[0] + error / 1.4 * chance.standard_normal() for _, loss in finalists]
        return finalists[int(np.argmin(scored))][1][0] / min(loss[0] for loss in true)
    front = [loss for values, loss in results if not dominated(values, results)]
    return 1.0 - share_below(np.array(front), np.array(reference))


def dominated(values: Sequence[float], results: Sequence[tuple[tuple[float, ...], object]]) -> bool:
    """Return whether some other result is better in every objective."""
    return any(all(a > b for a, b in zip(other, values, strict=True)) for other, _ in results)


def share_below(front: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of the box from 0 to the reference that the front dominates, by sampling."""
    samples = np.random.default_rng(0).random((4000, len(reference))) * reference
    return float(np.mean(np.any(np.all(front[:, None, :] <= samples[None], axis=2), axis=0)))


def able(optimizer: str, problem: str) -> bool:
    """Return whether an optimizer takes a problem."""
    facts = OPTIMIZERS[optimizer]
    several = problem.startswith(("two", "three"))
    return (facts.several or not several) and (facts.conditions or problem != "conditional")


def main() -> None:
    """Run what the command line asks for and print a table for each problem."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(DEFAULT))
    parser.add_argument("--optimizers", nargs="+", choices=list(PROPOSERS))
    parser.add_argument("--trials", nargs="+", type=int, default=[40, 100, 200])
    parser.add_argument("--slow-trials", type=int, default=40, help="most trials of gp")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--noise", type=float, default=0.2, help="error, as a share of the gain")
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for problem in options.problems:
        rows: list[list[str]] = []
        for optimizer in options.optimizers or list(PROPOSERS):
            if not able(optimizer, problem):
                continue
            most = options.slow_trials if optimizer in SLOW else max(options.trials)
            cuts = [cut for cut in options.trials if cut <= most]
            runs = [
                search(optimizer, problem, s, cuts, options.noise) for s in range(options.seeds)
            ]
            kept = found.setdefault(problem, {}).setdefault(optimizer, {})
            row = [optimizer]
            for cut in options.trials:
                if cut not in cuts:
                    row += ["", ""]
                    continue
                kept[str(cut)] = [left[cut] for left, _ in runs]
                think = statistics.median(seconds[cut] for _, seconds in runs)
                row += [f"{statistics.mean(kept[str(cut)]):.0f}", f"{think:.3f}"]
            rows.append(row)
        print(f"\n{problem}: percent left after so many trials, seconds for a question")
        print_table(["optimizer", *[x for cut in options.trials for x in (str(cut), "s")]], rows)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
