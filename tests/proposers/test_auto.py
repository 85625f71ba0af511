"""What `auto` chooses, and that it says why."""

import pytest

from evomerge.proposers import choose, make_proposer
from evomerge.proposers.conformance import CONDITIONAL
from evomerge.proposers.plain_space import PlainSpace
from evomerge.space import OPTIMIZERS, Dimension, SearchSettings


def floats(count):
    return PlainSpace(*[Dimension(f"w{i}", "float", 0.0, 1.0) for i in range(count)])


@pytest.mark.parametrize(
    ("space", "budget", "num_objectives", "name", "reason"),
    [
        (floats(1), {}, 1, "surrogate", "1 searched value in 100 trials: "),
        (floats(8), {"trials": 200}, 1, "surrogate", "8 searched values in 200 trials: "),
        (floats(8), {"trials": 201}, 1, "cma", "8 searched values in 201 trials: "),
        (floats(9), {"trials": 40}, 1, "cma", "9 searched values in 40 trials: above 8 values"),
        (floats(500), {"items": 10_000}, 1, "cma", "500 searched values in 100 trials"),
        (CONDITIONAL, {"trials": 200}, 1, "surrogate", "values that exist only with some options"),
        (CONDITIONAL, {"trials": 201}, 1, "nsga2", "values that exist only with some options"),
        (floats(6), {}, 2, "tpe", "2 objectives in 100 trials: "),
        (floats(6), {"trials": 101}, 2, "nsga2", "2 objectives in 101 trials: "),
        (CONDITIONAL, {"trials": 101}, 3, "nsga3", "3 objectives in 101 trials: "),
    ],
)
def test_it_chooses_by_space_and_budget_and_says_why(space, budget, num_objectives, name, reason):
    choice = choose(space, SearchSettings(**budget), num_objectives)
    assert choice.name == name
    assert choice.reason.startswith(reason)
    facts = OPTIMIZERS[name]
    assert facts.several or num_objectives == 1
    assert facts.conditions or space is not CONDITIONAL


@pytest.mark.parametrize(
    ("budget", "name", "trials"),
    [
        ({"items": 60_000}, "surrogate", 200),
        ({"items": 60_300}, "cma", 201),
        ({"items": 100}, "surrogate", 1),
        ({"items": 60_300, "trials": 50}, "surrogate", 50),
        ({"seconds": 60}, "surrogate", 100),
    ],
)
def test_items_count_as_the_trials_they_pay_for(budget, name, trials):
    choice = choose(floats(8), SearchSettings(**budget), items_per_trial=300)
    assert choice.name == name
    assert choice.reason.startswith(f"8 searched values in {trials} trials: ")


def test_it_is_the_default_and_its_choice_is_made():
    space = floats(9)
    start = space.from_unit([0.5] * 9)
    made = [
        make_proposer(space, SearchSettings(**settings), start=start, known=[])
        for settings in ({}, {"optimizer": "cma"})
    ]
    assert type(made[0]) is type(made[1])
    assert made[0].ask(0) == made[1].ask(0)
