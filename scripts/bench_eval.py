"""Measures what scoring costs beside the model: its seconds over those of the batches alone.

One live model is scored on the search items of a space, as a worker does it. The same batches are
then pushed straight through the model's `forward` and `generate`, without lm-eval, prompts or
metrics. Both are repeated in turn, and the best of each counts.

    python scripts/bench_eval.py search_spaces/quickstart.yml
    python scripts/make_smollm2.py && python scripts/bench_eval.py search_spaces/smollm2.yml
"""

import argparse
import contextlib
import copy
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from benchmark_models import print_table

from evomerge.checkpoints import open_checkpoint
from evomerge.engine import Bank, materialize, plan_merge
from evomerge.evaluation import Evaluator, LiveModel, TaskSet
from evomerge.recipe import parse_recipe
from evomerge.search import find_models, parent_recipe
from evomerge.space import load_space

COLUMNS = ("space", "items", "batches", "scoring s", "batches alone s", "ratio", "first s")

Call = Callable[[], Any]


@contextlib.contextmanager
def recorded(model: Any, calls: list[Call]) -> Iterator[None]:
    """Keep what the model is called with, each outermost call once."""
    generate, inside = model.generate, False

    def keep_generate(*arguments: Any, **options: Any) -> Any:
        nonlocal inside
        # Stopping criteria remember where they stopped: a copy for each repeat.
        fresh = copy.deepcopy(options.get("stopping_criteria"))

        def again() -> Any:
            criteria = copy.deepcopy(fresh)
            return generate(*arguments, **{**options, "stopping_criteria": criteria})

        calls.append(again)
        inside = True
        try:
            return generate(*arguments, **options)
        finally:
            inside = False

    def keep_forward(_module: Any, arguments: Any, options: Any) -> None:
        if not inside:
            calls.append(lambda: model(*arguments, **options))

    handle = model.register_forward_pre_hook(keep_forward, with_kwargs=True)
    model.generate = keep_generate
    try:
        yield
    finally:
        handle.remove()
        del model.generate


def seconds(work: Call) -> float:
    """Return how long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(space_file: Path, repeats: int) -> dict[str, Any]:
    """Score the first parent of a space, and push its batches through the model."""
    space = load_space(space_file)
    document = space.document
    parents, _ = find_models(space)
    settings = document.evaluation
    tasks = TaskSet.load(
        document.tasks, settings, seed=document.search.seed, folder=space_file.parent
    )
    recipe = parse_recipe(parent_recipe(parents[0]))
    checkpoints = {parents[0]: open_checkpoint(parents[0])}
    plan = plan_merge(recipe, checkpoints)
    with tempfile.TemporaryDirectory() as folder:
        live = LiveModel(
            plan.config,
            plan.tokenizer.place(Path(folder)),
            settings=settings,
            generation_config=plan.generation_config,
        )
    materialize(plan, Bank(checkpoints), live.parameters_by_name(), seed=0)
    evaluator = Evaluator(tasks, live)
    calls: list[Call] = []
    first = seconds(lambda: evaluator.score("search"))
    with recorded(live.model, calls):
        evaluator.score("search")

    def alone() -> None:
        with torch.inference_mode():
            for call in calls:
                call()

    scoring, batches = [], []
    for _ in range(repeats):
        scoring.append(seconds(lambda: evaluator.score("search")))
        batches.append(seconds(alone))
    return {
        "space": space_file.name,
        "items": sum(len(ids) for ids in tasks.items("search").values()),
        "batches": len(calls),
        "scoring_seconds": min(scoring),
        "batches_seconds": min(batches),
        "ratio": min(scoring) / min(batches),
        "first_seconds": first,
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("spaces", type=Path, nargs="+", help="spaces whose models are there")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of both (5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(options.threads)
    results = [measure(space, options.repeats) for space in options.spaces]
    print_table(
        COLUMNS,
        [
            [
                found["space"],
                f"{found['items']:,}",
                f"{found['batches']:,}",
                f"{found['scoring_seconds']:.3f}",
                f"{found['batches_seconds']:.3f}",
                f"{found['ratio']:.2f}",
                f"{found['first_seconds']:.3f}",
            ]
            for found in results
        ],
    )
    if options.json:
        report = {
            "cpus": os.cpu_count(),
            "threads": options.threads,
            "machine": platform.platform(),
            "torch": torch.__version__,
            "results": results,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
