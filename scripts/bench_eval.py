"""Measures what scoring costs beside the model: its seconds over those of the batches alone.

One live model is scored on the search items of a space, as a worker does it. The same batches are
then pushed straight through the model's `forward` and `generate`, without lm-eval, prompts or
metrics. Both are repeated in turn, and the best of each counts: of one thread the processor's
seconds, of several the clock's. With ``--compile`` the model is
scored by compiled forward passes too (``evaluation.compile``), in turn with the others.

    python scripts/bench_eval.py search_spaces/quickstart.yml
    python scripts/bench_eval.py search_spaces/quickstart.yml --compile
    python scripts/make_smollm2.py && python scripts/bench_eval.py search_spaces/smollm2.yml
"""

import argparse
import contextlib
import copy
import json
import math
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
from evomerge.evaluation import Evaluator, ItemScores, LiveModel, TaskSet
from evomerge.recipe import parse_recipe
from evomerge.search import find_models, parent_recipe
from evomerge.space import load_space

COLUMNS = ("space", "items", "batches", "scoring s", "batches alone s", "ratio", "first s")
COMPILED = ("space", "scoring s", "compiled s", "ratio", "compiling s", "pays after", "other items")

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


def seconds(work: Call, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long something takes."""
    start = clock()
    work()
    return clock() - start


def busy_seconds(work: Call) -> float:
    """Return the processor's seconds of one thread, which others on the machine do not stretch."""
    return seconds(work, time.process_time if torch.get_num_threads() == 1 else time.perf_counter)


def measure(space_file: Path, repeats: int, *, compiled: bool) -> dict[str, Any]:
    """Score the first parent of a space, and push its batches through the model."""
    space = load_space(space_file)
    document = space.document
    parents, _ = find_models(space)
    settings = document.evaluation.model_copy(update={"compile": compiled})
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

    def score() -> ItemScores:
        with live.uncompiled():
            return evaluator.score("search")

    first = seconds(score)
    with recorded(live.model, calls):
        usual = score()

    def alone() -> None:
        with torch.inference_mode(), live.uncompiled():
            for call in calls:
                call()

    first_compiled = seconds(lambda: evaluator.score("search")) if compiled else 0.0
    scoring, batches, quick = [], [], []
    for _ in range(repeats):
        scoring.append(busy_seconds(score))
        batches.append(busy_seconds(alone))
        if compiled:
            quick.append(busy_seconds(lambda: evaluator.score("search")))
    found = {
        "space": space_file.name,
        "items": sum(len(ids) for ids in tasks.items("search").values()),
        "batches": len(calls),
        "scoring_seconds": min(scoring),
        "batches_seconds": min(batches),
        "ratio": min(scoring) / min(batches),
        "first_seconds": first,
    }
    if compiled:
        saved = min(scoring) - min(quick)
        found |= {
            "compiled_seconds": min(quick),
            "compiled_ratio": min(quick) / min(scoring),
            "compiling_seconds": first_compiled - min(quick),
            "pays_after": math.ceil(first_compiled / saved) if saved > 0 else None,
            "other_items": num_other(usual, evaluator.score("search")),
        }
    return found


def num_other(one: ItemScores, two: ItemScores) -> int:
    """Return how many items the metric gives another value."""
    return sum(
        int((task.values != two.by_task[name].values).sum()) for name, task in one.by_task.items()
    )


def overhead_row(found: dict[str, Any]) -> list[str]:
    """Return a row of the first table."""
    return [
        found["space"],
        f"{found['items']:,}",
        f"{found['batches']:,}",
        f"{found['scoring_seconds']:.3f}",
        f"{found['batches_seconds']:.3f}",
        f"{found['ratio']:.2f}",
        f"{found['first_seconds']:.3f}",
    ]


def compiled_row(found: dict[str, Any]) -> list[str]:
    """Return a row of the second table; it pays after so many candidates."""
    pays = found["pays_after"]
    return [
        found["space"],
        f"{found['scoring_seconds']:.3f}",
        f"{found['compiled_seconds']:.3f}",
        f"{found['compiled_ratio']:.2f}",
        f"{found['compiling_seconds']:.0f}",
        "never" if pays is None else f"{pays:,}",
        f"{found['other_items']:,}",
    ]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("spaces", type=Path, nargs="+", help="spaces whose models are there")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of both (5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--compile", action="store_true", help="compiled forward passes too")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(options.threads)
    results = [
        measure(space, options.repeats, compiled=options.compile) for space in options.spaces
    ]
    print_table(COLUMNS, [overhead_row(found) for found in results])
    if options.compile:
        print_table(COMPILED, [compiled_row(found) for found in results])
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
