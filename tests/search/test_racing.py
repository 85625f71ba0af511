"""Racing: who stops, what is estimated, and that an interrupted run races the same."""

import numpy as np
import pytest

from evomerge.evaluation import ItemScores, TaskItems
from evomerge.search.racing import default_rungs
from evomerge.workers import Assignment, PoolInfo, Scored

from .conftest import InstantPool

ITEMS = 120
IDS = {split: tuple(f"{split}{i}" for i in range(ITEMS)) for split in ("search", "holdout")}
TABLE = np.random.default_rng(0).normal(size=(ITEMS, 2))


def score_items(assignment):
    """Items of different difficulty, right where weights are near their best."""
    weights = [
        float(np.mean(model.get("parameters", {}).get("weight", 1.0)))
        for model in assignment.recipe["models"]
    ]
    tasks = {}
    for index, name in enumerate(("a", "b")):
        skill = 1.5 - 4 * abs(weights[index % len(weights)] - 0.7)
        wobble = np.sin(7 * sum(weights) + 10 * TABLE[:, 1])
        values = (skill + 0.5 * wobble > TABLE[:, 0]).astype(float)
        tasks[name] = TaskItems("acc", True, IDS[assignment.split], values)
    scores = ItemScores(tasks)
    if assignment.items is not None:
        scores = scores.select(assignment.items)
    return Scored(assignment.number, assignment.split, scores, {"score": 1.0}, 1)


class ItemPool(InstantPool):
    """Workers whose items differ."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        counts = {"a": ITEMS, "b": ITEMS}
        self.info = PoolInfo(
            workers=self.info.workers,
            items={"search": counts, "holdout": counts},
            objective={"a": 0.5, "b": 0.5},
            load_seconds=0.0,
            bank_bytes=0,
            ids={split: {"a": ids, "b": ids} for split, ids in IDS.items()},
            task_keys={"a": "one", "b": "two"},
        )

    def evaluate(self, assignment):
        return score_items(assignment)


def test_default_rungs_double():
    assert default_rungs(900) == (32, 64, 128, 256, 900)
    assert default_rungs(256) == (32, 64, 128, 256)
    assert default_rungs(20) == (20,)


def test_losers_stop_early_and_are_told_with_their_error(harness):
    study = harness(trials=40, racing=True).drive(ItemPool())
    proposed = [r for r in study.records.values() if r.kind == "proposed"]
    stopped = [r for r in proposed if r.state == "pruned"]
    complete = [r for r in proposed if r.state == "complete"]
    assert stopped
    assert complete
    for record in stopped:
        assert record.search.num_items in default_rungs(2 * ITEMS)[:-1]
        assert record.search.sampling_stderrs[0] > 0
    for record in complete:
        assert record.search.num_items == 2 * ITEMS
        assert not record.search.sampling_stderrs
    best = max(r.value for r in complete)
    for record in stopped:
        assert record.value < best


def test_a_complete_trial_has_the_plain_score(harness):
    run = harness(trials=30, racing=True)
    study = run.drive(ItemPool())
    for record in study.records.values():
        if record.state == "complete":
            scores = ItemScores.from_parquet(run.directory.items(record.number, "search"))
            plain = np.mean([scores.by_task[task].values.mean() for task in ("a", "b")])
            assert record.value == pytest.approx(plain, abs=1e-12)
            assert scores.by_task["a"].items == IDS["search"]


def test_an_item_is_scored_once_for_each_trial(harness, tmp_path):
    pool = ItemPool()
    study = harness(trials=30, racing=True, cache=tmp_path / "cache").drive(pool)
    spent = sum(r.search.num_items for r in study.records.values())
    assert pool.num_items == spent
    assert spent < 30 * 2 * ITEMS


@pytest.mark.parametrize(
    ("optimizer", "workers", "every"),
    [
        ("cma", 1, 1),
        ("surrogate", 1, 1),
        ("cma", 3, 1),
        ("surrogate", 3, 5),
        ("tpe", 1, 5),
        ("tpe", 3, 5),
        ("random", 3, 5),
    ],
)
def test_interrupted_anywhere_it_races_the_same(harness, tmp_path, optimizer, workers, every):
    """``every`` is 1: at every point of the run."""
    settings = {"optimizer": optimizer, "ordered": True, "trials": 16, "racing": True}
    whole = harness("whole", cache=tmp_path / "whole-cache", **settings)
    counted = ItemPool(workers)
    whole.drive(counted)
    expected = whole.trials()
    for stop in range(0, len(counted.scored), every):
        parts = harness(f"stop{stop}", cache=tmp_path / f"cache{stop}", **settings)
        first, second = ItemPool(workers, stop_after=stop), ItemPool(workers)
        assert not parts.drive_until_stopped(first)
        assert parts.drive_until_stopped(second)
        assert parts.trials() == expected
        # What was scored before the end of the first process is not scored again.
        assert first.num_items + second.num_items == counted.num_items


@pytest.mark.parametrize("optimizer", ["cma", "random"])
def test_with_the_irt_estimator_it_races_and_resumes_the_same(harness, tmp_path, optimizer):
    settings = {"optimizer": optimizer, "trials": 30, "racing": True, "estimator": "irt"}
    whole = harness("whole", cache=tmp_path / "whole-cache", **settings)
    counted = ItemPool()
    study = whole.drive(counted)
    stopped = [r for r in study.records.values() if r.state == "pruned"]
    assert len(stopped) > 3
    errors = []
    for record in stopped:
        seen = ItemScores.from_parquet(whole.directory.items(record.number, "search"))
        assert seen.num_items == record.search.num_items < 2 * ITEMS
        assert 0 < record.search.sampling_stderrs[0] < 0.2
        assignment = Assignment(record.number, dict(record.recipe), "search")
        truth = score_items(assignment).scores
        true = np.mean([items.values.mean() for items in truth.by_task.values()])
        errors.append(record.value - true)
    assert np.sqrt(np.mean(np.square(errors))) < 0.1
    expected = whole.trials()
    plain = harness("plain", **{**settings, "estimator": "plain"})
    plain.drive(ItemPool())
    assert plain.trials() != expected
    for stop in range(4, len(counted.scored), 17):
        parts = harness(f"stop{stop}", cache=tmp_path / f"cache{stop}", **settings)
        first, second = ItemPool(stop_after=stop), ItemPool()
        assert not parts.drive_until_stopped(first)
        assert parts.drive_until_stopped(second)
        assert parts.trials() == expected
        assert first.num_items + second.num_items == counted.num_items


def test_rungs_have_items_of_every_task(harness):
    study = harness(trials=20, racing={"rungs": [2, 3, 40]}).drive(ItemPool())
    asked = {r.search.num_items for r in study.records.values() if r.search}
    assert asked <= {40, 2 * ITEMS}


def test_items_are_a_budget(harness):
    budget = 2000
    study = harness(items=budget, trials=None, racing=True).drive(ItemPool())
    spent = sum(r.search.num_items for r in study.records.values())
    assert budget - 32 < spent <= budget + 32


def test_patience_ends_a_search_that_gets_no_better(harness):
    study = harness(patience=10, trials=500, racing=True).drive(ItemPool())
    assert 15 <= len(study.records) < 300
    assert study.attributes["ended"]["reason"].startswith("patience")


def test_several_objectives_race(harness):
    top = {"objective": {"first": {"tasks": ["a"]}, "second": {"tasks": ["b"]}}}
    run = harness(trials=40, racing=True, optimizer="random", top=top)
    study = run.drive(ItemPool())
    proposed = [r for r in study.records.values() if r.kind == "proposed"]
    stopped = [r for r in proposed if r.state == "pruned"]
    assert stopped
    complete = [r for r in study.records.values() if r.state == "complete"]
    for record in stopped:
        assert len(record.search.sampling_stderrs) == 2
        assert any(
            all(theirs > mine for mine, theirs in zip(record.values, other.values, strict=True))
            for other in complete
        )


def test_who_clearly_violates_a_constraint_stops(harness):
    top = {"constraints": {"at_least": {"a": 0.85}}, "objective": {"only": {"tasks": ["b"]}}}
    run = harness(trials=60, racing=True, optimizer="random", top=top)
    study = run.drive(ItemPool())
    proposed = [r for r in study.records.values() if r.kind == "proposed"]
    stopped = [r for r in proposed if r.state == "pruned"]
    holding = [r for r in study.records.values() if r.state == "complete" and not r.violation]
    assert holding
    # Better in what is raised than all that were complete by then: only the constraint stops it.
    by_constraint = []
    for record in stopped:
        before = [r for r in holding if r.number < record.number]
        if before and record.value > max(r.value for r in before):
            by_constraint.append(record)
    assert by_constraint
    for record in by_constraint:
        assert record.violation > 0
        assert record.search.num_items < 2 * ITEMS
