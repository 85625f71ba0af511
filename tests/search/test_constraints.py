"""Constraints: what they name, what proposers are told, and who wins."""

import math
from dataclasses import replace

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge.documents import Origin
from evomerge.errors import EvaluationError, SpaceError
from evomerge.evaluation import Estimate, TaskScore
from evomerge.evaluation.sampling import SampledScore
from evomerge.search import Summary, TrialRecord, open_storage
from evomerge.search.baselines import baselines
from evomerge.search.constraints import (
    Constraint,
    Penalty,
    make_constraints,
    penalized_values,
    reference_baselines,
    total_violation,
)
from evomerge.search.finalists import choose_finalists, rank_finalists
from evomerge.search.judging import find_references
from evomerge.search.objectives import ObjectiveFacts
from evomerge.search.verdicts import HoldoutCheck
from evomerge.space import parse_space
from evomerge.workers import Failed

from .conftest import SPACE, InstantPool, score

FACTS = ObjectiveFacts({"a": 0.5, "b": 0.5}, {"a": ("a",), "b": ("b",)})


def space_with(at_least, origin=None, **recipe):
    data = yaml.safe_load(SPACE)
    data["recipe"] |= recipe
    return parse_space({**data, "constraints": {"at_least": at_least}}, origin)


def acc(**values):
    return {name: TaskScore("acc", value, 0.01, 100) for name, value in values.items()}


@pytest.mark.parametrize(
    ("at_least", "message"),
    [
        (
            {"add": "base"},
            r"s.yml:15: constraints.at_least.add: no task of the space .*valid: a, b",
        ),
        ({"a": "bas"}, r"s.yml:15: constraints.at_least.a: there is no baseline 'bas'; did you "),
        ({"a": "m/cod"}, r"there is no baseline 'm/cod'; did you mean 'm/code'\?"),
        ({"a": True}, r"s.yml:15: constraints.at_least.a: a score is at least that of a baseline"),
        ({"a": math.inf}, "or a number, got inf"),
        ({"a": None}, "or a number, got None"),
    ],
)
def test_what_a_constraint_may_not_name(at_least, message):
    data = yaml.safe_load(SPACE) | {"constraints": {"at_least": at_least}}
    text = yaml.safe_dump(data, sort_keys=False)
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "at_least" in row) + 1
    message = message.replace(":15:", f":{line}:")
    with pytest.raises(SpaceError, match=message):
        parse_space(data, Origin("s.yml", text))


def test_models_may_be_named_by_their_last_part():
    found = space_with({"a": "math", "b": 0.5}).document.constraints.at_least
    assert found == {"a": "m/math", "b": 0.5}
    twice = [{"model": f"{n}/math", "parameters": {"weight": {"search": [0, 1]}}} for n in "xy"]
    with pytest.raises(SpaceError, match="'math' is several models of the recipe"):
        space_with({"a": "math"}, models=twice)


def test_a_space_without_such_a_baseline():
    one = [{"model": "m/math", "parameters": {"weight": {"search": [0.0, 1.5]}}}]
    space = space_with({"a": "average"}, models=one)
    with pytest.raises(SpaceError, match=r"at_least.a: this space has no baseline 'average'; it "):
        reference_baselines(space, baselines(space))
    linear = {"merge_method": "linear", "base_model": None}
    with pytest.raises(SpaceError, match="no base_model of its own"):
        space_with({"a": "base"}, **linear)


def test_base_is_a_parent_where_the_method_merges_it():
    one = {"merge_method": "slerp", "base_model": "m/math", "parameters": {"t": {"search": [0, 1]}}}
    space = space_with({"a": "base"}, models=[{"model": "m/math"}, {"model": "m/code"}], **one)
    (found,) = reference_baselines(space, baselines(space))["a"]
    assert (found.kind, found.name) == ("parent", "m/math")


def test_violations_are_shares_of_what_is_to_be_reached():
    plain = Constraint("a", "base", {"a": 1.0})
    assert plain.violation(acc(a=0.45), acc(a=0.5)) == pytest.approx(0.1)
    assert plain.violation(acc(a=0.55), acc(a=0.5)) == pytest.approx(-0.1)
    assert plain.violation(acc(a=0.5), acc(a=0.5)) == 0
    assert plain.violation(acc(a=0.0), acc(a=0.02)) == pytest.approx(0.2), "of a tenth at least"
    number = Constraint("a", 0.6, {"a": 1.0})
    assert number.violation(acc(a=0.3), None) == pytest.approx(0.5)
    perplexity = {"p": TaskScore("word_perplexity", 12.0, 0.1, 100, higher_is_better=False)}
    worse = {"p": replace(perplexity["p"], value=15.0)}
    lower = Constraint("p", "base", {"p": 1.0})
    assert lower.violation(worse, perplexity) == pytest.approx(0.25)
    assert Constraint("p", 10, {"p": 1.0}).violation(perplexity, None) == pytest.approx(0.2)
    for broken in (math.inf, math.nan):
        assert lower.violation({"p": replace(worse["p"], value=broken)}, perplexity) == 1e6
    assert total_violation([0.2, -3.0, 0.1]) == pytest.approx(0.3)


def test_a_group_is_the_mean_of_its_tasks_by_their_weights():
    space = space_with({"a": "base"})
    facts = ObjectiveFacts({"x": 0.3, "y": 0.1}, {"a": ("x", "y"), "b": ("x",)})
    (made,) = make_constraints(space, facts)
    assert made.shares == pytest.approx({"x": 0.75, "y": 0.25})
    assert made.value(acc(x=0.4, y=0.8)) == pytest.approx(0.5)


PENALTY = Penalty.from_baselines([(0.5, 3.0), (0.7, 3.0)])
numbers = st.floats(-1e9, 1e9)


def test_the_scale_is_the_baselines():
    assert Penalty((0.5, 3.0), (pytest.approx(0.2), 1.0)) == PENALTY


@given(numbers, numbers, st.floats(1e-12, 1e6), st.floats(1e-12, 1e6))
def test_penalized_values(good, bad, small, large):
    small, large = sorted((small, large))
    holds, close, far = (
        penalized_values((good, bad), [violation, -1.0], PENALTY)
        for violation in (0.0, small, large)
    )
    for place in (0, 1):
        assert holds[place] > close[place] >= far[place]
        assert math.isfinite(far[place])
        if large > small * 1.001 + 1e-9:
            assert close[place] > far[place]
    assert penalized_values((good, bad), [], PENALTY) == (good, bad), "nothing to hold"


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_who_holds_is_told_in_the_same_order(values):
    told = [penalized_values((v, 0.0), [-0.1], PENALTY)[0] for v in values]
    for mine, mine_told in zip(values, told, strict=True):
        for other, other_told in zip(values, told, strict=True):
            if mine > other:
                assert mine_told >= other_told
            if mine > max(other, 0.5):
                assert mine_told > other_told
        if mine >= 0.5:
            assert mine_told == mine


def test_an_estimate_falls_short_by_its_own_error():
    def estimated(value, stderr):
        return {"a": SampledScore(acc(a=value)["a"], stderr, value)}

    number, base = Constraint("a", 0.5, {"a": 1.0}), Constraint("a", "base", {"a": 1.0})
    assert number.falls_short(estimated(0.45, 0.02), None, 2.0)
    assert not number.falls_short(estimated(0.45, 0.03), None, 2.0)
    assert base.falls_short(estimated(0.55, 0.02), acc(a=0.6), 2.0)
    assert not base.falls_short(estimated(0.55, 0.02), acc(a=0.58), 2.0)
    both = Constraint("g", 0.5, {"a": 0.5, "b": 0.5})
    scores = {name: estimated(0.45, 0.03)["a"] for name in "ab"}
    assert both.falls_short(scores, None, 2.0), "errors of two tasks partly cancel"
    larger = replace(acc(a=12.5)["a"], higher_is_better=False)
    assert Constraint("a", 12, {"a": 1.0}).falls_short(
        {"a": SampledScore(larger, 0.2, math.nan)}, None, 2.0
    )


def test_the_study_has_violations_as_optuna_wants_them(harness):
    run = harness(top={"constraints": {"at_least": {"a": "base", "b": 0.8}}}, trials=30)
    study = run.drive(InstantPool())
    base = next(r for r in study.records.values() if r.kind == "base")
    scored = [r for r in study.records.values() if r.search is not None]
    for record in scored:
        a, b = (record.search.tasks[name].value for name in "ab")
        reached = base.search.tasks["a"].value
        assert record.search.violations == pytest.approx(
            {"a": (reached - a) / reached, "b": (0.8 - b) / 0.8}
        )
    assert {record.violation > 0 for record in scored} == {True, False}
    plain = optuna.load_study(study_name="s", storage=open_storage(run.directory.study_url))
    best = max((r for r in scored if not r.violation), key=lambda r: r.value)
    for trial in plain.trials:
        if trial.state == optuna.trial.TrialState.COMPLETE:
            kept = list(study.records[trial.number].search.violations.values())
            assert trial.system_attrs["constraints"] == kept
    assert plain.best_trial.number == best.number
    again = run.study()
    assert again.records == study.records


@pytest.mark.parametrize("workers", [1, 3])
def test_outcomes_wait_for_the_baselines_that_are_named(harness, workers):
    """The base is the third baseline; whoever is scored before it waits, in every order."""
    top = {"constraints": {"at_least": {"a": "base"}}}
    run = harness(top=top, trials=5)
    pool = InstantPool(workers, pick=lambda busy: len(busy) - 1)
    study = run.drive(pool)
    assert all(r.search.violations for r in study.records.values() if r.search is not None)
    whole = harness("whole", top=top, ordered=True, trials=14)
    whole.drive(InstantPool(workers))
    for stop in (0, 1, 2, 3, 7):
        parts = harness(f"stop{stop}", top=top, ordered=True, trials=14)
        assert not parts.drive_until_stopped(InstantPool(workers, stop_after=stop))
        assert parts.drive_until_stopped(InstantPool(workers))
        assert parts.trials() == whole.trials()


@pytest.mark.parametrize("optimizer", ["cma", "tpe"])
def test_the_search_goes_where_the_constraint_holds(harness, optimizer):
    """What is raised does not depend on what is to be held: a free search passes it by."""
    top = {
        "objective": {"kind": "min", "tasks": ["b"]},
        "constraints": {"at_least": {"a": 0.9}},
    }
    shares = []
    for name, constraints in (("held", top["constraints"]), ("free", {})):
        settings = {"optimizer": optimizer, "seed": 1, "trials": 60}
        run = harness(name, top={**top, "constraints": constraints}, **settings)
        study = run.drive(InstantPool())
        late = [r for r in study.records.values() if r.search and r.number >= 30]
        held = [record.search.tasks["a"].value >= 0.9 for record in late]
        shares.append(sum(held) / len(held))
        if constraints:
            assert not any(record.violation for record in choose_finalists(study, 5))
    assert shares[0] > 0.3
    assert shares[0] > 2 * shares[1]


def test_a_baseline_that_cannot_be_scored_is_one_message(harness, monkeypatch):
    def fail(assignment):
        recipe = assignment.recipe
        if recipe["merge_method"] == "passthrough" and "base" in str(recipe["models"]):
            return Failed(assignment.number, assignment.split, "no luck", {}, 1)
        return score(assignment)

    monkeypatch.setattr("tests.search.conftest.score", fail)
    run = harness(top={"constraints": {"at_least": {"a": "base"}}}, trials=8)
    with pytest.raises(EvaluationError, match="at_least a: base: .* could not be scored"):
        run.drive(InstantPool())


def finalist(number, objective, *, search=0.0):
    summary = Summary(Estimate(objective, 0.01, 100), acc(a=objective), violations={"a": search})
    return TrialRecord(
        number, "proposed", f"trial {number}", "complete", {}, search=summary, holdout=summary
    )


class FakeStudy:
    def __init__(self, *records):
        self.records = {record.number: record for record in records}


def test_violators_are_finalists_after_all_others():
    records = [
        finalist(0, 0.9, search=0.3),
        finalist(1, 0.5, search=-0.1),
        finalist(2, 0.8, search=0.1),
        finalist(3, 0.6, search=0.0),
    ]
    chosen = choose_finalists(FakeStudy(*records), 3)
    assert [record.number for record in chosen] == [3, 1, 2]


def test_held_out_verdicts_decide_and_are_paired(harness):
    run = harness(top={"constraints": {"at_least": {"a": "best_parent", "b": 0.5}}}, trials=12)
    pool = InstantPool()
    study = run.drive(pool, holdout=True)
    with pytest.raises(EvaluationError, match="could not be scored"):
        find_references(run.space, make_constraints(run.space, FACTS), study.records.values(), {})
    chosen = choose_finalists(study, 3)
    check = HoldoutCheck(run.space, FACTS, study, run.directory)
    unscored = check.verdicts(chosen[0])
    assert unscored[0].comparison is None, "the parent was not scored on held-out items here"
    assert not unscored[0].holds
    assert "not checked" in unscored[0].measured()
    from evomerge.search import SilentMonitor
    from evomerge.search.driver import Driver

    driver = Driver(run.space, study, run.directory, pool, SilentMonitor(), session=0, started=0.0)
    driver.score_holdout([study.records[0], study.records[1]])
    check = HoldoutCheck(run.space, FACTS, study, run.directory)
    verdicts = {record.number: check.verdicts(record) for record in chosen}
    parent = study.records[0].holdout.tasks["a"].value
    for record in chosen:
        first, second = verdicts[record.number]
        mine = study.records[record.number].holdout.tasks
        assert first.name == "a at least best parent math"
        assert first.comparison.difference == pytest.approx(mine["a"].value - parent)
        assert first.holds == (mine["a"].value >= parent)
        assert second.comparison.difference == pytest.approx(mine["b"].value - 0.5)
        assert second.comparison.stderr == pytest.approx(mine["b"].stderr)
        assert (second.confidence > 0.5) == (second.comparison.difference > 0)
    ranked = rank_finalists([study.records[r.number] for r in chosen], verdicts)
    held = [all(v.holds for v in verdicts[record.number]) for record in ranked]
    assert held == sorted(held, reverse=True)


def test_of_finalists_that_all_violate_the_least_wins(harness):
    run = harness(top={"constraints": {"at_least": {"a": 2.0}}}, trials=12)
    study = run.drive(InstantPool(), holdout=True)
    chosen = [study.records[record.number] for record in choose_finalists(study, 3)]
    check = HoldoutCheck(run.space, FACTS, study, run.directory)
    verdicts = {record.number: check.verdicts(record) for record in chosen}
    assert not any(verdict.holds for found in verdicts.values() for verdict in found)
    ranked = rank_finalists(chosen, verdicts)
    scores = [record.holdout.tasks["a"].value for record in ranked]
    assert scores == sorted(scores, reverse=True)
