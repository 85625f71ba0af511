import math
import pickle

import numpy as np
import pytest
from scipy import stats

from evomerge.errors import EvaluationError
from evomerge.evaluation import (
    ItemScores,
    Objective,
    TaskItems,
    compare,
    mean,
    standard_error,
)


def scores(seed: int, *, count: int = 50, shift: float = 0.0, higher: bool = True) -> ItemScores:
    rng = np.random.default_rng(seed)
    items = tuple(f"i{k}" for k in range(count))
    others = tuple(f"j{k}" for k in range(20))
    return ItemScores(
        {
            "a": TaskItems("acc", True, items, rng.normal(size=count) + shift),
            "b": TaskItems("nats", higher, others, rng.normal(size=20) + shift),
        }
    )


def test_mean_and_standard_error_are_scipys():
    values = np.random.default_rng(0).normal(size=101)
    assert mean(values) == pytest.approx(values.mean())
    assert standard_error(values) == pytest.approx(stats.sem(values))
    assert math.isnan(standard_error([1.0]))
    assert standard_error([0.5, 0.5]) == 0
    with pytest.raises(ValueError, match="at least one item"):
        mean([])


def test_mean_does_not_depend_on_the_order():
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(1000) ** 0.3
    assert mean(values) == mean(values[::-1]) == mean(np.sort(values))


def test_objective_is_the_weighted_sum_with_its_error():
    one = scores(1, higher=False)
    estimate = Objective({"a": 0.75, "b": 0.25}).estimate(one)
    a, b = (one.by_task[name].values for name in "ab")
    assert estimate.value == pytest.approx(0.75 * a.mean() - 0.25 * b.mean())
    assert estimate.stderr == pytest.approx(math.hypot(0.75 * stats.sem(a), 0.25 * stats.sem(b)))
    assert estimate.items == 70


def test_objective_names_a_task_that_was_not_scored():
    with pytest.raises(EvaluationError, match="'c' was not scored"):
        Objective({"c": 1.0}).estimate(scores(1))


def test_comparison_of_one_task_is_the_paired_t_test():
    one, two = scores(1, shift=0.3), scores(2)
    result = compare(one, two, Objective({"a": 2.0}))
    a, b = one.by_task["a"].values, two.by_task["a"].values
    reference = stats.ttest_rel(a, b)
    assert result.difference == pytest.approx(2 * (a - b).mean())
    assert result.p_value == pytest.approx(reference.pvalue)
    assert result.interval == pytest.approx(
        [2 * bound for bound in reference.confidence_interval(0.95)]
    )
    assert result.items == 50


def test_comparison_of_two_tasks_is_welchs():
    """With weights 1 and -1 the combination is Welch's test between the per-item differences."""
    one, two = scores(1, shift=0.3), scores(2)
    result = compare(one, two, Objective({"a": 1.0, "b": -1.0}))
    first = one.by_task["a"].values - two.by_task["a"].values
    second = one.by_task["b"].values - two.by_task["b"].values
    reference = stats.ttest_ind(first, second, equal_var=False)
    assert result.p_value == pytest.approx(reference.pvalue)
    assert result.difference / result.stderr == pytest.approx(reference.statistic)
    assert result.interval == pytest.approx(list(reference.confidence_interval(0.95)))


def test_comparison_pairs_by_item_and_not_by_place():
    one, two = scores(1), scores(2)
    order = list(reversed(two.by_task["a"].items))
    shuffled = two.select({"a": order, "b": two.by_task["b"].items})
    objective = Objective({"a": 0.5, "b": 0.5})
    assert compare(one, shuffled, objective) == compare(one, two, objective)


def test_comparison_needs_the_same_items():
    with pytest.raises(EvaluationError, match=r"same items: task 'a' has 50 items .* and 40"):
        compare(scores(1), scores(2, count=40), Objective({"a": 1.0}))


def test_comparison_with_itself():
    result = compare(scores(1), scores(1), Objective({"a": 1.0, "b": 1.0}))
    assert (result.difference, result.stderr, result.interval, result.p_value) == (0, 0, (0, 0), 1)


def test_scores_are_frozen_and_picklable():
    one = scores(1)
    with pytest.raises(ValueError, match="read-only"):
        one.by_task["a"].values[0] = 1.0
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301
    assert one != scores(2)
    assert one.num_items == 70
    assert one.tasks()["b"].items == 20


def test_scores_refuse_a_wrong_count_and_a_repeated_item():
    with pytest.raises(ValueError, match="2 items need as many values"):
        TaskItems("acc", True, ("x", "y"), np.zeros(3))
    with pytest.raises(ValueError, match="once"):
        TaskItems("acc", True, ("x", "x"), np.zeros(2))


def test_merge_and_select_are_inverse():
    whole = scores(1)
    first = whole.select({"a": whole.by_task["a"].items[:10]})
    rest = whole.select({"a": whole.by_task["a"].items[10:], "b": whole.by_task["b"].items})
    assert first.merge(rest) == whole
    with pytest.raises(ValueError, match="once"):
        first.merge(whole)


def test_parquet_round_trip(tmp_path):
    one = scores(1, higher=False)
    path = tmp_path / "trial.parquet"
    one.to_parquet(path)
    assert ItemScores.from_parquet(path) == one
    scores(2).to_parquet(path)
    assert ItemScores.from_parquet(path) == scores(2)
    assert [file.name for file in tmp_path.iterdir()] == ["trial.parquet"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "trial.parquet"
    scores(1).to_parquet(path)
    before = path.read_bytes()

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        scores(2).to_parquet(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "trial.parquet"
    path.write_bytes(b"nothing")
    with pytest.raises(EvaluationError, match=r"trial\.parquet: not a file of per-item results"):
        ItemScores.from_parquet(path)


def test_an_item_of_two_tasks_is_one_cluster():
    """Two metrics of the same documents: the error is that of their sum, item by item."""
    rng = np.random.default_rng(5)
    items = tuple(f"i{k}" for k in range(40))
    both = rng.normal(size=40)
    parts = {"a": both + 0.1 * rng.normal(size=40), "b": both}
    scores = ItemScores({n: TaskItems("acc", True, items, v) for n, v in parts.items()})
    objective = Objective({"a": 0.5, "b": 0.5})
    combined = 0.5 * parts["a"] + 0.5 * parts["b"]
    assert objective.estimate(scores).stderr == pytest.approx(stats.sem(combined))
    other = ItemScores(
        {
            "a": TaskItems("acc", True, items, rng.normal(size=40)),
            "b": TaskItems("acc", True, items[::-1], rng.normal(size=40)),
        }
    )
    theirs = 0.5 * other.by_task["a"].values + 0.5 * other.by_task["b"].values[::-1]
    result = compare(scores, other, objective)
    reference = stats.ttest_rel(combined, theirs)
    assert result.p_value == pytest.approx(reference.pvalue)
    assert result.interval == pytest.approx(list(reference.confidence_interval(0.95)))
