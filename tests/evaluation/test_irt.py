"""Item-response theory: what is put in comes out; the errors hold where the model does."""

import numpy as np
import pytest

from evomerge.evaluation.irt import fit_irt

ITEMS, CANDIDATES = 150, 80


def chances(slopes, intercepts, abilities):
    return 1 / (1 + np.exp(-(slopes * np.asarray(abilities)[:, None] + intercepts)))


@pytest.fixture(scope="module")
def world():
    """Items, and candidates of whom each was scored on about half of them."""
    generator = np.random.default_rng(0)
    slopes = np.exp(0.5 * generator.normal(size=ITEMS))
    intercepts = 1.5 * generator.normal(size=ITEMS)
    right = chances(slopes, intercepts, generator.normal(size=CANDIDATES))
    values = (generator.random(right.shape) < right).astype(float)
    values[generator.random(values.shape) < 0.5] = np.nan
    return slopes, intercepts, values


def test_items_are_found_again(world):
    slopes, intercepts, values = world
    model = fit_irt(values)
    assert np.corrcoef(model.intercepts, intercepts)[0, 1] > 0.9
    assert np.corrcoef(np.log(model.slopes), np.log(slopes))[0, 1] > 0.4
    assert np.corrcoef(model.difficulties, -intercepts / slopes)[0, 1] > 0.6


def test_forecasts_are_better_than_means_and_their_errors_hold(world):
    slopes, intercepts, values = world
    model = fit_irt(values)
    generator = np.random.default_rng(1)
    errors, plain, stated = [], [], []
    for right in chances(slopes, intercepts, generator.normal(size=400)):
        truth = (generator.random(ITEMS) < right).astype(float)
        rows = generator.permutation(ITEMS)[:20]
        seen = np.full(ITEMS, np.nan)
        seen[rows] = truth[rows]
        forecast = model.forecast(seen)
        errors.append(forecast.mean - truth.mean())
        stated.append(forecast.stderr)
        plain.append(truth[rows].mean() - truth.mean())
    assert np.std(errors) < 0.85 * np.std(plain)
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(len(errors))
    covered = np.mean(np.abs(errors) <= 1.96 * np.array(stated))
    assert 0.90 <= covered <= 0.99


def test_what_was_seen_stands_as_it_is(world):
    _, _, values = world
    model = fit_irt(values)
    whole = np.linspace(0.0, 1.0, ITEMS)
    forecast = model.forecast(whole)
    assert forecast.mean == pytest.approx(0.5, abs=1e-12)
    assert forecast.stderr == 0.0
    low, high = np.full(ITEMS, np.nan), np.full(ITEMS, np.nan)
    low[:30], high[:30] = 0.0, 1.0
    assert model.forecast(low).mean < 0.3
    assert model.forecast(high).mean > 0.7


def test_of_a_candidate_without_items_the_average_is_expected(world):
    _, _, values = world
    forecast = fit_irt(values).forecast(np.full(ITEMS, np.nan))
    assert forecast.mean == pytest.approx(np.nanmean(values), abs=0.05)
    assert forecast.stderr > 0.1


def test_a_fit_is_a_function_of_the_values(world):
    _, _, values = world
    first, second = fit_irt(values), fit_irt(values.copy())
    assert first.slopes.tobytes() == second.slopes.tobytes()
    # The order of the candidates only changes roundings.
    assert fit_irt(values[::-1]).intercepts == pytest.approx(first.intercepts, abs=1e-6)


@pytest.mark.parametrize(
    "values",
    [np.zeros((3, 8)), np.ones((3, 8)), np.full((2, 8), np.nan), np.zeros((1, 8)), np.eye(8)],
    ids=["all wrong", "all right", "nothing seen", "one candidate", "one right each"],
)
def test_few_and_extreme_answers_leave_finite_items(values):
    model = fit_irt(values)
    assert np.isfinite(model.slopes).all()
    assert np.isfinite(model.intercepts).all()
    assert 0.0 <= model.forecast(np.full(8, np.nan)).mean <= 1.0


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_values_outside_of_the_unit_interval_are_refused(value):
    with pytest.raises(ValueError, match=r"needs values in \[0, 1\], got"):
        fit_irt(np.array([[0.5, value]]))
