"""The driver: budgets, resume at every point, several workers, failures."""

import random

import pytest

from .conftest import InstantPool


def test_baselines_come_first_and_count_as_trials(harness):
    study = harness(trials=12).drive(InstantPool())
    kinds = [record.kind for record in study.records.values()]
    assert kinds == ["parent", "parent", "base", "average", "default", *["proposed"] * 7]
    assert all(record.state in ("complete", "failed") for record in study.records.values())


def test_the_search_starts_from_the_best_baseline(harness):
    near = harness(sigma=0.001, trials=9)
    study = near.drive(InstantPool())
    baselines = [r for r in study.records.values() if r.kind != "proposed" and r.value is not None]
    best = max(baselines, key=lambda record: record.value)
    assert best.kind == "default"
    for record in study.records.values():
        if record.kind == "proposed":
            assert record.point == pytest.approx(best.point, abs=0.05)


@pytest.mark.parametrize("optimizer", ["cma", "tpe"])
@pytest.mark.parametrize("workers", [1, 3])
def test_interrupted_anywhere_it_ends_the_same(harness, optimizer, workers):
    whole = harness("whole", optimizer=optimizer, ordered=True, trials=22)
    whole.drive(InstantPool(workers))
    expected = whole.trials()
    for stop in (0, 3, 5, 6, 11, 20):
        parts = harness(f"stop{stop}", optimizer=optimizer, ordered=True, trials=22)
        first = InstantPool(workers, stop_after=stop)
        assert not parts.drive_until_stopped(first)
        second = InstantPool(workers)
        assert parts.drive_until_stopped(second)
        assert parts.trials() == expected
        assert sorted(first.scored + second.scored) == [(n, "search") for n in range(22)]


def test_ordered_does_not_depend_on_who_is_first(harness):
    runs = []
    for seed in (1, 2, 3):
        run = harness(f"order{seed}", ordered=True)
        chance = random.Random(seed)
        run.drive(InstantPool(4, pick=lambda busy, c=chance: c.randrange(len(busy))))
        runs.append(run.trials())
    assert runs[0] == runs[1] == runs[2]


def test_unordered_records_the_order_and_resumes_from_it(harness):
    chance = random.Random(5)
    run = harness(trials=26)
    first = InstantPool(3, pick=lambda busy: chance.randrange(len(busy)), stop_after=17)
    assert not run.drive_until_stopped(first)
    before = [trial for trial in run.trials() if trial[3] != "running"]
    second = InstantPool(3)
    assert run.drive_until_stopped(second)
    after = run.trials()
    assert [trial for trial in after if trial in before] == before
    orders = [trial[6] for trial in after if trial[1] == "proposed"]
    assert sorted(orders) == list(range(len(orders)))
    assert orders != sorted(orders)
    assert len(first.scored + second.scored) == len(set(first.scored + second.scored)) == 26


def test_a_larger_budget_continues(harness):
    run = harness(trials=10)
    run.drive(InstantPool())
    ten = run.trials()
    run.space = run.space.with_search(trials=15)
    again = InstantPool()
    run.drive(again)
    assert run.trials()[:10] == ten
    assert len(again.scored) == 5


def test_failures_are_results(harness):
    study = harness(trials=60).drive(InstantPool())
    failed = [record for record in study.records.values() if record.state == "failed"]
    assert failed
    assert {record.reason for record in failed} == {"no luck"}
    assert all(record.value is None for record in failed)
    assert len(study.records) == 60
