"""Objectives: their rules, their errors, and whole searches with them."""

import math

import numpy as np
import optuna
import pytest
from scipy import stats

from evomerge.errors import EvaluationError, SpaceError
from evomerge.evaluation import ItemScores, Objective, TaskItems, TaskScore, compare
from evomerge.evaluation.rules import Improvement, UserFunction, Worst, improvement
from evomerge.search import open_storage
from evomerge.search.finalists import choose_finalists
from evomerge.search.fronts import pareto_front
from evomerge.space import parse_space
from evomerge.user_code import load_callable

from .conftest import SPACE, InstantPool


def score(value, metric="acc", higher=True):
    return TaskScore(metric, value, 0.01, 100, higher)


def items(seed, higher=True, **means):
    rng = np.random.default_rng(seed)
    ids = tuple(f"i{k}" for k in range(200))
    return ItemScores(
        {
            name: TaskItems(
                "acc", higher, tuple(f"{name}{i}" for i in ids), rng.normal(mean, 1, size=200)
            )
            for name, mean in means.items()
        }
    )


def test_worst_is_the_worst_and_its_error_the_bootstraps():
    scores = items(0, a=1.0, b=1.02)
    objective = Objective({"a": 0.5, "b": 0.5}, Worst(("a", "b")))
    values = [task.values for task in scores.by_task.values()]
    estimate = objective.estimate(scores)
    assert estimate.value == pytest.approx(min(each.mean() for each in values))
    reference = stats.bootstrap(
        values,
        lambda a, b, axis=-1: np.minimum(a.mean(axis), b.mean(axis)),
        vectorized=True,
        n_resamples=4000,
        rng=np.random.default_rng(0),
    )
    assert estimate.stderr == pytest.approx(reference.standard_error, rel=0.1)
    lower = items(0, higher=False, a=1.0, b=3.0)
    assert objective.estimate(lower).value == pytest.approx(-lower.by_task["b"].values.mean())


def test_worst_is_compared_in_pairs():
    one, two = items(1, a=2.0, b=1.5), items(2, a=1.8, b=1.0)
    objective = Objective({"a": 1.0, "b": 1.0}, Worst(("a", "b")))
    result = compare(one, two, objective)
    paired = one.by_task["b"].values - two.by_task["b"].values
    assert result.difference == pytest.approx(paired.mean())
    assert result.stderr == pytest.approx(stats.sem(paired), rel=0.1)
    assert compare(one, one, objective).p_value == 1


@pytest.mark.parametrize(
    ("value", "parent", "metric", "higher", "wanted"),
    [
        (0.6, 0.6, "acc", True, 0.0),
        (0.8, 0.6, "acc,none", True, 0.5),  # half of the headroom
        (1.0, 0.6, "exact_match", True, 1.0),
        (0.3, 0.6, "acc", True, -0.5),  # half of what there was to lose
        (0.97, 0.98, "acc", True, -0.01 / 0.98),
        (1.0, 0.98, "acc", True, 0.2),  # the headroom counts as a tenth
        (0.5, 1.0, "acc", True, -0.5),  # no headroom at all
        (4.0, 7.0, "word_perplexity", False, 0.5),
        (13.0, 7.0, "word_perplexity", False, -1.0),
        (3.0, 2.0, "mine", True, 0.5),
        (3.0, 2.0, "mine", False, -0.5),
        (3.0, 0.0, "mine", True, 3.0),
    ],
)
def test_improvement(value, parent, metric, higher, wanted):
    found, slope = improvement(score(value, metric, higher), parent)
    assert found == pytest.approx(wanted)
    step = 1e-7 if (found >= 0 and higher) or (found < 0 and not higher) else -1e-7
    moved, _ = improvement(score(value + step, metric, higher), parent)
    assert (moved - found) / step == pytest.approx(slope, rel=1e-4)


def test_improvement_over_tasks_and_its_error():
    scores = items(0, a=0.8, b=0.5)
    rule = Improvement({"a": 3.0, "b": 1.0}, {"a": 0.5, "b": 0.9})
    objective = Objective({"a": 3.0, "b": 1.0}, rule)
    a, b = (task.values for task in scores.by_task.values())
    estimate = objective.estimate(scores)
    wanted = 0.75 * (a.mean() - 0.5) / 0.5 + 0.25 * (b.mean() - 0.9) / 0.9
    assert estimate.value == pytest.approx(wanted)
    error = math.hypot(0.75 * stats.sem(a) / 0.5, 0.25 * stats.sem(b) / 0.9)
    assert estimate.stderr == pytest.approx(error)


def test_a_function_of_the_user():
    scores = items(0, a=0.6, b=0.5)
    rule = UserFunction("m:f", lambda s: s["a"].value * s["b"].value, ("a", "b"))
    estimate = Objective({"a": 1.0, "b": 1.0}, rule).estimate(scores)
    a, b = (task.values for task in scores.by_task.values())
    assert estimate.value == pytest.approx(a.mean() * b.mean())
    error = math.hypot(b.mean() * stats.sem(a), a.mean() * stats.sem(b))
    assert estimate.stderr == pytest.approx(error, rel=0.1)
    for function, message in [
        (lambda s: s["c"].value, "objective 'm:f' failed: KeyError: 'c'"),
        (lambda s: math.nan, "objective 'm:f' returned nan"),
        (lambda s: "much", "could not convert string"),
    ]:
        broken = Objective({"a": 1.0}, UserFunction("m:f", function, ("a",)))
        with pytest.raises(EvaluationError, match=message):
            broken.estimate(scores)


def test_a_function_of_the_user_gets_scores_that_can_be():
    """Estimates and their draws lie beyond the range, where a root or a logarithm has no value."""

    def rule(scores):
        return math.log(1.0 - scores["t"].value)

    objective = Objective({"t": 1.0}, UserFunction("m:f", rule, ("t",)))
    near = TaskScore("acc,none", 0.9, 0.1, 32, True)
    value, error = objective.combine({"t": near}, {"t": 0.1})
    assert value == pytest.approx(math.log(0.1))
    assert 0 < error < 5
    root = Objective({"t": 1.0}, UserFunction("m:f", lambda s: math.sqrt(1 - s["t"].value), ("t",)))
    for metric, better, value, wanted in [
        ("acc", True, 1.02, 1.0),
        ("exact_match,strict", True, -0.02, 0.0),
        ("chrf", True, 101.0, 100.0),
        ("mcc", True, -0.5, -0.5),
        ("perplexity", False, 0.9, 1.0),
        ("perplexity", False, 70.0, 70.0),
        ("of_my_own", True, 7.0, 7.0),
    ]:
        same = Objective({"t": 1.0}, UserFunction("m:f", lambda s: s["t"].value, ("t",)))
        beyond = {"t": TaskScore(metric, value, 0.1, 32, better)}
        assert same.combine(beyond, {"t": 0.0})[0] == wanted
    assert root.combine({"t": TaskScore("acc", 1.01, 0.1, 32, True)}, {"t": 0.1})[0] == 0.0


def test_functions_are_found_by_name(tmp_path):
    (tmp_path / "mine.py").write_text("def good(scores):\n    return 1.0\nx = 3\n")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    assert load_callable("mine:good", tmp_path, role="objective")({}) == 1.0
    assert load_callable("math:hypot", tmp_path, role="objective") is math.hypot
    for name, message in [
        ("mine:god", "has no function 'god'; did you mean 'good'"),
        ("nowhere:f", r"no module 'nowhere': neither nowhere\.py in"),
        ("bad:f", "importing it failed: ZeroDivisionError"),
    ]:
        with pytest.raises(SpaceError, match=message):
            load_callable(name, tmp_path, role="objective")


def space_with(objective, **search):
    import yaml

    data = yaml.safe_load(SPACE)
    data["search"] |= search
    return parse_space({**data, "objective": objective})


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ("min", {"objective": ("min", None)}),
        ({"kind": "improvement", "tasks": ["a"]}, {"objective": ("improvement", ["a"])}),
        (["a", "b"], {"a": ("weighted_sum", ["a"]), "b": ("weighted_sum", ["b"])}),
        (
            {"all": "min", "math": {"tasks": ["a"]}},
            {"all": ("min", None), "math": ("weighted_sum", ["a"])},
        ),
    ],
)
def test_forms_of_an_objective(objective, names):
    found = space_with(objective, optimizer="tpe").document.objective
    assert {name: (each.kind, each.tasks) for name, each in found.items()} == names


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("mean", "one of weighted_sum, min, improvement or module:function"),
        ({"kind": "min", "tasks": ["c"]}, "names the task 'c', which is not one of the space's"),
        (
            ["a", "b"],
            "2 objectives .* want an optimizer for several: auto, tpe, .*, got cma",
        ),
        ({"x": {"kind": "min", "task": ["a"]}}, "unknown key 'task'; did you mean 'tasks'"),
    ],
)
def test_wrong_objectives(objective, message):
    with pytest.raises(SpaceError, match=message):
        space_with(objective)


def test_improvement_is_zero_for_the_best_parent_of_every_task(harness):
    run = harness(top={"objective": "improvement"}, trials=9)
    study = run.drive(InstantPool(workers=2))
    parents = [r.search for r in study.records.values() if r.kind == "parent"]
    best = {t: max(each.tasks[t].value for each in parents) for t in ("a", "b")}
    assert study.attributes["parents"]["reported"] == best
    for record in study.records.values():
        if record.search is None:
            continue
        parts = [improvement(record.search.tasks[t], best[t])[0] for t in ("a", "b")]
        assert record.value == pytest.approx(sum(parts) / 2)


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_improvement_interrupted_among_the_parents_ends_the_same(harness, stop):
    whole = harness("whole", top={"objective": "improvement"}, trials=12)
    whole.drive(InstantPool())
    parts = harness("parts", top={"objective": "improvement"}, trials=12)
    assert not parts.drive_until_stopped(InstantPool(stop_after=stop))
    assert parts.drive_until_stopped(InstantPool())
    assert parts.trials() == whole.trials()


def test_a_function_that_fails_on_some_scores_fails_those_trials(harness, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picky.py").write_text(
        "def score(scores):\n"
        "    if scores['a'].value < 0.7:\n"
        "        raise ValueError('too bad')\n"
        "    return scores['a'].value\n"
    )
    study = harness("run", top={"objective": "picky:score"}, trials=20).drive(InstantPool())
    failed = [r for r in study.records.values() if "too bad" in (r.reason or "")]
    complete = [r for r in study.records.values() if r.state == "complete"]
    assert failed
    assert complete
    assert all(record.value >= 0.7 for record in complete)


def test_several_objectives(harness):
    run = harness(top={"objective": ["b", "a"]}, optimizer="tpe", trials=25)
    study = run.drive(InstantPool(), holdout=True)
    plain = optuna.load_study(study_name="s", storage=open_storage(run.directory.study_url))
    assert plain.metric_names == ["b", "a"]
    assert len(plain.best_trials) >= 1
    for record in study.records.values():
        if record.search is not None:
            scores = record.search
            assert record.values == (scores.tasks["b"].value, scores.tasks["a"].value)
            assert scores.objective == scores.objectives["b"]
    finalists = choose_finalists(study, 3)
    candidates = [
        r for r in study.records.values() if r.values and r.kind in ("proposed", "default")
    ]
    values = {record.number: record.values for record in candidates}
    front = {record.number for record in pareto_front(candidates, values)}
    assert {record.number for record in finalists[: len(front)]} <= front
    for place in (0, 1):
        best = max(record.values[place] for record in candidates)
        assert any(record.values[place] == best for record in finalists)
    parts = harness("parts", top={"objective": ["b", "a"]}, optimizer="tpe", trials=25)
    assert not parts.drive_until_stopped(InstantPool(stop_after=12))
    assert parts.drive_until_stopped(InstantPool())
    assert parts.trials() == run.trials()
