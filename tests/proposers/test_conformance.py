"""Every built-in proposer passes the suite that is shipped for a user's own."""

import pytest

from evomerge.proposers import PROPOSERS, make_proposer
from evomerge.proposers.conformance import CONDITIONAL, MIXED, PLANE, ProposerConformance
from evomerge.proposers.plain_space import PlainSpace
from evomerge.space import OPTIMIZERS, Condition, Dimension, SearchSettings

SMALL = PlainSpace(
    Dimension("method", "choice", choices=("ties", "linear")),
    Dimension("density", "float", 0.0, 1.0, condition=Condition("method", ("ties",))),
)


class BuiltIn(ProposerConformance):
    name = ""
    population = None

    def make(self, space, *, start, known, seed, num_objectives):
        settings = SearchSettings(optimizer=self.name, seed=seed, population=self.population)
        return make_proposer(
            space, settings, start=start, known=known, num_objectives=num_objectives
        )

    @property
    def takes_conditions(self):
        return OPTIMIZERS[self.name].conditions

    @property
    def takes_several(self):
        return OPTIMIZERS[self.name].several


class TestCma(BuiltIn):
    name = "cma"
    population = 5


class TestTpe(BuiltIn):
    name = "tpe"


class TestSurrogate(BuiltIn):
    name = "surrogate"
    num_trials = 12
    num_known = 6


class TestGp(BuiltIn):
    """It thinks for a second a question: small spaces, the larger ones among the slow tests."""

    name = "gp"
    num_trials = 4
    num_known = 11  # it draws at random before it knows ten

    def test_recalled_at_every_point_it_goes_on_the_same(self):
        self._check_resume(PLANE, 1)

    def test_recalled_with_conditions(self):
        self._check_resume(SMALL, 1)

    @pytest.mark.slow
    @pytest.mark.parametrize("space", [MIXED, CONDITIONAL])
    def test_recalled_with_every_kind(self, space):
        self._check_resume(space, 1)

    @pytest.mark.slow
    def test_recalled_with_several_objectives(self):
        super().test_recalled_with_several_objectives()

    @pytest.mark.slow
    @pytest.mark.parametrize("num_objectives", [2, 3])
    def test_several_objectives(self, num_objectives):
        super().test_several_objectives(num_objectives)


class TestNsga2(BuiltIn):
    name = "nsga2"
    population = 5
    num_known = 3


class TestNsga3(BuiltIn):
    name = "nsga3"
    population = 5


class TestQmc(BuiltIn):
    name = "qmc"


class TestRandom(BuiltIn):
    name = "random"


class TestAuto(BuiltIn):
    """It chooses one of those above, for these spaces the one that thinks long."""

    name = "auto"
    num_trials = 8


def test_every_optimizer_is_tested_here():
    tested = {each.name for each in BuiltIn.__subclasses__()}
    assert tested == set(OPTIMIZERS) == {"auto", *PROPOSERS}
