"""What the surrogate makes of results; that it behaves is tested in test_conformance.py."""

import subprocess
import sys

import numpy as np
import pytest

from evomerge.proposers import Told
from evomerge.proposers.plain_space import PlainSpace
from evomerge.proposers.surrogate import SurrogateProposer
from evomerge.space import Condition, Dimension

LAYERS = [[f"{model}[{layer}]" for layer in range(4)] for model in "ab"]


class Grouped(PlainSpace):
    """Two weights with a value for each of four layers."""

    groups = tuple(tuple(names) for names in LAYERS)


CUBE = Grouped(*[Dimension(name, "float", 0.0, 1.0) for names in LAYERS for name in names])
LINE = PlainSpace(Dimension("t", "float", 0.0, 1.0))
BEST = np.array([0.35, 0.35, 0.55, 0.35, 0.2, 0.2, 0.2, 0.4])
NOISE = 0.05


def new(space, known=(), seed=0, start=None, **options):
    start = start or space.from_unit([0.5] * len(space.dimensions))
    return SurrogateProposer(space, start=start, known=known, seed=seed, **options)


def truth(point):
    vector = np.array(CUBE.to_unit(point))
    means = (vector - BEST).reshape(2, 4).mean(axis=1)
    return 0.6 - 0.5 * float((means**2).sum()) - 0.08 * float(((vector - BEST) ** 2).sum())


def noisy(point, generator, noise=NOISE):
    return Told((truth(point) + noise * generator.standard_normal(),), (noise,), 50)


def search(seed, count=40):
    """Return the point that is best in the end, and what was asked."""
    generator = np.random.default_rng(seed)
    corners = [CUBE.from_unit([x] * 4 + [y] * 4) for x, y in ((0, 0), (1, 0), (0, 1), (0.5, 0.5))]
    known = [(point, noisy(point, generator, 0.01)) for point in corners]
    proposer = new(CUBE, known, seed)
    for number in range(count):
        proposer.tell(number, noisy(proposer.ask(number), generator))
    return proposer.best_point()


def test_it_finds_a_peak_under_noise_that_hides_it():
    """Every result is off by more than what separates the good points from the best."""
    generator = np.random.default_rng(0)
    lucky = []
    for _ in range(20):
        points = [CUBE.from_unit(generator.random(8).tolist()) for _ in range(44)]
        lucky.append(truth(max(points, key=lambda p: noisy(p, generator).value)))
    found = [truth(search(seed)) for seed in range(5)]
    assert np.median(found) > 0.57
    assert np.median(found) > np.quantile(lucky, 0.9)


def test_a_result_counts_by_its_error():
    known = [(LINE.from_unit([x]), Told((0.5,), (0.01,))) for x in (0.0, 0.3, 0.7, 1.0)]
    middle = LINE.from_unit([0.5])
    sure = new(LINE, [*known, (middle, Told((0.9,), (0.01,)))])
    unsure = new(LINE, [*known, (middle, Told((0.9,), (0.4,)))])
    assert sure.expected(middle)[0] > 0.85
    assert unsure.expected(middle)[0] < 0.65


def test_what_models_share_is_learned_from_few_results():
    generator = np.random.default_rng(1)
    levels = generator.random((14, 2))
    known = []
    for x, y in levels:
        point = CUBE.from_unit([x] * 4 + [y] * 4)
        known.append((point, noisy(point, generator, 0.01)))
    tests = [CUBE.from_unit(np.repeat(generator.random(2), 4).tolist()) for _ in range(60)]
    grouped, plain = new(CUBE, known), new(CUBE, known, groups=())
    errors = {
        name: np.mean([(proposer.expected(point)[0] - truth(point)) ** 2 for point in tests])
        for name, proposer in (("grouped", grouped), ("plain", plain))
    }
    assert errors["grouped"] < errors["plain"]


def test_pending_points_differ():
    generator = np.random.default_rng(2)
    points = [CUBE.from_unit(generator.random(8).tolist()) for _ in range(12)]
    proposer = new(CUBE, [(point, noisy(point, generator)) for point in points])
    asked = np.array([CUBE.to_unit(proposer.ask(number)) for number in range(6)])
    distances = np.linalg.norm(asked[:, None] - asked[None], axis=2)[np.triu_indices(6, 1)]
    assert distances.min() > 0.02


def test_what_is_pending_changes_the_error_and_not_the_mean():
    known = [(LINE.from_unit([x]), Told((x,), (0.05,))) for x in (0.0, 0.2, 0.8, 1.0)]
    proposer = new(LINE, known)
    before = proposer.best_point()
    proposer.ask(0)
    proposer.ask(1)
    assert proposer.best_point() == before


def test_failures_are_left_alone_and_one_is_forgiven():
    """What fails again and again is not asked for again."""
    proposer = new(LINE, [(LINE.from_unit([x]), Told((x,), (0.0,))) for x in (0.0, 0.25, 0.5)])
    asked = []
    for number in range(25):
        point = proposer.ask(number)
        asked.append(point["t"])
        proposer.tell(number, Told(None) if point["t"] > 0.7 else Told((point["t"],), (0.0,)))
    assert np.mean(np.array(asked[12:]) > 0.7) < 0.5
    assert 0.5 < proposer.best_point()["t"] <= 0.75


def test_whole_numbers_logs_and_choices():
    space = PlainSpace(
        Dimension("count", "int", 1, 9),
        Dimension("size", "float", 0.001, 1.0, log=True),
        Dimension("method", "choice", choices=("ties", "linear", "dare", None)),
    )

    def worth(point):
        loss = 0.02 * (point["count"] - 7) ** 2 + 0.1 * (np.log10(point["size"]) + 2) ** 2
        return (0.3 if point["method"] == "dare" else 0.0) - loss

    proposer = new(space, seed=3)
    for number in range(45):
        point = proposer.ask(number)
        proposer.tell(number, Told((worth(point),), (0.0,)))
    best = proposer.best_point()
    assert best["method"] == "dare"
    assert best["count"] in (6, 7, 8)
    assert -2.4 < np.log10(best["size"]) < -1.6


def test_conditions():
    space = PlainSpace(
        Dimension("method", "choice", choices=("ties", "linear")),
        Dimension("density", "float", 0.0, 1.0, condition=Condition("method", ("ties",))),
    )
    proposer = new(space, seed=1)
    for number in range(30):
        point = proposer.ask(number)
        assert ("density" in point) == (point["method"] == "ties")
        value = 1.0 - (point["density"] - 0.8) ** 2 if "density" in point else 0.5
        proposer.tell(number, Told((value,), (0.0,)))
    best = proposer.best_point()
    assert best["method"] == "ties"
    assert abs(best["density"] - 0.8) < 0.1


def test_one_broken_candidate_does_not_hide_the_others():
    """A perplexity may be off by orders of magnitude; what is good is still told apart."""
    known = [
        (LINE.from_unit([x]), Told((-((x - 0.3) ** 2) - (1e6 if x > 0.9 else 0.0),), (0.0,)))
        for x in (0.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 1.0)
    ]
    assert abs(new(LINE, known).best_point()["t"] - 0.3) < 0.1


def test_without_results_it_begins_at_the_start():
    start = CUBE.from_unit([0.2] * 8)
    proposer = new(CUBE, start=start)
    assert proposer.best_point() == start
    with pytest.raises(ValueError, match="before there is a result"):
        proposer.expected(start)
    assert proposer.ask(0) == start
    assert proposer.ask(1) != start


def test_several_objectives_are_refused():
    with pytest.raises(ValueError, match="one objective, got 2"):
        new(LINE, num_objectives=2)


SCRIPT = """
from tests.proposers.test_surrogate import CUBE, new, noisy
import numpy as np
generator = np.random.default_rng(0)
proposer = new(CUBE)
for number in range(14):
    proposer.tell(number, noisy(proposer.ask(number), generator))
print(repr(proposer.ask(14)), repr(proposer.best_point()))
"""


def test_processes_agree():
    answers = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(["", *sys.path])},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(answers) == 1
