"""Estimators learn in the order of telling; those without a model of a task fall back."""

import numpy as np
import pytest

from evomerge.evaluation import ItemScores, TaskItems
from evomerge.evaluation.sampling import make_strata
from evomerge.search.estimators import IrtEstimator, PlainEstimator, fitted_trials, make_estimator

ITEMS = 60
NAMES = tuple(f"item{i}" for i in range(ITEMS))
HARD = np.random.default_rng(0).normal(size=ITEMS)


def candidate(skill, seed=0, **changes):
    """A binary task, and one of log-likelihoods."""
    noise = 0.5 * np.random.default_rng(seed).normal(size=ITEMS)
    logits = 2 * (skill - HARD) + noise
    tasks = {
        "acc": TaskItems("acc", True, NAMES, (logits > 0).astype(float)),
        "logprob": TaskItems("logprob", True, NAMES, np.minimum(logits, 0.0)),
    }
    return ItemScores({**tasks, **changes})


BASELINES = [candidate(skill, seed) for seed, skill in enumerate((-1.0, -0.3, 0.2, 0.7, 1.2))]


def strata():
    return {
        task: make_strata(NAMES, np.array([each.by_task[task].values for each in BASELINES]))
        for task in ("acc", "logprob")
    }


def part(scores, count=20):
    return scores.select(dict.fromkeys(scores.by_task, NAMES[::3][:count]))


def test_models_are_fitted_at_a_geometric_schedule():
    steps = sorted({fitted_trials(count) for count in range(1000)})
    assert steps[:8] == [0, 4, 8, 12, 16, 20, 25, 32]
    assert len(steps) < 30
    assert all(fitted_trials(step) == step and fitted_trials(step - 1) < step for step in steps[1:])


def test_irt_is_for_means_in_the_unit_interval_and_others_are_plain():
    irt, plain = (make_estimator(name, strata(), BASELINES) for name in ("irt", "plain"))
    assert isinstance(irt, IrtEstimator)
    assert isinstance(plain, PlainEstimator)
    drawn = part(candidate(0.5, 9))
    ours, theirs = irt.current()(drawn), plain.current()(drawn)
    assert ours["logprob"] == theirs["logprob"]
    assert ours["acc"] != theirs["acc"]
    assert ours["acc"].score.stderr > ours["acc"].stderr > 0


def test_a_value_outside_of_the_unit_interval_ends_the_model_of_its_task():
    irt, plain = IrtEstimator(strata(), BASELINES), PlainEstimator(strata(), BASELINES)
    for place in range(4):
        odd = candidate(0.0, acc=TaskItems("acc", True, NAMES, HARD + place))
        irt.learn(odd)
        plain.learn(odd)
    drawn = part(candidate(0.5, 9))
    assert irt.current()(drawn) == plain.current()(drawn)


@pytest.mark.parametrize("name", ["plain", "irt"])
def test_estimates_stay_as_they_were_and_do_not_depend_on_when_they_were_asked_for(name):
    drawn = part(candidate(0.5, 9))
    asked, silent = (make_estimator(name, strata(), BASELINES) for _ in range(2))
    before = asked.current()
    first = before(drawn)
    for seed in range(9):
        for estimator in (asked, silent):
            estimator.learn(part(candidate(0.1 * seed, seed), 10 + seed))
        asked.current()
    assert before(drawn) == first
    assert asked.current()(drawn) == silent.current()(drawn) != first
