"""What CMA-ES does beyond what every proposer does."""

import math

import numpy as np
import pytest

from evomerge.errors import StudyError
from evomerge.proposers import Told, make_proposer
from evomerge.proposers.cma_es import CmaProposer
from evomerge.proposers.plain_space import PlainSpace
from evomerge.space import Dimension, SearchSettings


def floats(count):
    return PlainSpace(*[Dimension(f"w{i}", "float", 0.0, 1.0) for i in range(count)])


def make(space, start=None, seed=0, **settings):
    start = start or space.from_unit([0.5] * len(space.dimensions))
    settings = SearchSettings(optimizer="cma", seed=seed, **settings)
    return make_proposer(space, settings, start=start, known=[])


def search(proposer, loss, count, stderr=0.0, seed=0):
    """Return the true losses of a run whose results are told with an error."""
    chance = np.random.default_rng(seed)
    losses = []
    for number in range(count):
        point = proposer.ask(number)
        losses.append(loss(point))
        value = -losses[-1] + stderr * chance.standard_normal()
        proposer.tell(number, Told((float(value),), (stderr,)))
    return losses


def distance(point):
    return sum((value - 0.8) ** 2 for value in point.values())


def test_it_climbs():
    assert min(search(make(floats(6)), distance, 400)) < 1e-3


def test_it_starts_at_the_start():
    space = floats(4)
    start = space.from_unit([0.9, 0.1, 0.9, 0.1])
    proposer = make(space, start, sigma=0.01)
    for number in range(8):
        assert proposer.ask(number) == pytest.approx(start, abs=0.06)


def test_a_history_that_is_not_its_own_is_refused():
    with pytest.raises(StudyError, match=r"trial 0: the study holds w0 = 0.123.*version of pycma"):
        make(floats(2)).recall(0, {"w0": 0.123})


def test_after_an_update_the_new_centre_is_tried():
    """The centre is better than the draws around it: half of the results here, by far."""
    proposer = make(floats(20), population=6)
    losses = search(proposer, distance, 6 + 30 * 7)[6:]
    centres, draws = losses[0::7], [x for i, x in enumerate(losses) if i % 7]
    assert np.median(centres) < 0.75 * np.median(draws)


def test_many_dimensions_are_searched_one_by_one():
    """Without a covariance: it has learned only a variance for each dimension."""
    for count, separable in ((100, False), (101, True)):
        proposer = make(floats(count))
        search(proposer, distance, 60)
        has_matrix = np.shape(proposer._strategy.C) == (count, count)
        assert has_matrix != separable


def test_it_starts_again_with_twice_the_population():
    """A flat function ends each start; the first best point stays the start."""
    proposer = make(floats(3), population=4)
    sizes = []
    for number in range(400):
        proposer.ask(number)
        proposer.tell(number, Told((1.0,)))
        sizes.append(proposer._strategy.popsize)
    assert set(sizes) >= {4, 8, 16}
    assert sizes == sorted(sizes)


def test_whole_numbers_and_choices_are_found():
    names = ("a", "b", "c")
    space = PlainSpace(
        *[Dimension(f"n{i}", "int", 0, 9) for i in range(3)],
        *[Dimension(f"c{i}", "choice", choices=names) for i in range(3)],
        *[Dimension(f"w{i}", "float", 0.0, 1.0) for i in range(3)],
    )

    def loss(point):
        whole = sum((point[f"n{i}"] - 7) ** 2 / 100 for i in range(3))
        choices = sum(0.1 * names.index(point[f"c{i}"]) for i in range(3))
        return whole + choices + sum((point[f"w{i}"] - 0.3) ** 2 for i in range(3))

    ends = [min(search(make(space, seed=seed), loss, 300)) for seed in range(4)]
    assert np.median(ends) < 2e-3


def test_steps_of_whole_numbers_do_not_vanish():
    space = PlainSpace(Dimension("n", "int", 0, 9), Dimension("w", "float", 0.0, 1.0))
    proposer = make(space)
    search(proposer, lambda point: (point["n"] - 4) ** 2 + (point["w"] - 0.5) ** 2, 300)
    steps = proposer._strategy.sigma * proposer._strategy.sm.variances**0.5
    assert proposer._strategy.stds[0] >= 0.2 / 10 * 0.99
    assert math.isfinite(steps[0])


class Deaf(CmaProposer):
    """It is not told of errors."""

    def tell(self, number, told):
        super().tell(number, Told(told.values))


def test_told_errors_keep_it_nearer_to_the_optimum():
    """With as much noise as signal, near the optimum, as a search from a good baseline is."""

    def near(point):
        return sum((value - 0.6) ** 2 for value in point.values())

    def last(cls, seed):
        proposer = cls(floats(12), start=[0.5] * 12, sigma=0.2, population=None, seed=seed)
        return np.mean(search(proposer, near, 260, stderr=0.5, seed=seed)[-40:])

    told = [last(CmaProposer, seed) for seed in range(12)]
    deaf = [last(Deaf, seed) for seed in range(12)]
    assert np.mean(told) < 0.9 * np.mean(deaf)


def test_without_errors_nothing_is_slowed_down():
    space = floats(5)
    told, silent = make(space), make(space)
    for number in range(60):
        point = told.ask(number)
        assert point == silent.ask(number)
        told.tell(number, Told((-distance(point),), (0.0,)))
        silent.tell(number, Told((-distance(point),)))
