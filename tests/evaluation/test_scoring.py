"""Per-item results are lm-eval's own, and the same bits each time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evomerge.errors import EvaluationError
from evomerge.evaluation import (
    EvaluationSettings,
    Evaluator,
    LiveModel,
    TaskSet,
    TaskSettings,
    content_id,
)

METRICS = {
    "gen": "exact_match",
    "gen_filters": "exact_match,letter",
    "choice": "acc_norm",
    "last_word": "acc",
    "rolling": "nats",
}


def settings_for(task_dir: Path, **keys: object) -> EvaluationSettings:
    return EvaluationSettings(
        **{"task_dirs": [str(task_dir)], "search_items": 20, "holdout_items": 30, **keys}
    )


def load_set(task_dir: Path, names=tuple(METRICS), seed: int = 3, **keys: object) -> TaskSet:
    tasks = [TaskSettings(name=name, metric=METRICS[name]) for name in names]
    return TaskSet.load(tasks, settings_for(task_dir, **keys), seed=seed)


def live_model(checkpoint: Path, settings: EvaluationSettings) -> LiveModel:
    config = json.loads((checkpoint / "config.json").read_text())
    return LiveModel(config, checkpoint, settings=settings)


def fill(live: LiveModel, checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    live.check_names(weights)
    named = live.parameters_by_name()
    for name, tensor in weights.items():
        named[name].copy_(tensor)


@pytest.fixture(scope="module")
def task_set(task_dir) -> TaskSet:
    return load_set(task_dir)


@pytest.fixture(scope="module")
def live(task_set, checkpoint_a) -> LiveModel:
    return live_model(checkpoint_a, task_set.settings)


@pytest.fixture(scope="module")
def evaluator(task_set, live) -> Evaluator:
    return Evaluator(task_set, live)


def by_lm_eval(task_set: TaskSet, split, checkpoint: Path, task_dir: Path, seed=3, **keys):
    """Score a checkpoint on the same items with ``simple_evaluate``, loaded from disk."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM

    lm = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32),
        tokenizer=str(checkpoint),
        batch_size=64,
    )
    indices = {
        name: sorted(task_set.tasks[name].index(item) for item in items)
        for name, items in task_set.items(split).items()
    }
    result = simple_evaluate(
        model=lm,
        tasks=list(indices),
        task_manager=TaskManager(include_path=str(task_dir), include_defaults=False),
        samples=indices,
        log_samples=True,
        bootstrap_iters=0,
        fewshot_random_seed=seed,
        **keys,
    )
    values = {}
    for name, samples in result["samples"].items():
        metric, _, wanted = METRICS[name].partition(",")
        values[name] = {
            content_id(sample["doc"]): float(sample[metric])
            for sample in samples
            if sample["filter"] == (wanted or "none")
        }
    return values


def as_dict(scores):
    return {
        name: dict(zip(task.items, task.values.tolist(), strict=True))
        for name, task in scores.by_task.items()
    }


@pytest.mark.parametrize("split", ["search", "holdout"])
def test_items_are_those_of_simple_evaluate(split, evaluator, checkpoint_a, task_dir, monkeypatch):
    monkeypatch.chdir(task_dir)
    task_set, live = evaluator.task_set, evaluator.live_model
    fill(live, checkpoint_a)
    scores = evaluator.score(split)
    assert as_dict(scores) == by_lm_eval(task_set, split, checkpoint_a, task_dir)
    for name, task in scores.by_task.items():
        assert len(set(task.values.tolist())) > 1, f"{name} tells nothing apart"


def test_few_shot_and_chat_template_are_those_of_simple_evaluate(
    checkpoint_a, task_dir, monkeypatch
):
    monkeypatch.chdir(task_dir)
    keys = {
        "apply_chat_template": True,
        "fewshot_as_multiturn": True,
        "system_instruction": "be brief",
        "num_fewshot": 3,
    }
    gen = {"max_gen_toks": 6}
    names = ("gen_filters", "choice", "last_word", "rolling")
    task_set = load_set(task_dir, names, holdout_items=20, gen_kwargs=gen, **keys)
    live = live_model(checkpoint_a, task_set.settings)
    fill(live, checkpoint_a)
    evaluator = Evaluator(task_set, live)
    ours = as_dict(evaluator.score("search", None))
    ours_too = as_dict(evaluator.score("holdout", None))
    # lm-eval draws examples document by document, so it gets the same documents in one go.
    both = {name: {**ours[name], **ours_too[name]} for name in ours}
    monkeypatch.setattr(
        task_set,
        "items",
        lambda _split: {name: tuple(items) for name, items in both.items()},
    )
    assert both == by_lm_eval(task_set, "search", checkpoint_a, task_dir, gen_kwargs=gen, **keys)


def test_overwriting_in_place_and_back_gives_the_same_bits(
    live, evaluator, checkpoint_a, checkpoint_b
):
    fill(live, checkpoint_a)
    first, again = evaluator.score("search"), evaluator.score("search")
    fill(live, checkpoint_b)
    other = evaluator.score("search")
    fill(live, checkpoint_a)
    assert first == again == evaluator.score("search")
    assert first != other


def test_some_items_only(live, evaluator, task_set, checkpoint_a):
    fill(live, checkpoint_a)
    some = {"gen": task_set.items("search")["gen"][3:9], "last_word": ()}
    scores = evaluator.score("search", some)
    assert {name: task.items for name, task in scores.by_task.items()} == {"gen": some["gen"]}
    assert scores == evaluator.score("search").select({"gen": some["gen"]})
    with pytest.raises(EvaluationError, match="no holdout item"):
        evaluator.score("holdout", some)
    with pytest.raises(EvaluationError, match=r"no task 'gem'.*did you mean 'gen'"):
        evaluator.score("search", {"gem": ()})


def test_order_and_sign(live, evaluator, task_set, checkpoint_a):
    fill(live, checkpoint_a)
    scores = evaluator.score("search")
    for name, items in task_set.items("search").items():
        assert scores.by_task[name].items == items
    assert not scores.by_task["rolling"].higher_is_better
    estimate = task_set.objective.estimate(scores)
    values = {name: score.value for name, score in scores.tasks().items()}
    nats = values.pop("rolling")
    assert estimate.value == pytest.approx((sum(values.values()) - nats) / 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["gen", "choice", "last_word", "rolling"])
def test_damaged_weights_are_an_error_and_no_score(bad, name, evaluator, checkpoint_a):
    task_set, live = evaluator.task_set, evaluator.live_model
    fill(live, checkpoint_a)
    live.parameters_by_name()["model.norm.weight"][3] = bad
    items = {name: task_set.items("search")[name]}
    with pytest.raises(EvaluationError, match="overflow or are damaged"):
        evaluator.score("search", items)
    fill(live, checkpoint_a)
    assert evaluator.score("search", items).num_items == 20


def test_prompts_that_do_not_fit_are_told_once_a_task(task_dir, checkpoint_a, caplog):
    names = ("gen_filters", "choice", "last_word", "rolling")
    task_set = load_set(task_dir, names, num_fewshot=3, max_length=32, holdout_items=20)
    live = live_model(checkpoint_a, task_set.settings)
    evaluator = Evaluator(task_set, live)
    told = {record.args[0]: record.args[1:] for record in caplog.records}
    assert "lose their beginning; fewer few-shot examples" in caplog.text
    for name, own in told.items():
        texts = []
        for requests in evaluator._requests[name].values():
            for each in requests:
                is_answer = each.request_type == "generate_until"
                text, free = (each.args[0], 4) if is_answer else ("".join(each.args), -1)
                texts.append(1 + len(text) + free)  # a token a letter, and one before them
        assert own == (sum(length > 32 for length in texts), len(texts), 32)
    assert set(told) == {"gen_filters", "choice", "last_word"}
    caplog.clear()
    Evaluator(task_set, live)
    assert not caplog.records


def test_scoring_is_silent(live, evaluator, checkpoint_a, capfd, caplog):
    fill(live, checkpoint_a)
    evaluator.score("search")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_loading_is_silent(task_dir, checkpoint_a, capfd):
    task_set = load_set(task_dir, ("gen", "choice"), seed=11)
    Evaluator(task_set, live_model(checkpoint_a, task_set.settings))
    assert capfd.readouterr() == ("", "")


def test_the_library_generators_are_left_alone(live, evaluator):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    evaluator.score("search")
    assert torch.equal(torch.rand(3), expected)


def test_another_process_gives_the_same_bits(live, evaluator, task_dir, checkpoint_a, tmp_path):
    program = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.evaluation import test_scoring as t
torch.set_num_threads(1)
tasks = t.load_set(Path({str(task_dir)!r}))
live = t.live_model(Path({str(checkpoint_a)!r}), tasks.settings)
t.fill(live, Path({str(checkpoint_a)!r}))
t.Evaluator(tasks, live).score("search").to_parquet(Path({str(tmp_path / "x.parquet")!r}))
"""
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": "7"}, check=True
    )
    fill(live, checkpoint_a)
    scores = evaluator.score("search")
    assert type(scores).from_parquet(tmp_path / "x.parquet") == scores


def test_sampled_answers_are_the_same_each_time(task_dir, checkpoint_a):
    sampling = {"do_sample": True, "temperature": 1.0}
    task_set = load_set(task_dir, ("gen_filters",), gen_kwargs=sampling)
    live = live_model(checkpoint_a, task_set.settings)
    fill(live, checkpoint_a)
    evaluator = Evaluator(task_set, live)
    first = evaluator.score("search")
    torch.manual_seed(99)
    assert evaluator.score("search") == first
    greedy = load_set(task_dir, ("gen_filters",))
    assert Evaluator(greedy, live).score("search") != first


def test_another_live_model_gets_the_same_prompts(task_set, evaluator, live, checkpoint_a):
    other = live_model(checkpoint_a, task_set.settings)
    fill(other, checkpoint_a)
    fill(live, checkpoint_a)
    assert Evaluator(task_set, other).score("search") == evaluator.score("search")
