"""Smooth metrics: the gold answer's log-probability, beside the reported metric."""

import math

import pytest
import torch

from evomerge.errors import EvaluationError
from evomerge.evaluation import (
    EvaluationSettings,
    Evaluator,
    ItemScores,
    TaskSet,
    TaskSettings,
)
from tests.evaluation.test_scoring import fill, live_model

WANTED = {
    "gen": ("exact_match", "gold_bits_per_byte"),
    "choice": ("acc_norm", "margin"),
    "yes_no": ("acc", "gold_bits_per_byte"),
    "last_word": ("acc", "gold_bits_per_byte"),
}


def load(task_dir, wanted, **keys):
    settings = EvaluationSettings(
        task_dirs=[str(task_dir)], search_items=20, holdout_items=20, **keys
    )
    tasks = [TaskSettings(name=n, metric=metric, smooth=s) for n, (metric, s) in wanted.items()]
    return TaskSet.load(tasks, settings, seed=0)


@pytest.fixture(scope="module")
def evaluator(task_dir, checkpoint_a):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(task_dir)
        task_set = load(task_dir, WANTED)
        live = live_model(checkpoint_a, task_set.settings)
        fill(live, checkpoint_a)
        yield Evaluator(task_set, live)


@pytest.fixture(scope="module")
def scores(evaluator):
    return evaluator.score("search")


def likelihood(live, prompt, answer):
    """Nats of an answer after a prompt, straight from the model."""
    tokenizer = live.lm.tokenizer
    before = tokenizer(prompt)["input_ids"]
    after = tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = live.model(torch.tensor([before + after])).logits[0].float()
    steps = torch.log_softmax(logits, -1)[len(before) - 1 : -1]
    return float(steps.gather(1, torch.tensor(after)[:, None]).sum())


def test_gold_answers_cost_what_the_model_says(evaluator, scores):
    live = evaluator.live_model
    for name in ("gen", "last_word"):
        items = scores.smooth[name]
        assert (items.metric, items.higher_is_better) == ("gold_bits_per_byte", False)
        for item, value in zip(items.items, items.values, strict=True):
            document = evaluator.task_set.tasks[name].document(item)
            nats = likelihood(live, f"{document['text']}>", document["answer"])
            assert value == pytest.approx(-nats / math.log(2), rel=1e-4)


def test_choices(evaluator, scores):
    live = evaluator.live_model
    margins, bits = scores.smooth["choice"], scores.smooth["yes_no"]
    assert margins.higher_is_better
    for item, value in zip(margins.items, margins.values, strict=True):
        document = evaluator.task_set.tasks["choice"].document(item)
        nats = [likelihood(live, f"{document['text']}>", c) / len(c) for c in document["choices"]]
        gold = nats.pop(document["gold"])
        assert value == pytest.approx(gold - max(nats), abs=1e-4)
    for item, value in zip(bits.items, bits.values, strict=True):
        document = evaluator.task_set.tasks["yes_no"].document(item)
        gold = "ab"[document["gold"] % 2]
        nats = likelihood(live, f"{document['text']}>", gold)
        assert value == pytest.approx(-nats / math.log(2), rel=1e-4)


def test_probabilities(task_dir, evaluator, monkeypatch):
    monkeypatch.chdir(task_dir)
    wanted = {"gen": ("exact_match", "gold_probability"), "choice": ("acc", "gold_probability")}
    tasks = load(task_dir, wanted)
    live = evaluator.live_model
    smooth = Evaluator(tasks, live).score("search").smooth
    assert all(items.higher_is_better for items in smooth.values())
    for item, value in zip(smooth["gen"].items, smooth["gen"].values, strict=True):
        document = tasks.tasks["gen"].document(item)
        nats = likelihood(live, f"{document['text']}>", document["answer"])
        assert value == pytest.approx(math.exp(nats), rel=1e-4)
    for item, value in zip(smooth["choice"].items, smooth["choice"].values, strict=True):
        document = tasks.tasks["choice"].document(item)
        shares = [
            math.exp(likelihood(live, f"{document['text']}>", choice))
            for choice in document["choices"]
        ]
        assert value == pytest.approx(shares[document["gold"]] / sum(shares), rel=1e-4)


def test_a_margin_above_zero_is_a_right_answer(scores):
    right = scores.by_task["choice"].values == 1
    assert right.any()
    assert ((scores.smooth["choice"].values > 0) == right).all()


def test_the_reported_metric_is_as_without(task_dir, scores, evaluator, monkeypatch):
    monkeypatch.chdir(task_dir)
    plain = load(task_dir, {name: (metric, None) for name, (metric, _) in WANTED.items()})
    alone = Evaluator(plain, evaluator.live_model).score("search")
    assert alone.by_task == scores.by_task
    assert not alone.smooth
    assert scores.guiding().by_task == scores.smooth


def test_the_file_keeps_both(scores, tmp_path):
    scores.to_parquet(tmp_path / "items.parquet")
    assert ItemScores.from_parquet(tmp_path / "items.parquet") == scores


@pytest.mark.parametrize(
    ("name", "metric", "taken"),
    [
        ("gen", "exact_match", True),  # answers of one letter
        ("choice", "acc_norm", True),
        ("yes_no", "acc", True),
        ("last_word", "perplexity", False),
        ("last_word", "acc", False),  # it is no choice: a forward pass and little gained
        ("text", "bits_per_byte", False),
    ],
)
def test_auto_takes_a_guide_where_it_costs_little(task_dir, monkeypatch, name, metric, taken):
    monkeypatch.chdir(task_dir)
    smooth = load(task_dir, {name: (metric, "auto")}).tasks[name].smooth
    assert (smooth is not None) == taken
    assert smooth is None or (smooth.kind, smooth.is_blended) == ("gold_probability", True)


def test_auto_leaves_long_answers_alone(task_dir, monkeypatch):
    monkeypatch.chdir(task_dir)
    monkeypatch.setattr("evomerge.evaluation.lm_eval_smooth.SHORT_ANSWER", 0)
    assert load(task_dir, {"gen": ("exact_match", "auto")}).tasks["gen"].smooth is None
    assert load(task_dir, {"gen": ("exact_match", "blend")}).tasks["gen"].smooth is not None


def test_a_blend_knows_items_without_a_gold_answer(task_dir, evaluator, monkeypatch):
    monkeypatch.chdir(task_dir)
    for kind, name in (("blend", "gen"), ("gold_probability", "gen")):
        tasks = load(task_dir, {name: ("exact_match", kind)})
        smooth = tasks.tasks[name].smooth
        monkeypatch.setattr(smooth._task, "doc_to_target", lambda _: "")
        if kind == "blend":
            assert (
                not Evaluator(tasks, evaluator.live_model).score("search").smooth[name].values.any()
            )
        else:
            with pytest.raises(EvaluationError, match="an item without a gold answer"):
                Evaluator(tasks, evaluator.live_model)


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("gen", ("exact_match", "margin"), "generate_until; gold_bits_per_byte and"),
        ("last_word", ("acc", "margin"), "is for tasks of the type multiple_choice"),
        ("last_word", ("perplexity", "blend"), "'perplexity' is aggregated by 'perplexity'"),
        ("text", ("bits_per_byte", "gold_bits_per_byte"), "this one is loglikelihood_rolling$"),
    ],
)
def test_refusals(task_dir, monkeypatch, name, wanted, message):
    monkeypatch.chdir(task_dir)
    with pytest.raises(EvaluationError, match=message):
        load(task_dir, {name: wanted})


def test_templates_are_rendered_once(task_dir, checkpoint_a, monkeypatch):
    """They would cost as much as the forward passes of a small model, at each candidate."""
    import jinja2

    monkeypatch.chdir(task_dir)
    settings = EvaluationSettings(task_dirs=[str(task_dir)], search_items=8, holdout_items=8)
    wanted = [
        TaskSettings(name=name, metric=metric, smooth=smooth)
        for name, metric, smooth in (
            ("choice", "acc", "auto"),
            ("yes_no", "acc", "margin"),
            ("gen", "exact_match", "gold_bits_per_byte"),
        )
    ]
    tasks = TaskSet.load(wanted, settings, seed=0)
    live = live_model(checkpoint_a, settings)
    fill(live, checkpoint_a)
    evaluator = Evaluator(tasks, live)
    first = evaluator.score("search")
    compiled = []
    compile_template = jinja2.Environment.from_string

    def seen(self, source, *arguments, **options):
        compiled.append(source)
        return compile_template(self, source, *arguments, **options)

    monkeypatch.setattr(jinja2.Environment, "from_string", seen)
    assert evaluator.score("search") == first
    assert compiled == []
