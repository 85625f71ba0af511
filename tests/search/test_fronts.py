"""Fronts of a run: which trials they hold, what they cover, and who represents them."""

import numpy as np
import pytest

from evomerge.evaluation import Estimate, TaskScore
from evomerge.search import Summary, TrialRecord, search_front
from evomerge.search.finalists import choose_finalists, rank_finalists
from evomerge.search.fronts import make_fronts, pareto_front
from evomerge.search.hypervolume import hypervolume, is_surpassed

NAMES = ("x", "y")


def summary(values, violation=None):
    estimates = {name: Estimate(v, 0.01, 50) for name, v in zip(NAMES, values, strict=True)}
    tasks = {name: TaskScore("acc", e.value, 0.01, 50) for name, e in estimates.items()}
    violations = {} if violation is None else {"x": violation}
    return Summary(estimates["x"], tasks, estimates, violations=violations)


def trial(number, search, holdout=None, *, kind="proposed", violation=None, state="complete"):
    return TrialRecord(
        number,
        kind,
        f"trial {number}" if kind == "proposed" else f"m/{kind}",
        state,
        {},
        search=summary(search, violation),
        holdout=None if holdout is None else summary(holdout),
    )


class FakeStudy:
    def __init__(self, records):
        self.records = {record.number: record for record in records}


BASELINES = (
    trial(0, (0.9, 0.1), (0.8, 0.1), kind="parent"),
    trial(1, (0.2, 0.9), (0.2, 0.9), kind="parent"),
    trial(2, (0.4, 0.4), (0.45, 0.45), kind="average"),
)
TRIALS = (
    *BASELINES,
    trial(3, (0.7, 0.7), (0.5, 0.6)),
    trial(4, (0.3, 0.3), (0.4, 0.4)),
    trial(5, (0.8, 0.5), (0.7, 0.3)),
    trial(6, (0.6, 0.7)),
    trial(7, (0.95, 0.95), state="pruned"),
)


def test_fronts_and_what_they_cover():
    finalists = [TRIALS[5], TRIALS[3], TRIALS[4]]
    found = make_fronts(TRIALS, finalists, lambda record: True)
    assert [record.number for record in found.search] == [3, 5]
    assert [record.number for record in found.holdout] == [5, 3]
    assert found.surpassed == {}
    search, holdout = found.coverage["search"], found.coverage["holdout"]
    assert search.reference == pytest.approx((0.2, 0.1))
    assert search.baselines == pytest.approx(0.2 * 0.3)
    assert search.total == pytest.approx(hypervolume([(0.7, 0.7), (0.8, 0.5)], (0.2, 0.1)))
    assert list(search.steps) == [2, 3, 5], "the trials that add something"
    assert search.steps[3] == pytest.approx(0.5 * 0.6)
    assert holdout.reference == pytest.approx((0.2, 0.1))
    assert holdout.total == pytest.approx(
        hypervolume([(0.5, 0.6), (0.7, 0.3), (0.45, 0.45)], (0.2, 0.1))
    )
    plain = search.to_dict(NAMES)
    assert plain["reference"] == pytest.approx({"x": 0.2, "y": 0.1})
    assert plain["steps"][0] == {"trial": 2, "volume": pytest.approx(0.06)}
    assert plain["exact"]


def test_a_member_that_a_baseline_surpasses_is_marked():
    alone = make_fronts(TRIALS, [TRIALS[4]], lambda record: True)
    assert alone.surpassed == {4: ("m/average",)}


def test_who_violates_is_in_no_front_and_covers_nothing():
    worse = [*TRIALS, trial(8, (0.99, 0.99), (0.99, 0.99), violation=0.1)]
    assert [record.number for record in search_front(worse)] == [3, 5]
    finalists = [TRIALS[5], worse[8]]
    found = make_fronts(worse, finalists, lambda record: record.number != 8)
    assert [record.number for record in found.holdout] == [5]
    assert found.coverage["holdout"].total < 0.4
    none = make_fronts(worse, finalists, lambda record: False)
    assert [record.number for record in none.holdout] == [5], "the least violating one alone"
    assert none.coverage["holdout"].total == 0


def test_many_objectives_are_counted_not_computed():
    generator = np.random.default_rng(0)
    points = np.abs(generator.normal(size=(150, 6)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    names = [f"o{place}" for place in range(6)]

    def scored(number, values):
        estimates = {name: Estimate(v, 0.01, 50) for name, v in zip(names, values, strict=True)}
        found = Summary(estimates["o0"], {}, estimates)
        kind = "parent" if number == 0 else "proposed"
        return TrialRecord(number, kind, "t", "complete", {}, search=found, holdout=found)

    trials = [scored(0, [0.0] * 6)]
    trials += [scored(i, values) for i, values in enumerate(points.tolist(), 1)]
    cover = make_fronts(trials, trials[1:4], lambda record: True).coverage
    assert not cover["search"].exact
    assert cover["holdout"].exact
    assert cover["search"].total > cover["holdout"].total > 0


def test_finalists_represent_the_whole_front():
    """Sixty candidates crowd at the end that is best in the first objective; ten do not."""
    crowd = [(0.9 + i / 1000, 0.3 - i / 1000) for i in range(60)]
    spread = [(i / 10, 1 - (i / 10) ** 3) for i in range(9)]
    hidden = [(0.1, 0.1), (0.2, 0.2)]
    points = [*crowd, *spread, *hidden]
    records = [trial(i, point) for i, point in enumerate(points)]
    records.append(trial(99, (0.0, 0.0), kind="parent"))
    chosen = choose_finalists(FakeStudy(records), 6)
    values = [record.values for record in chosen]
    assert not is_surpassed(values).any()
    assert {max(points), max(points, key=lambda point: point[1])} <= set(values)
    assert sum(value in crowd for value in values) <= 2
    covered = hypervolume(values, (0, 0))
    assert covered > 0.9 * hypervolume(points, (0, 0))
    first = sorted(points, reverse=True)[:6]
    assert covered > 1.5 * hypervolume(first, (0, 0)), "the best of the first objective alone"
    everyone = choose_finalists(FakeStudy(records), 100)
    assert len(everyone) == len(points)
    assert {record.values for record in everyone[-2:]} == set(hidden)


def test_the_winner_is_on_the_front():
    """Of those that are equal in the first objective the next one decides."""
    points = [(0.9, 0.1), (0.9, 0.3), (0.2, 0.8), (0.9, 0.2)]
    ranked = rank_finalists([trial(i, point, point) for i, point in enumerate(points)])
    assert [record.number for record in ranked] == [1, 3, 0, 2]


def test_the_front_keeps_the_order_and_equal_ones():
    records = [trial(i, p) for i, p in enumerate([(0.1, 0.9), (0.5, 0.5), (0.5, 0.5), (0.5, 0.4)])]
    values = {record.number: record.values for record in records}
    assert [record.number for record in pareto_front(records, values)] == [0, 1, 2]
