"""From a name to a proposer: refusals, the user's own, and what several processes agree on."""

import json
import subprocess
import sys

import numpy as np
import pytest

from evomerge.errors import SpaceError
from evomerge.proposers import PROPOSERS, Told, check_user_class, make_proposer
from evomerge.proposers.conformance import CONDITIONAL, LINE, MIXED
from evomerge.space import OPTIMIZERS, SearchSettings, parse_space
from tests.conftest import ENVIRONMENT

RUN = """
import json, sys
from evomerge.proposers import Told, make_proposer
from evomerge.proposers.conformance import CONDITIONAL, MIXED, score
from evomerge.space import OPTIMIZERS, SearchSettings

points = []
for name in sorted(set(OPTIMIZERS) - {"auto"}):  # that is one of the others
    for space in (MIXED, CONDITIONAL):
        if name == "gp" or (space is CONDITIONAL and not OPTIMIZERS[name].conditions):
            continue
        settings = SearchSettings(optimizer=name, population=5)
        start = space.from_unit([0.5] * 5)
        proposer = make_proposer(space, settings, start=start, known=[])
        for number in range(15):
            points.append(proposer.ask(number))
            proposer.tell(number, Told((score(points[-1]),)))
print(json.dumps(points))
"""


def make(name, space=LINE, **arguments):
    start = space.from_unit([0.5] * len(space.dimensions))
    settings = SearchSettings(optimizer=name)
    return make_proposer(space, settings, **{"start": start, "known": [], **arguments})


def test_two_processes_with_other_hashes_propose_the_same():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", RUN],
            env=ENVIRONMENT | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (0, 1)
    ]
    assert len(json.loads(outputs[0])) > 150
    assert outputs[0] == outputs[1]


def test_conditions_are_refused_with_the_names_of_those_that_can():
    message = (
        r"values that exist only .* \(density, rescale, steps\) .*auto, tpe, surrogate, .*, got cma"
    )
    with pytest.raises(SpaceError, match=message):
        make("cma", CONDITIONAL)


def test_several_objectives_are_refused_with_the_names_of_those_that_can():
    with pytest.raises(SpaceError, match=r"2 objectives .* for several: auto, tpe, .*, got cma"):
        make("cma", num_objectives=2)


def test_a_misspelt_name_is_answered_with_the_nearest():
    data = {"recipe": {}, "tasks": [], "search": {"optimizer": "rnadom"}}
    message = r"search.optimizer: there is no such optimizer; did you mean 'random'\?.*module:Class"
    with pytest.raises(SpaceError, match=message):
        parse_space(data)


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_known_points_are_learned_from(name):
    known = [(LINE.from_unit([x]), Told((-((x - 0.75) ** 2),))) for x in np.linspace(0, 1, 20)]
    proposer = make(name, known=known)
    count = 15 if name == "tpe" else 3
    points = [proposer.ask(number)["t"] for number in range(count)]
    assert abs(np.median(points) - 0.75) < 0.1


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_known_points_are_the_first_generation(name):
    """So the first question already has parents, and children stay near the best of them."""
    known = [(MIXED.from_unit([x] * 5), Told((-abs(x - 0.7),))) for x in np.linspace(0, 1, 50)]
    proposer = make(name, MIXED, known=known)
    points = [MIXED.to_unit(proposer.ask(number)) for number in range(12)]
    assert np.median(np.abs(np.array(points) - 0.7)) < 0.15


def test_qmc_fills_the_line_evenly():
    proposer = make("qmc")
    values = sorted(proposer.ask(number)["t"] for number in range(32))
    assert [int(32 * value) for value in values] == list(range(32))


USER = """
class Middle:
    def __init__(self, space, *, start, known, seed, num_objectives):
        if num_objectives > 1:
            raise ValueError("one objective only")
        self.start = start
    def ask(self, number):
        return dict(self.start)
    def recall(self, number, point):
        pass
    def tell(self, number, told):
        pass
    def should_stop(self):
        return "there is one point only"

class Incomplete:
    def __init__(self, space, **known):
        pass
    def ask(self, number):
        pass

class Answers(Middle):
    def ask(self, number):
        return self.start.get("point", self.start)
    def should_stop(self):
        return self.start["stop"]

class Broken(Middle):
    def ask(self, number):
        raise RuntimeError("no   idea")
    tell = recall = should_stop = lambda self, *_: {}["key"]

number = 3
"""


class TestUserS:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        (tmp_path / "mine.py").write_text(USER)
        (tmp_path / "broken.py").write_text("import nothing_of_this_name")
        return tmp_path

    def test_it_is_found_beside_the_space(self, tmp_path):
        proposer = make("mine:Middle", folder=tmp_path)
        assert proposer.ask(0) == {"t": 0.5}
        assert proposer.should_stop() == "there is one point only"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("mine:Midle", r"no class 'Midle'; did you mean 'Middle'"),
            ("mine:number", r"no class 'number'"),
            ("mine:Incomplete", r"recall, tell, should_stop is missing"),
            ("nowhere:Middle", r"no module 'nowhere': neither nowhere.py in "),
            ("broken:Middle", r"no module 'nothing_of_this_name'"),
        ],
    )
    def test_what_is_wrong_is_one_message(self, tmp_path, name, message):
        with pytest.raises(SpaceError, match=rf"optimizer '{name}': .*{message}"):
            make(name, folder=tmp_path)

    def test_a_constructor_that_takes_other_arguments_shows_at_once(self, tmp_path):
        (tmp_path / "other.py").write_text("class Other:\n    def __init__(self, space): pass")
        check_user_class("mine:Middle", tmp_path)
        message = r"optimizer 'other:Other': .*'start'; it is called as Class\(space, start="
        with pytest.raises(SpaceError, match=message):
            check_user_class("other:Other", tmp_path)

    def test_its_refusal_is_one_message(self, tmp_path):
        with pytest.raises(SpaceError, match=r"making it failed: ValueError: one objective only"):
            make("mine:Middle", folder=tmp_path, num_objectives=2)

    @pytest.mark.parametrize(
        ("point", "message"),
        [
            ({"point": None}, "returned None, and not a dict"),
            ({"point": {}}, "returned no value for weight"),
            ({"weight": 7}, r"returned weight = 7, which is not a number from -1 to 1"),
            ({"weight": float("nan")}, r"returned weight = nan, which is not a number from"),
            ({"weight": "0.5"}, r"returned weight = '0.5', which is not a number from"),
            ({"weight": True}, r"returned weight = True, which is not a number from"),
            ({"count": 2.5}, r"returned count = 2.5, which is not a whole number from 1 to 5"),
            (
                {"method": "tie"},
                r"returned method = 'tie', which is none of 'ties', 'linear', None",
            ),
            ({"wieght": 0.5}, r"returned a value for 'wieght': did you mean 'weight'"),
        ],
    )
    def test_a_point_that_is_none_is_one_message(self, tmp_path, point, message):
        start = {**MIXED.from_unit([0.5] * 5), **point}
        proposer = make("mine:Answers", MIXED, folder=tmp_path, start=start)
        with pytest.raises(SpaceError, match=rf"^optimizer 'mine:Answers': ask\(3\) {message}"):
            proposer.ask(3)

    def test_a_value_that_does_not_exist_at_its_point(self, tmp_path):
        start = {"method": "linear", "weight": 1.0, "density": 0.5}
        proposer = make("mine:Answers", CONDITIONAL, folder=tmp_path, start=start)
        with pytest.raises(SpaceError, match="value for 'density': does not exist at this point"):
            proposer.ask(3)

    def test_numbers_of_numpy_and_any_order_are_taken(self, tmp_path):
        good = {"weight": 0.25, "density": 0.5, "count": 3, "size": 10, "method": "ties"}
        start = {
            "method": np.str_("ties"),
            "size": np.int64(10),
            "count": 3.0,
            "density": np.float32(0.5),
            "weight": np.float64(0.25),
        }
        point = make("mine:Answers", MIXED, folder=tmp_path, start=start).ask(0)
        assert list(point.items()) == list(good.items())
        assert [type(value) for value in point.values()] == [float, float, int, int, str]

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (None, None),
            (False, None),
            ("all seen", "all seen"),
            (True, "the optimizer has nothing left to propose"),
        ],
    )
    def test_its_reason_to_stop(self, tmp_path, answer, reason):
        proposer = make("mine:Answers", MIXED, folder=tmp_path, start={"stop": answer})
        assert proposer.should_stop() == reason

    def test_what_it_raises_is_one_message_with_the_place(self, tmp_path):
        proposer = make("mine:Broken", MIXED, folder=tmp_path)
        line = 1 + USER.splitlines().index('        raise RuntimeError("no   idea")')
        place = rf"\(mine.py, line {line}\)"
        with pytest.raises(SpaceError, match=rf"ask\(3\) raised RuntimeError: no idea {place}"):
            proposer.ask(3)
        with pytest.raises(SpaceError, match=r"tell\(3, …\) raised KeyError: 'key' \(mine.py"):
            proposer.tell(3, Told((0.5,)))
        with pytest.raises(SpaceError, match=r"recall\(3, …\) raised KeyError"):
            proposer.recall(3, {})
        with pytest.raises(SpaceError, match=r"should_stop\(\) raised KeyError"):
            proposer.should_stop()


def test_the_table_is_the_table():
    assert set(OPTIMIZERS) == {"auto", *PROPOSERS}
