"""What a smooth metric is worth on the reported one's scale, and the blend of both."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.evaluation import ItemScores, TaskItems
from evomerge.evaluation.calibration import SLOPES, Calibration, Logistic, blend, fit_calibrations

POINTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1)), min_size=1, max_size=60)


def scores(metric, smooth=None, *, higher=True, task="t"):
    ids = tuple(f"i{place}" for place in range(len(metric)))
    guide = {} if smooth is None else {task: TaskItems("gold_probability", True, ids, smooth)}
    return ItemScores({task: TaskItems("acc", higher, ids, metric)}, guide)


@settings(deadline=None)
@given(POINTS, st.booleans())
def test_no_monotone_function_fits_better(points, increasing):
    smooth, reported = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    found = Calibration.fit(smooth, reported, increasing=increasing)
    at = np.linspace(-1.0, 41.0, 500)
    steps = np.diff(found(at))
    assert np.all(steps >= -1e-12) if increasing else np.all(steps <= 1e-12)
    assert 0.0 <= found(at).min() <= found(at).max() <= 1.0
    # Against other monotone functions: a step at any place, between any two levels.
    if len(set(smooth)) == len(smooth):
        mine = np.sum((found(smooth) - reported) ** 2)
        for cut in range(41):
            right = smooth >= cut if increasing else smooth < cut
            for low, high in ((0.0, 1.0), (0.2, 0.7), (0.5, 0.5)):
                other = np.where(right, high, low)
                assert mine <= np.sum((other - reported) ** 2) + 1e-9


def test_it_keeps_the_mean_and_finds_the_truth():
    generator = np.random.default_rng(0)
    probability = generator.uniform(0, 1, 20_000)
    right = (generator.uniform(0, 1, 20_000) < probability**2).astype(float)
    found = Calibration.fit(probability, right)
    at = np.linspace(0.05, 0.95, 10)
    assert found(at) == pytest.approx(at**2, abs=0.05)
    assert found(probability).mean() == pytest.approx(right.mean(), abs=1e-3)
    again = Calibration.from_dict(found.to_dict())
    assert again == found


def test_equal_smooth_values_are_worth_the_same_in_any_order():
    smooth = np.array([0.5, 0.5, 0.5, 0.5])
    for reported in ([1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]):
        found = Calibration.fit(smooth, np.array(reported, dtype=float))
        assert found(np.array([0.1, 0.5, 0.9])) == pytest.approx(0.25)


def test_the_blend_is_half_the_metric_and_half_what_the_smooth_value_is_worth():
    baseline = scores([0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.6, 0.8])
    calibrations = fit_calibrations(["t"], [baseline, scores([1.0], [0.9])])
    mine = scores([1.0, 0.0], [0.1, 0.7])
    guided = blend(mine, ["t"], calibrations)
    assert guided.by_task == mine.by_task
    assert guided.smooth["t"].metric == "acc,blend", "on the scale of the metric"
    assert guided.guiding().by_task["t"].values == pytest.approx([0.5, 0.5])


def test_a_metric_that_is_better_when_lower():
    baseline = scores([3.0, 2.0, 1.0], [0.1, 0.5, 0.9], higher=False)
    calibrations = fit_calibrations(["t"], [baseline])
    guided = blend(scores([2.0], [0.9], higher=False), ["t"], calibrations)
    assert guided.smooth["t"].values == pytest.approx([1.5])
    assert not guided.smooth["t"].higher_is_better


def test_without_a_calibration_the_metric_alone_guides():
    mine = scores([1.0, 0.0], [0.1, 0.7])
    guided = blend(mine, ["t"], fit_calibrations(["t"], []))
    assert not guided.smooth
    assert guided.guiding().by_task == mine.by_task


def test_what_stands_in_the_place_of_the_metric_is_left_alone():
    mine = scores([1.0, 0.0], [0.1, 0.7])
    assert blend(mine, [], {}).smooth == mine.smooth


def sampled(slope, middle, count=4000, seed=0):
    draw = np.random.default_rng(seed)
    at = draw.uniform(-3.0, 0.0, count)
    chances = 1 / (1 + np.exp(-slope * (at - middle)))
    return np.exp(at), (draw.random(count) < chances).astype(float)


@pytest.mark.parametrize(("slope", "middle"), [(1.5, -1.0), (5.0, -1.2), (10.0, -0.7)])
def test_the_logistic_function_that_made_the_data_is_found(slope, middle):
    found = Logistic.fit(*sampled(slope, middle))
    assert found.slope == pytest.approx(slope, rel=0.15)
    assert found.middle == pytest.approx(middle, abs=0.06)


def test_no_logistic_function_is_likelier():
    probabilities, reported = sampled(3.0, -1.0, 300, seed=5)

    def likelihood(each):
        z = each.slope * (np.log(probabilities) - each.middle)
        return -np.mean(np.logaddexp(0, z) - reported * z)

    best = Logistic.fit(probabilities, reported)
    for slope, middle in [(0.05, 0), (-0.05, 0), (0, 0.02), (0, -0.02)]:
        other = Logistic(best.slope + slope, best.middle + middle)
        assert likelihood(other) < likelihood(best)


def test_what_is_told_apart_without_exception_has_the_sharpest_function():
    probabilities = np.linspace(0.01, 0.99, 99)
    found = Logistic.fit(probabilities, (probabilities > 0.4).astype(float))
    assert found.slope == SLOPES[1]
    assert np.exp(found.middle) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(
    ("probabilities", "reported"),
    [
        ([], []),
        ([0.1, 0.5, 0.9], [1.0, 1.0, 1.0]),  # nothing is wrong
        ([0.1, 0.5, 0.9], [0.0, 0.0, 0.0]),  # nothing is right
        ([0.5, 0.5, 0.5], [0.0, 1.0, 1.0]),
        ([0.9, 0.5, 0.1, 0.05], [0.0, 0.0, 1.0, 1.0]),  # the less likely, the better
        ([0.1, 0.5, 0.9], [0.0, 1.0, 20.0]),  # no share
    ],
)
def test_without_a_rise_there_is_no_logistic_function(probabilities, reported):
    assert Logistic.fit(np.array(probabilities), np.array(reported)) is None


def test_probabilities_of_zero_count_as_the_least():
    found = Logistic.fit(np.array([0.0, 1e-300, 0.1, 0.3, 0.9]), np.array([0, 0, 0, 1.0, 1.0]))
    assert -2.3 < found.middle < -1.2


def test_a_task_has_a_logistic_function_of_its_baselines_kept_with_the_rest():
    probabilities, reported = sampled(3.0, -1.0, 300)
    made = fit_calibrations(["t"], [scores(reported, probabilities)])["t"]
    assert made.logistic == Logistic.fit(probabilities, reported)
    assert Calibration.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    lower = fit_calibrations(["t"], [scores(1 - reported, probabilities, higher=False)])["t"]
    assert lower.logistic == made.logistic
