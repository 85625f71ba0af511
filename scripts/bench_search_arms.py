"""The procedures that bench_search.py compares, each on one seed of one search problem."""

import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_search_problem import BudgetSpentError, Problem, Protocol

import evomerge
from evomerge.evaluation import ItemScores
from evomerge.search import RunDirectory, TrialRecord

FRACTIONS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of the budget at which a search that stops there is looked at."""
POPULATION = 25
"""Of the genetic algorithm; mergenetic's own configurations have 10 and more."""

EVOMERGE: Mapping[str, Mapping[str, Any]] = {
    "evomerge": {},
    "evomerge-no-guide": {},
    "evomerge-surrogate": {"optimizer": "surrogate"},
    "evomerge-irt": {"estimator": "irt"},
    "evomerge-no-racing": {"racing": False},
    "evomerge-no-order": {"racing": {"order": False}},
    "evomerge-no-climb": {"climb": False},
    "evomerge-no-stages": {"stages": False},
    "evomerge-no-baselines": {"from_baselines": False},
    "evomerge-no-holdout": {"finalists": 1},
    "evomerge-no-climb-no-stages": {"climb": False, "stages": False},
    "evomerge-no-climb-no-racing": {"climb": False, "racing": False},
    "evomerge-no-climb-no-order": {"climb": False, "racing": {"order": False}},
}
"""Name -> the `search:` settings by which the arm differs from the defaults."""
NO_GUIDE = "evomerge-no-guide"
"""Differs by its tasks: the metric alone guides it."""


def mergekit_evolve(problem: Problem) -> str:
    """CMA-ES as mergekit-evolve calls it.

    pycma's ``fmin2`` from 1 / number of models with sigma 1/6, no bounds, absolute values taken.
    (mergekit 0.1, ``mergekit/scripts/evolve.py`` and ``mergekit/evo/genome.py``.) In the end
    ``fmin2`` scores the mean of its last distribution too: one candidate more than the others.
    """
    with warnings.catch_warnings():
        # pycma warns at import where matplotlib, which nothing here needs, is not installed.
        warnings.simplefilter("ignore")
        import cma

    generator = np.random.default_rng(problem.seed)
    options = {
        # pycma begins another generation as long as it has not scored more than this.
        "maxfevals": problem.num_affordable - 1,
        "randn": lambda *shape: generator.standard_normal(shape),
        "seed": math.nan,  # mergekit-evolve gives none; here the draws are the generator's
        "verbose": -9,
        "verb_log": 0,
        "verb_disp": 0,
    }
    start = [1 / (len(problem.space.merged_names()) - 1)] * len(problem.space.dimensions)

    def cost(vectors: Sequence[np.ndarray]) -> list[float]:
        is_last = len(vectors) == 1
        return [-problem.score(np.abs(vector).tolist(), is_extra=is_last) for vector in vectors]

    _, strategy = cma.fmin2(None, start, 1 / 6, options=options, parallel_objective=cost)
    return ", ".join(strategy.stop())


def mergenetic(problem: Problem) -> str:
    """Genetic algorithm as mergenetic's examples call it.

    pymoo's ``GA`` with simulated binary crossover and polynomial mutation as they are by default,
    no duplicates, a number of generations. (mergenetic 0.1, ``experiments/*/end2end.py``.)
    """
    try:
        from pymoo.algorithms.soo.nonconvex.ga import GA
        from pymoo.core.problem import ElementwiseProblem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.optimize import minimize
    except ImportError as error:
        raise SystemExit(
            f"the arm 'mergenetic' needs pymoo: pip install pymoo, or leave it out ({error})"
        ) from error

    class Merging(ElementwiseProblem):
        def __init__(self) -> None:
            count = len(problem.space.dimensions)
            super().__init__(n_var=count, n_obj=1, xl=problem.low, xu=problem.high)

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = -problem.score(x.tolist())

    algorithm = GA(POPULATION, crossover=SBX(), mutation=PM(), eliminate_duplicates=True)
    generations = math.ceil(problem.num_affordable / POPULATION)
    minimize(Merging(), algorithm, ("n_gen", generations), seed=problem.seed, verbose=False)
    return f"{generations} generations"


def random_search(problem: Problem) -> str:
    """Uniform draws."""
    generator = np.random.default_rng([problem.seed, 1])  # pymoo's first population is [seed]'s
    while True:
        problem.score(generator.uniform(problem.low, problem.high).tolist())


def tpe(problem: Problem) -> str:
    """Optuna's multivariate tree-structured Parzen estimator, otherwise as it is by default."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=problem.seed, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    wanted = {
        dimension.name: optuna.distributions.FloatDistribution(dimension.low, dimension.high)
        for dimension in problem.space.dimensions
    }
    while True:
        trial = study.ask(wanted)
        study.tell(trial, problem.score([trial.params[name] for name in wanted]))


PEERS: Mapping[str, Callable[[Problem], str]] = {
    "mergekit-evolve": mergekit_evolve,
    "tpe": tpe,
    "mergenetic": mergenetic,
    "random": random_search,
}
"""Name -> procedure that scores candidates until it stops or the budget is spent."""


def measure(arm: str, seed: int, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Run one arm with one seed.

    Args:
        arm: A name of ``PEERS`` or ``EVOMERGE``, the latter also with a share of the budget:
            ``evomerge@0.1``.
        seed: Of the items and of the procedure.
        protocol: What all arms have in common.
        folder: Where a run of evomerge is, while it is not finished.

    Returns:
        Plain data: ``candidates`` as ``[item evaluations spent, search score]``, and ``choices``:
        what a search that stops at a share of the budget chooses, with its true score.
    """
    started = time.perf_counter()
    problem = Problem(protocol, seed)
    if arm in PEERS:
        found = _measure_peer(problem, PEERS[arm])
    else:
        name, _, fraction = arm.partition("@")
        found = _measure_evomerge(problem, name, float(fraction or 1), folder)
    return {
        "arm": arm,
        "seed": seed,
        "protocol": protocol.identity(),
        "evomerge": evomerge.__version__,
        **found,
        "recipe": _portable(found["recipe"], protocol.space.parent),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _portable(recipe: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a recipe with its models as the space names them, for other machines."""
    text = json.dumps(recipe).replace(json.dumps(f"{folder}{os.sep}")[1:-1], "")
    return dict(json.loads(text))


def _measure_peer(problem: Problem, procedure: Callable[[Problem], str]) -> dict[str, Any]:
    try:
        stopped = procedure(problem)
    except BudgetSpentError:
        stopped = "budget"
    truths: dict[int, dict[str, Any]] = {}
    choices = []
    for fraction in FRACTIONS:
        limit = math.inf if fraction == 1 else fraction * problem.protocol.budget
        reached = [each for each in problem.candidates if each[0] <= limit]
        if not reached:
            continue
        scores = [score for _, score in reached]
        best = scores.index(max(scores))
        if best not in truths:
            truths[best] = problem.true_score(problem.recipes[best])
        choices.append(
            {
                "fraction": fraction,
                "spent": reached[-1][0],
                "candidate": best,
                "search": scores[best],
                **truths[best],
            }
        )
    return {
        "stopped": stopped,
        "candidates": problem.candidates,
        "choices": choices,
        "recipe": problem.recipes[choices[-1]["candidate"]],
    }


def _measure_evomerge(problem: Problem, name: str, fraction: float, folder: Path) -> dict[str, Any]:
    data = problem.protocol.document(problem.seed)
    changes = dict(EVOMERGE[name])
    finalists = int(changes.get("finalists", problem.space.document.search.finalists))
    data["search"] |= changes | _limit(problem, fraction, finalists)
    if name == NO_GUIDE:
        data["tasks"] = [{**task, "smooth": False} for task in data["tasks"]]
    result = evomerge.run(problem.protocol.parse(data), folder, device="cpu")
    winner = result.winner
    told = sorted(
        (record for record in result.trials if record.search is not None),
        key=lambda record: (record.kind == "proposed", record.order or 0, record.number),
    )
    candidates: list[tuple[int, float]] = []
    spent = 0 if result.climb is None else int(result.climb["item_evaluations"])
    for record in told:
        spent += record.scored_items.get("search", 0)
        candidates.append((spent, record.search.objective.value if record.search else math.nan))
    choice = {
        "fraction": fraction,
        # Until the choice is made; the baselines' held-out items are for the report alone.
        "spent": spent + sum(r.scored_items.get("holdout", 0) for r in result.finalists),
        "with_report": result.item_evaluations,
        "candidate": told.index(winner),
        "search": winner.search.objective.value if winner.search else math.nan,
        "holdout": winner.holdout.objective.value if winner.holdout else math.nan,
        "winner": winner.label,
    }
    items = {record.number: _held_out(folder, record) for record in result.finalists}
    finalists = [
        _finalist(problem, record, items, result.winner.number) for record in result.finalists
    ]
    choice |= {key: finalists[0][key] for key in ("true", "tasks")}
    shutil.rmtree(folder)
    return {
        "stopped": "budget",
        "settings": data["search"],
        "candidates": candidates,
        "choices": [choice],
        "finalists": finalists,
        "recipe": dict(winner.recipe),
    }


def _held_out(folder: Path, record: TrialRecord) -> ItemScores:
    """Return what a finalist got on the held-out items."""
    return ItemScores.from_parquet(RunDirectory(folder).items(record.number, "holdout"))


def _finalist(
    problem: Problem, record: TrialRecord, items: Mapping[int, ItemScores], winner: int
) -> dict[str, Any]:
    """Return the scores of a finalist, for a look at how the winner is chosen.

    ``behind`` is the winner's held-out score minus its own and the error of that, paired.
    """
    scores = {"search": record.search, "holdout": record.holdout}
    known = {split: each.objective.value for split, each in scores.items() if each}
    found = problem.compare(items[winner], items[record.number])
    return {
        "name": record.label,
        **known,
        "behind": [found.difference, found.stderr],
        **problem.true_score(record.recipe),
    }


def _limit(problem: Problem, fraction: float, finalists: int) -> dict[str, int]:
    """Return the search settings that spend a share of the budget, finalists included."""
    tasks = len(problem.space.document.tasks)
    held_out = finalists * problem.protocol.holdout_items * tasks
    return {"items": round(fraction * problem.protocol.budget) - held_out}
