"""Metrics that are no mean over items: lm-eval's own value, and an error all the same."""

import math
import os

import numpy as np
import pytest
from scipy import stats

from evomerge.errors import EvaluationError
from evomerge.evaluation import (
    EvaluationSettings,
    Evaluator,
    ItemScores,
    Objective,
    TaskItems,
    TaskSet,
    TaskSettings,
    compare,
)
from evomerge.evaluation.lm_eval_metrics import resolve_metric
from tests.evaluation.test_scoring import fill, live_model

METRICS = {
    "text": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "yes_no": ("acc", "f1", "mcc", "brier_score"),
    "gen": ("exact_match", "chrf"),
    "last_word": ("perplexity",),
    "rolling": ("nats", "pair", "half"),
}


@pytest.fixture(scope="module")
def scored(task_dir, checkpoint_a):
    """Scores of every metric, and what ``simple_evaluate`` says of the same items."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    settings = EvaluationSettings(
        task_dirs=[str(task_dir)], search_items=25, holdout_items=30, limit=58
    )
    wanted = [TaskSettings(name=name, metric=metrics[0]) for name, metrics in METRICS.items()]
    tasks = TaskSet.load(wanted, settings, seed=0)
    live = live_model(checkpoint_a, settings)
    fill(live, checkpoint_a)
    evaluator = Evaluator(tasks, live)
    ours = {}
    for place in range(max(map(len, METRICS.values()))):
        for name, metrics in METRICS.items():
            task = tasks.tasks[name]
            task.metric = resolve_metric(task._task, metrics[min(place, len(metrics) - 1)])
        for name, items in evaluator.score("search").by_task.items():
            ours[name, items.metric] = items
    theirs = simple_evaluate(
        model=live.lm,
        tasks=list(METRICS),
        task_manager=TaskManager(include_path=str(task_dir), include_defaults=False),
        samples={
            name: sorted(tasks.tasks[name].index(item) for item in items)
            for name, items in tasks.items("search").items()
        },
        bootstrap_iters=0,
    )
    return ours, theirs["results"]


@pytest.fixture(scope="module", autouse=True)
def in_the_task_folder(task_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(task_dir)
        yield


@pytest.mark.parametrize(
    ("task", "metric"), [(task, metric) for task, metrics in METRICS.items() for metric in metrics]
)
def test_the_score_is_simple_evaluates(scored, task, metric):
    ours, theirs = scored
    score = ours[task, metric].summary()
    assert score.value == pytest.approx(theirs[task][f"{metric},none"], rel=1e-12)
    assert score.items == 25
    assert 0 < score.stderr < math.inf


@pytest.mark.parametrize(
    ("task", "metric"), [("text", "word_perplexity"), ("text", "bits_per_byte"), ("yes_no", "mcc")]
)
def test_what_is_kept_survives_the_file(scored, task, metric, tmp_path):
    one = ItemScores({task: scored[0][task, metric]})
    one.to_parquet(tmp_path / "items.parquet")
    again = ItemScores.from_parquet(tmp_path / "items.parquet")
    assert again == one
    some = one.by_task[task].items[3:20]
    assert again.by_task[task].select(some).summary() == one.by_task[task].select(some).summary()


def weighted(seed: int, shift: float = 0.0, count: int = 300) -> ItemScores:
    rng = np.random.default_rng(seed)
    words = np.random.default_rng(99).integers(5, 60, size=count).astype(float)
    nats = -words * (2 + shift + rng.normal(scale=0.3, size=count))
    items = tuple(f"i{k}" for k in range(count))
    return ItemScores(
        {
            "t": TaskItems(
                "word_perplexity", False, items, nats, "weighted_perplexity", weights=words
            )
        }
    )


def perplexity(values, weights, axis=-1):
    return np.exp(-values.sum(axis) / weights.sum(axis))


def test_the_error_of_a_ratio_is_the_bootstraps():
    task = weighted(1).by_task["t"]
    reference = stats.bootstrap(
        (task.values, task.weights),
        perplexity,
        paired=True,
        vectorized=True,
        n_resamples=4000,
        rng=np.random.default_rng(0),
    )
    assert task.summary().stderr == pytest.approx(reference.standard_error, rel=0.05)


def test_the_paired_comparison_of_a_ratio_is_the_bootstraps():
    one, two = weighted(1), weighted(2, shift=0.05)
    first, second = one.by_task["t"], two.by_task["t"]

    def difference(values, others, weights, axis=-1):
        return perplexity(others, weights, axis) - perplexity(values, weights, axis)

    reference = stats.bootstrap(
        (first.values, second.values, first.weights),
        difference,
        paired=True,
        vectorized=True,
        n_resamples=4000,
        rng=np.random.default_rng(0),
    )
    result = compare(one, two, Objective({"t": 1.0}))
    assert result.difference == pytest.approx(
        difference(first.values, second.values, first.weights)
    )
    assert result.difference > 0
    assert result.stderr == pytest.approx(reference.standard_error, rel=0.06)
    low, high = reference.confidence_interval
    assert result.interval == pytest.approx([low, high], abs=0.15 * (high - low))


def test_an_odd_metric_is_resampled_and_the_seed_decides():
    rng = np.random.default_rng(0)
    items = tuple(f"i{k}" for k in range(100))
    values = rng.normal(size=100)
    one = ItemScores({"t": TaskItems("m", True, items, values, "median")})
    two = ItemScores({"t": TaskItems("m", True, items, values - 1.0, "median")})
    assert one.tasks(seed=1) == one.tasks(seed=1) != one.tasks(seed=2)
    assert one.tasks()["t"].stderr == pytest.approx(1.25 / 10, rel=0.4)
    result = compare(one, two, Objective({"t": 1.0}))
    assert result.difference == pytest.approx(1.0)
    assert result.stderr == pytest.approx(0, abs=1e-12)
    assert compare(two, two, Objective({"t": 1.0})).p_value == 1


def test_the_order_of_the_items_does_not_matter_to_the_bootstrap():
    items = tuple(f"i{k}" for k in range(60))
    values = np.random.default_rng(3).normal(size=60)
    one = ItemScores({"t": TaskItems("m", True, items, values, "median")})
    assert one.select({"t": items[::-1]}).tasks() == one.tasks()


def test_an_aggregation_that_fails_is_one_message(tmp_path):
    (tmp_path / "mine.py").write_text("def broken(kept):\n    raise ValueError('no luck')\n")
    name = f"{tmp_path / 'mine.py'}:broken"
    task = TaskItems("m", True, ("a", "b"), np.zeros(2), name)
    with pytest.raises(EvaluationError, match=r"failed on 2 items: ValueError: no luck"):
        task.summary()
    missing = TaskItems("m", True, ("a", "b"), np.zeros(2), f"{tmp_path / 'gone.py'}:f")
    with pytest.raises(EvaluationError, match=r"gone\.py:f' cannot be loaded"):
        missing.summary()


def test_an_edited_aggregation_counts_at_once(tmp_path):
    for place, text in enumerate(("1.0", "20.0")):
        (tmp_path / "mine.py").write_text(f"def agg(kept):\n    return {text}\n")
        os.utime(tmp_path / "mine.py", (place, place))
        task = TaskItems("m", True, ("a", "b"), np.zeros(2), f"{tmp_path / 'mine.py'}:agg")
        assert task.summary().value == float(text)


def test_a_summary_is_computed_once(tmp_path):
    (tmp_path / "mine.py").write_text(
        "calls = []\ndef agg(kept):\n    calls.append(kept)\n    return float(len(calls))\n"
    )
    task = TaskItems("m", True, ("a", "b"), np.zeros(2), f"{tmp_path / 'mine.py'}:agg")
    assert task.summary() is task.summary()
    assert task.summary(1) is not task.summary()
    assert task.select(["a", "b"]).summary() is not task.summary()


def test_a_perplexity_without_a_number_is_an_error_of_the_objective():
    items, nats = tuple("abc"), np.array([-900.0, -800.0, -1.0])
    bad = TaskItems("perplexity", False, items, nats * 2, "perplexity")
    assert bad.summary().value == math.inf
    with pytest.raises(EvaluationError, match=r"task 't': perplexity is inf, which is no score"):
        Objective({"t": 1.0}).estimate(ItemScores({"t": bad}))
    good = TaskItems("perplexity", False, items, nats / 2, "perplexity")
    with pytest.raises(EvaluationError, match=r"perplexity is inf"):
        compare(ItemScores({"t": good}), ItemScores({"t": bad}), Objective({"t": 1.0}))
    assert math.isfinite(Objective({"t": 1.0}).estimate(ItemScores({"t": good})).value)
