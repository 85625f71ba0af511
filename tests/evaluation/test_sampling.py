"""Estimates from a part of the items, against the truth, over many draws."""

import numpy as np
import pytest

from evomerge.evaluation import TaskItems
from evomerge.evaluation.sampling import Expectation, draw_items, estimate_score, make_strata

ITEMS = 150
NAMES = tuple(f"item{i}" for i in range(ITEMS))
DRAWS = 600
EXPECTATIONS = ("good", "useless", "misleading", "of another level")


def problem(kind, seed=0):
    """Five earlier candidates and a new one on items of differing difficulty."""
    generator = np.random.default_rng(seed)
    hard = generator.normal(size=ITEMS)
    skills = np.append(generator.normal(size=5), 0.8)
    logits = 1.5 * (skills[:, None] - hard) + 0.7 * generator.normal(size=(6, ITEMS))
    values = 1 / (1 + np.exp(-logits)) if kind == "real" else (logits > 0).astype(float)
    return values[:5], values[5]


def expectation_of(name, table, truth, divisor=1.0):
    middle = table.mean(axis=0)
    generator = np.random.default_rng(9)
    values = {
        "good": middle - middle.mean(),
        "useless": generator.normal(size=ITEMS),
        "misleading": 3 * (middle.mean() - middle),
        "of another level": truth + 5.0,
    }[name]
    return Expectation(values, divisor)


def draw(strata, rung, generator):
    items = draw_items({"task": strata}, {"task": 1.0}, generator)
    return [strata.places[item] for _, (_, item) in zip(range(rung), items, strict=False)]


def simulate(strata, expectation, truth, rung, *, weights=None, aggregation="mean"):
    """Return estimates and errors over draws."""
    generator = np.random.default_rng(1)
    found = []
    for _ in range(DRAWS):
        rows = draw(strata, rung, generator)
        sample = TaskItems(
            "m",
            True,
            tuple(NAMES[row] for row in rows),
            truth[rows],
            aggregation,
            None if weights is None else weights[rows],
        )
        estimate = estimate_score(strata, expectation, sample)
        found.append((estimate.score.value, estimate.stderr))
    return np.array(found).T


def bias_in_errors(values, truth):
    """Return the bias over the standard error that the simulation has."""
    return abs(values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize("kind", ["binary", "real"])
@pytest.mark.parametrize("rung", [8, 17, 32, 140])
@pytest.mark.parametrize("name", EXPECTATIONS)
def test_the_estimate_is_unbiased_whatever_was_expected(kind, rung, name):
    table, truth = problem(kind)
    strata = make_strata(NAMES, table)
    assert len(strata.spreads) > 3
    expectation = expectation_of(name, table, truth)
    values, _ = simulate(strata, expectation, truth, rung)
    if name == "of another level":
        assert values == pytest.approx(truth.mean())  # all items are off by the same
    else:
        assert bias_in_errors(values, truth.mean()) < 4


@pytest.mark.parametrize("name", ["good", "misleading"])
def test_all_items_give_the_exact_score_without_error(name):
    table, truth = problem("real")
    expectation = expectation_of(name, table, truth)
    values, errors = simulate(make_strata(NAMES, table), expectation, truth, ITEMS)
    assert values == pytest.approx(truth.mean())
    assert errors == pytest.approx(0.0)


@pytest.mark.parametrize("kind", ["binary", "real"])
@pytest.mark.parametrize("rung", [32, 64])
@pytest.mark.parametrize("name", ["good", "useless", "misleading"])
@pytest.mark.parametrize("seed", range(2))
def test_the_stated_error_covers_the_truth(kind, rung, name, seed):
    # 95 % are wanted; 86 % to 99.2 % are accepted: a few items tell little of their own spread.
    table, truth = problem(kind, seed)
    strata = make_strata(NAMES, table)
    values, errors = simulate(strata, expectation_of(name, table, truth), truth, rung)
    covered = np.mean(np.abs(values - truth.mean()) <= 1.96 * errors)
    assert 0.86 <= covered <= 0.992
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(), rel=0.2)


@pytest.mark.parametrize("level", [0.05, 0.95])
def test_the_error_does_not_depend_on_the_level_of_the_expectation(level):
    table, _ = problem("binary")
    strata = make_strata(NAMES, table)
    truth = (np.random.default_rng(3).random(ITEMS) < level).astype(float)
    rows = draw(strata, 32, np.random.default_rng(0))
    sample = TaskItems("m", True, tuple(NAMES[row] for row in rows), truth[rows])
    plain = estimate_score(strata, Expectation(np.zeros(ITEMS)), sample)
    moved = estimate_score(strata, Expectation(np.full(ITEMS, 7.0)), sample)
    assert moved.score.value == pytest.approx(plain.score.value)
    assert moved.stderr == pytest.approx(plain.stderr)


def test_equal_items_leave_an_error():
    table, _ = problem("binary")
    strata = make_strata(NAMES, table)
    rows = draw(strata, 32, np.random.default_rng(0))
    sample = TaskItems("m", True, tuple(NAMES[row] for row in rows), np.zeros(32))
    estimate = estimate_score(strata, Expectation(np.zeros(ITEMS)), sample)
    assert estimate.score.value == 0.0
    assert 0.0 < estimate.stderr < 0.05


@pytest.mark.parametrize("aggregation", ["weighted_perplexity", "bits_per_byte"])
def test_ratios_are_nearly_unbiased(aggregation):
    generator = np.random.default_rng(4)
    weights = generator.integers(5, 60, ITEMS).astype(float)
    sums = -weights * (1.0 + 0.3 * generator.normal(size=(6, ITEMS)))
    strata = make_strata(NAMES, sums[:5])
    control = sums[:5].mean(axis=0)
    expectation = Expectation(control - control.mean(), float(weights.mean()))
    values, errors = simulate(
        strata, expectation, sums[5], 32, weights=weights, aggregation=aggregation
    )
    ratio = sums[5].sum() / weights.sum()
    truth = np.exp(-ratio) if aggregation == "weighted_perplexity" else -ratio / np.log(2)
    # The ratio has no bias; a function of it that is curved has one, of the order of variance.
    assert abs(values.mean() - truth) < 0.15 * values.std()
    assert 0.88 <= np.mean(np.abs(values - truth) <= 1.96 * errors) <= 0.992


def test_items_on_which_candidates_differ_come_first_and_lower_the_error():
    generator = np.random.default_rng(5)
    hard = 4.0 * generator.normal(size=ITEMS)  # most items are easy or hard for all
    skills = np.linspace(-1.0, 1.0, 9)
    logits = 3 * (skills[:, None] - hard)
    values = (logits + 0.5 * generator.normal(size=logits.shape) > 0).astype(float)
    table, truth = values[[0, 2, 4, 6, 8]], values[5]
    control = table.mean(axis=0)
    known = Expectation(control - control.mean())
    even = make_strata(NAMES, table, order=False)
    ordered = make_strata(NAMES, table)
    plain, _ = simulate(even, Expectation(np.zeros(ITEMS)), truth, 32)
    drawn, _ = simulate(ordered, Expectation(np.zeros(ITEMS)), truth, 32)
    controlled, _ = simulate(ordered, known, truth, 32)
    assert drawn.std() < 0.6 * plain.std()
    assert controlled.std() < 0.6 * plain.std()


def three_tasks():
    tables = {name: problem("binary", seed)[0] for seed, name in enumerate("abc")}
    return {name: make_strata(NAMES, table, most=5) for name, table in tables.items()}


def test_every_item_is_drawn_once_and_the_draw_repeats():
    strata, weights = three_tasks(), {"a": 1.0, "b": 0.5, "c": 0.0}
    drawn = list(draw_items(strata, weights, np.random.default_rng(0)))
    assert sorted(drawn) == sorted((task, name) for task in "abc" for name in NAMES)
    assert drawn == list(draw_items(strata, weights, np.random.default_rng(0)))
    assert drawn != list(draw_items(strata, weights, np.random.default_rng(1)))


def test_every_beginning_has_every_stratum():
    strata, weights = three_tasks(), {"a": 1.0, "b": 0.5, "c": 0.0}
    everywhere = {(task, label) for task in "abc" for label in range(len(strata[task].spreads))}
    drawn = list(draw_items(strata, weights, np.random.default_rng(0)))
    found = [(task, strata[task].labels[strata[task].places[item]]) for task, item in drawn]
    count = len(everywhere)
    assert count > 10
    assert set(found[:count]) == everywhere
    assert all(found[: 2 * count].count(one) == 2 for one in everywhere)


def test_an_undrawn_stratum_is_expected_as_far_off_as_the_others():
    table, truth = problem("binary")
    strata = make_strata(NAMES, table)
    rows = [row for row in range(ITEMS) if strata.labels[row] != 0][:40]
    sample = TaskItems("m", True, tuple(NAMES[row] for row in rows), truth[rows])
    for level in (0.0, 100.0):
        expectation = Expectation(np.full(ITEMS, level))
        value = estimate_score(strata, expectation, sample).score.value
        assert 0 <= value <= 1


@pytest.mark.parametrize("most", [1, 2, 3, 4, 9])
def test_no_more_strata_than_wanted(most):
    table, _ = problem("binary")
    strata = make_strata(NAMES, table, most=most)
    assert len(strata.spreads) <= most
    assert np.bincount(strata.labels, minlength=len(strata.spreads)).min() >= 4


def test_a_table_of_nobody_is_one_stratum():
    strata = make_strata(NAMES, np.zeros((0, ITEMS)))
    assert len(strata.spreads) == 1
