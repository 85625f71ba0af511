"""Compares the two backends on the baselines of a search space: same items, scores, seconds.

    .venv-vllm/bin/python scripts/bench_vllm.py search_spaces/quickstart.yml \
        --engine '{"enforce_eager": true, "kv_cache_memory_bytes": 67108864}'

The first candidate of each backend, which starts the model or the engine, is scored twice and
counted the second time. Needs vLLM.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.errors import EvomergeError
from evomerge.evaluation import ItemScores
from evomerge.search import worker_spec
from evomerge.search.baselines import baselines
from evomerge.space import Space, load_space
from evomerge.workers import Assignment, Failed, open_pool


def main() -> None:
    """Score every baseline with both backends and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("space", type=Path)
    parser.add_argument("--engine", type=json.loads, default={}, help="evaluation.vllm as JSON")
    parser.add_argument("--items", type=int, help="search items a task, in place of the space's")
    parser.add_argument("--dtype", help="evaluation.dtype, in place of the space's")
    options = parser.parse_args()
    try:
        space = load_space(options.space)
        changes: dict[str, Any] = {"vllm": {**space.document.evaluation.vllm, **options.engine}}
        if options.items is not None:
            changes["search_items"] = options.items
        if options.dtype is not None:
            changes["dtype"] = options.dtype
        results = {name: score(space, {**changes, "backend": name}) for name in ("hf", "vllm")}
    except EvomergeError as error:
        raise SystemExit(f"error: {error}") from error
    report(results)


Result = dict[str, tuple[ItemScores, dict[str, float]]]


def score(space: Space, changes: dict[str, Any]) -> Result:
    """Return the search scores of every baseline, and the seconds they took."""
    spec = worker_spec(space)
    evaluation = spec.evaluation.model_copy(update=changes)
    spec = replace(spec, evaluation=evaluation)
    chosen = baselines(space)
    found: Result = {}
    with open_pool(spec) as pool:
        started = time.perf_counter()
        for number, baseline in enumerate([chosen[0], *chosen]):
            pool.submit(Assignment(number, dict(baseline.recipe), "search"))
            outcome = pool.wait()
            if isinstance(outcome, Failed):
                raise SystemExit(f"error: {changes['backend']}, {baseline.name}: {outcome.reason}")
            if not number:
                print(
                    f"{changes['backend']}: first candidate {time.perf_counter() - started:.1f} s"
                )
            found[baseline.name] = outcome.scores, dict(outcome.seconds)
    return found


def report(results: dict[str, Result]) -> None:
    """Print one row a baseline."""
    print("| candidate | items | other scores | largest difference | hf merge + score s | vllm |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (ours, seconds) in results["vllm"].items():
        theirs, other = results["hf"][name]
        differences = np.concatenate(
            [
                np.abs(items.values - theirs.by_task[task].values)
                for task, items in ours.by_task.items()
            ]
        )
        times = [f"{s['materialize']:.2f} + {s['score']:.2f}" for s in (other, seconds)]
        print(
            f"| {name} | {len(differences)} | {int((differences > 1e-6).sum())} "
            f"| {differences.max():.2g} | {times[0]} | {times[1]} |"
        )


if __name__ == "__main__":
    main()
