"""Models, tasks and candidates for the tests with a real vLLM engine."""

from importlib.util import find_spec

import pytest

from evomerge.evaluation import EvaluationSettings, TaskSettings
from evomerge.evaluation.lm_eval_requests import run_requests
from evomerge.workers import Assignment, Scored, WorkerSpec
from tests.evaluation.conftest import make_checkpoint

NEEDS_VLLM = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed"),
    pytest.mark.filterwarnings("default"),  # vLLM's own
]

ENGINE = {"enforce_eager": True, "kv_cache_memory_bytes": 2**26, "max_num_seqs": 16}
SHAPE = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "intermediate_size": 96,
}
TASKS = (
    TaskSettings(name="gen", metric="exact_match"),
    TaskSettings(name="gen_filters", metric="exact_match,letter", num_fewshot=18),
    TaskSettings(name="choice", metric="acc_norm", num_fewshot=2),
    TaskSettings(name="last_word", metric="acc"),
    TaskSettings(name="rolling", metric="nats"),
)


def make_models(folder, **overrides):
    return {
        name: str(make_checkpoint(folder / name, seed, 30 + 10 * seed, **SHAPE, **overrides))
        for seed, name in enumerate("abc", start=1)
    }


def make_worker(backend, models, tasks, *, wanted=TASKS, device="cpu", **settings):
    from evomerge.workers.worker import Worker

    evaluation = EvaluationSettings(
        **{
            "backend": backend,
            "task_dirs": [tasks],
            "search_items": 12,
            "holdout_items": 12,
            "vllm": ENGINE,
            **settings,
        }
    )
    return Worker(WorkerSpec(tuple(models.values()), wanted, evaluation, 3, ".", device))


def candidates(models):
    a, b, c = models.values()

    def with_weights(**parameters):
        return [{"model": m, "parameters": parameters} for m in (a, b)]

    return {
        "parent": {"merge_method": "linear", "models": with_weights(weight=1.0)[:1]},
        "mixed": {
            "merge_method": "task_arithmetic",
            "base_model": c,
            "models": with_weights(weight=0.6),
            "dtype": "bfloat16",
        },
        "random": {
            "merge_method": "dare_ties",
            "base_model": c,
            "models": with_weights(weight=0.7, density=0.6),
            "dtype": "bfloat16",
        },
        "between": {
            "merge_method": "slerp",
            "base_model": b,
            "models": [{"model": a}],
            "parameters": {"t": 0.4},
            "out_dtype": "float16",
        },
        # Its squares overflow, so that every token is equally probable: none is the greedy one.
        "dead": scaled(models, 1e30),
    }


def answers(worker, recipe):
    """Return the scores of a recipe's search items, and what the model answered each request."""
    outcome = worker.evaluate(Assignment(0, recipe, "search"))
    assert isinstance(outcome, Scored), outcome
    evaluator = worker._evaluator
    items = worker._tasks.items("search")
    chosen = {task: {i: evaluator._requests[task][i] for i in ids} for task, ids in items.items()}
    with evaluator.live_model.scoring():
        answered = run_requests(evaluator.live_model.lm, chosen)
    responses = {
        (task, item, number): instance.resps[0]
        for task, by_item in answered.items()
        for item, instances in by_item.items()
        for number, instance in enumerate(instances)
    }
    return outcome.scores, responses


def score(worker, recipe):
    return worker.evaluate(Assignment(0, recipe, "search"))


def scaled(models, weight, **keys):
    """Return a recipe that multiplies every tensor of a parent."""
    entry = {"model": models["b"], "parameters": {"weight": weight}}
    parameters = {"normalize": False}
    return {"merge_method": "linear", "models": [entry], "parameters": parameters, **keys}
