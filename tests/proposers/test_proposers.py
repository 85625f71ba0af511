"""What every proposer must do, and what CMA-ES does with it."""

import itertools

import numpy as np
import pytest

from evomerge.errors import StudyError
from evomerge.proposers import PROPOSERS, Told, make_proposer
from evomerge.space import Dimension, SearchSettings


class Cube:
    """Dimensions and the unit cube, without a recipe."""

    def __init__(self, *dimensions):
        self.dimensions = dimensions

    def from_unit(self, vector):
        pairs = zip(self.dimensions, vector, strict=True)
        return {d.name: d.from_unit(unit) for d, unit in pairs}

    def to_unit(self, point):
        return [d.to_unit(point[d.name]) for d in self.dimensions]


MIXED = Cube(
    Dimension("weight", "float", -1.0, 1.0),
    Dimension("density", "float", 0.01, 1.0, log=True),
    Dimension("count", "int", 1, 5),
    Dimension("method", "choice", choices=("ties", "linear")),
)
FAILED = Told(None)
LINE = Cube(Dimension("t", "float", 0.0, 1.0))


def make(name, space=MIXED, seed=0, **settings):
    start = space.from_unit([0.5] * len(space.dimensions))
    return make_proposer(
        space, SearchSettings(optimizer=name, seed=seed, **settings), start=start, known=[]
    )


def score(point):
    """A smooth objective with its best at weight 0.3, density 0.5."""
    value = -((float(point.get("weight", 0.0)) - 0.3) ** 2)
    return value - (float(point.get("density", 0.5)) - 0.5) ** 2 + 0.01 * point.get("count", 0)


def told(value):
    return Told((value,))


def play(proposer, count, first=0):
    points = []
    for number in range(first, first + count):
        point = proposer.ask(number)
        points.append(point)
        proposer.tell(number, FAILED if number % 7 == 3 else told(score(point)))
    return points


@pytest.fixture(params=sorted(PROPOSERS))
def name(request):
    return request.param


class TestConformance:
    def test_points_are_inside(self, name):
        for point in play(make(name), 40):
            assert list(point) == [d.name for d in MIXED.dimensions]
            assert -1.0 <= point["weight"] <= 1.0
            assert 0.01 <= point["density"] <= 1.0
            assert point["count"] in range(1, 6)
            assert point["method"] in ("ties", "linear")

    def test_the_seed_decides(self, name):
        assert play(make(name), 30) == play(make(name), 30)
        assert play(make(name), 5) != play(make(name, seed=1), 5)

    def test_numpy_s_global_generator_is_left_alone(self, name):
        np.random.seed(7)  # noqa: NPY002
        expected = np.random.random()  # noqa: NPY002
        np.random.seed(7)  # noqa: NPY002
        play(make(name), 12)
        assert np.random.random() == expected  # noqa: NPY002

    def test_one_dimension(self, name):
        assert len(play(make(name, LINE), 15)) == 15

    def test_only_asked_numbers_can_be_told(self, name):
        proposer = make(name)
        proposer.ask(0)
        proposer.tell(0, told(0.5))
        with pytest.raises(RuntimeError, match="trial 0 was not asked, or was told before"):
            proposer.tell(0, told(0.5))
        with pytest.raises(RuntimeError, match="trial 9"):
            proposer.tell(9, told(0.5))

    def test_all_failed_is_survived(self, name):
        proposer = make(name)
        for number in range(30):
            proposer.ask(number)
            proposer.tell(number, FAILED)
        assert proposer.ask(30)

    def test_asking_ahead_and_telling_in_any_order(self, name):
        proposer = make(name)
        points = {number: proposer.ask(number) for number in range(25)}
        for number in reversed(range(25)):
            proposer.tell(number, told(score(points[number])))
        assert proposer.ask(25)

    @pytest.mark.parametrize("stop", range(0, 26, 5))
    def test_recalled_in_a_new_proposer_it_goes_on_the_same(self, name, stop):
        """The log of calls is the state: pending questions and failures included."""
        whole, half = make(name), make(name)
        calls = [("ask", n) for n in range(3)]
        calls += itertools.chain.from_iterable([("tell", n), ("ask", n + 3)] for n in range(25))
        asked = {}
        for index, (call, number) in enumerate(calls):
            if call == "ask":
                asked[number] = whole.ask(number)
                if index < 2 * stop:
                    half.recall(number, asked[number])
                else:
                    assert half.ask(number) == asked[number]
            else:
                value = FAILED if number % 6 == 5 else told(score(asked[number]))
                whole.tell(number, value)
                half.tell(number, value)


def test_cma_climbs():
    space = Cube(*[Dimension(f"w{i}", "float", 0.0, 1.0) for i in range(6)])
    proposer = make("cma", space)
    best = -np.inf
    for number in range(400):
        point = proposer.ask(number)
        value = -sum((v - 0.8) ** 2 for v in point.values())
        best = max(best, value)
        proposer.tell(number, told(value))
    assert best > -1e-3


def test_cma_starts_at_the_start():
    space = Cube(*[Dimension(f"w{i}", "float", 0.0, 1.0) for i in range(4)])
    start = space.from_unit([0.9, 0.1, 0.9, 0.1])
    settings = SearchSettings(optimizer="cma", sigma=0.01)
    proposer = make_proposer(space, settings, start=start, known=[])
    for number in range(8):
        assert proposer.ask(number) == pytest.approx(start, abs=0.06)


def test_cma_refuses_a_history_that_is_not_its_own():
    with pytest.raises(StudyError, match="trial 0: the study holds weight = 0.123"):
        make("cma").recall(0, {"weight": 0.123})


def test_tpe_learns_from_known_points():
    settings = SearchSettings(optimizer="tpe")
    known = [(LINE.from_unit([x]), told(-((x - 0.75) ** 2))) for x in np.linspace(0, 1, 40)]
    proposer = make_proposer(LINE, settings, start=known[0][0], known=known)
    points = [proposer.ask(number)["t"] for number in range(20)]
    assert abs(np.median(points) - 0.75) < 0.1
