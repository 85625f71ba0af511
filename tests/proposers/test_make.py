"""From a name to a proposer: refusals, the user's own, and what several processes agree on."""

import json
import subprocess
import sys

import numpy as np
import pytest

from evomerge.errors import SpaceError
from evomerge.proposers import PROPOSERS, Told, make_proposer
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

    def test_its_refusal_is_one_message(self, tmp_path):
        with pytest.raises(SpaceError, match=r"making it failed: ValueError: one objective only"):
            make("mine:Middle", folder=tmp_path, num_objectives=2)


def test_the_table_is_the_table():
    assert set(OPTIMIZERS) == {"auto", *PROPOSERS}
