"""What every proposer must do, as tests for pytest: for the built-in ones and for a user's own.

Subclass :class:`ProposerConformance` in a test file and say how a proposer is made; pytest does
the rest.
"""

import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from evomerge.errors import EvomergeError
from evomerge.proposers.base import Proposer, Told, UnitSpace
from evomerge.proposers.plain_space import PlainSpace
from evomerge.space import Condition, Dimension, Value

__all__ = ["CONDITIONAL", "LINE", "MIXED", "PLANE", "ProposerConformance"]

MIXED = PlainSpace(
    Dimension("weight", "float", -1.0, 1.0),
    Dimension("density", "float", 0.01, 1.0, log=True),
    Dimension("count", "int", 1, 5),
    Dimension("size", "int", 1, 1000, log=True),
    Dimension("method", "choice", choices=("ties", "linear", None)),
)
"""Every kind of dimension."""

LINE = PlainSpace(Dimension("t", "float", 0.0, 1.0))
"""One dimension."""

PLANE = PlainSpace(Dimension("weight", "float", 0.0, 1.0), Dimension("t", "float", 0.0, 1.0))
"""Two dimensions, for several objectives."""

CONDITIONAL = PlainSpace(
    Dimension("method", "choice", choices=("ties", "dare", "linear")),
    Dimension("weight", "float", 0.0, 2.0),
    Dimension("density", "float", 0.0, 1.0, condition=Condition("method", ("ties", "dare"))),
    Dimension("rescale", "choice", choices=("l1", "l2"), condition=Condition("method", ("dare",))),
    Dimension("steps", "int", 1, 9, condition=Condition("rescale", ("l2",))),
)
"""Dimensions that exist only with some methods, and one that depends on such a one."""

Point = Mapping[str, Value]
Call = tuple[str, int]


def score(point: Point) -> float:
    """Return a smooth number, larger is better, for any point of these spaces."""
    weight, density = float(point.get("weight") or 0.0), float(point.get("density") or 0.5)
    bonus = 0.1 if point.get("method") == "ties" else 0.0
    return bonus - (weight - 0.3) ** 2 - (density - 0.5) ** 2


def check_point(space: UnitSpace, point: Point) -> None:
    """Assert that a point is of a space: its dimensions in their order, each value legal."""
    expected: dict[str, Value] = {}
    for dimension in space.dimensions:
        name = dimension.name
        if not dimension.exists(expected):
            assert name not in point, f"{name} does not exist at {point}"
            continue
        assert name in point, f"{name} is missing in {point}"
        value = expected[name] = point[name]
        if dimension.kind == "choice":
            assert value in dimension.choices, f"{name} = {value!r} is no option"
        else:
            kind = int if dimension.kind == "int" else float
            assert type(value) is kind, f"{name} = {value!r} is no {kind.__name__}"
            assert dimension.low <= value <= dimension.high, f"{name} = {value!r} is outside"
    assert list(point) == list(expected), "the values stand in the order of the dimensions"


class ProposerConformance:
    """The suite.

    A subclass whose name begins with ``Test`` gives :meth:`make`, and sets the attributes where its
    proposer differs.

    Attributes:
        takes_conditions: Whether it searches spaces with conditions; else ``make`` refuses them.
        takes_several: Whether it raises several objectives; else ``make`` refuses them.
        num_trials: Trials in a run; fewer for a proposer that thinks long.
        num_known: Points with known results, for the tests of what a proposer makes of results.
    """

    takes_conditions: bool = True
    takes_several: bool = True
    num_trials: int = 25
    num_known: int = 0

    def make(
        self,
        space: UnitSpace,
        *,
        start: Point,
        known: Sequence[tuple[Point, Told]],
        seed: int,
        num_objectives: int,
    ) -> Proposer:
        """Return a new proposer.

        Args:
            space: What is searched.
            start: The point to start from.
            known: Points with known results.
            seed: Seed of the run.
            num_objectives: How many numbers are raised.
        """
        raise NotImplementedError

    # The way the tests call it.

    def new(
        self,
        space: UnitSpace = MIXED,
        *,
        seed: int = 0,
        num_objectives: int = 1,
        num_known: int = 0,
    ) -> Proposer:
        """Return a new proposer that knows some points."""
        generator = np.random.default_rng(11)
        vectors = generator.random((num_known, len(space.dimensions)))
        points = [space.from_unit(vector.tolist()) for vector in vectors]
        return self.make(
            space,
            start=space.from_unit([0.5] * len(space.dimensions)),
            known=[(point, self.result(point, num_objectives)) for point in points],
            seed=seed,
            num_objectives=num_objectives,
        )

    def result(self, point: Point, num_objectives: int = 1, stderr: float | None = None) -> Told:
        """Return what a trial of a point gives."""
        values = [score(point), float(point.get("weight") or 0.0), float(point.get("t") or 0.0)]
        stderrs = () if stderr is None else (stderr,) * num_objectives
        return Told(tuple(values[:num_objectives]), stderrs, items=40)

    def play(self, proposer: Proposer, count: int, num_objectives: int = 1) -> list[Point]:
        """Return the points of a run with one worker, in which some trials fail."""
        points: list[Point] = []
        for number in range(count):
            point = proposer.ask(number)
            points.append(dict(point))
            failed = number % 7 == 3
            proposer.tell(number, Told(None) if failed else self.result(point, num_objectives))
        return points

    # Points.

    def test_points_are_inside(self) -> None:
        for point in self.play(self.new(num_known=self.num_known), self.num_trials):
            check_point(MIXED, point)

    def test_one_dimension(self) -> None:
        for point in self.play(self.new(LINE, num_known=self.num_known), self.num_trials):
            check_point(LINE, point)

    def test_only_dimensions_that_exist(self) -> None:
        if not self.takes_conditions:
            with pytest.raises((EvomergeError, ValueError)):
                self.new(CONDITIONAL)
            return
        proposer = self.new(CONDITIONAL, num_known=self.num_known)
        for point in self.play(proposer, self.num_trials):
            check_point(CONDITIONAL, point)

    def test_a_caller_may_change_what_it_got(self) -> None:
        one, other = self.new(), self.new()
        for number in range(min(8, self.num_trials)):
            point, same = one.ask(number), other.ask(number)
            assert point == same
            result = self.result(point)
            point.clear()
            one.tell(number, result)
            other.tell(number, result)

    @pytest.mark.parametrize("num_objectives", [2, 3])
    def test_several_objectives(self, num_objectives: int) -> None:
        if not self.takes_several:
            with pytest.raises((EvomergeError, ValueError)):
                self.new(PLANE, num_objectives=num_objectives)
            return
        proposer = self.new(PLANE, num_objectives=num_objectives, num_known=self.num_known)
        for point in self.play(proposer, self.num_trials, num_objectives):
            check_point(PLANE, point)

    # Chance.

    def test_the_seed_decides(self) -> None:
        count = min(12, self.num_trials)
        assert self.play(self.new(), count) == self.play(self.new(), count)
        assert self.play(self.new(), count) != self.play(self.new(seed=1), count)

    def test_global_generators_are_left_alone(self) -> None:
        before = _states_of_generators()
        self.play(self.new(), min(12, self.num_trials))
        for name, state in before.items():
            assert str(_states_of_generators()[name]) == str(state), f"{name} was used"

    # Results.

    def test_all_failed_is_survived(self) -> None:
        proposer = self.new()
        for number in range(self.num_trials):
            check_point(MIXED, proposer.ask(number))
            proposer.tell(number, Told(None))
        check_point(MIXED, proposer.ask(self.num_trials))

    def test_equal_results_are_survived(self) -> None:
        proposer = self.new()
        for number in range(self.num_trials):
            check_point(MIXED, proposer.ask(number))
            proposer.tell(number, Told((0.25,), (0.0,), items=40))

    def test_estimates_of_trials_that_stopped_early(self) -> None:
        """Standard errors are told for some trials and not for others."""
        proposer = self.new()
        for number in range(self.num_trials):
            point = proposer.ask(number)
            check_point(MIXED, point)
            stderr = (None, 0.0, 0.3)[number % 3]
            proposer.tell(number, self.result(point, stderr=stderr))

    def test_asking_ahead_and_telling_in_any_order(self) -> None:
        proposer = self.new()
        points = {number: proposer.ask(number) for number in range(self.num_trials)}
        for number in reversed(range(self.num_trials)):
            check_point(MIXED, points[number])
            proposer.tell(number, self.result(points[number]))
        check_point(MIXED, proposer.ask(self.num_trials))

    def test_should_stop_gives_a_reason_or_none(self) -> None:
        proposer = self.new()
        self.play(proposer, 3)
        reason = proposer.should_stop()
        assert reason is None or isinstance(reason, str)

    # The order of calls.

    def test_only_asked_numbers_can_be_told(self) -> None:
        proposer = self.new()
        result = self.result(proposer.ask(0))
        proposer.tell(0, result)
        for number in (0, 9):
            with pytest.raises((RuntimeError, ValueError), match=str(number)):
                proposer.tell(number, result)

    def test_a_result_has_a_value_for_each_objective(self) -> None:
        proposer = self.new()
        proposer.ask(0)
        with pytest.raises(ValueError, match="2"):
            proposer.tell(0, Told((0.1, 0.2)))
        proposer.tell(0, Told((0.1,)))  # the wrong call changed nothing

    # Resume.

    def test_recalled_at_every_point_it_goes_on_the_same(self) -> None:
        self._check_resume(MIXED, 1)

    def test_recalled_with_conditions(self) -> None:
        if self.takes_conditions:
            self._check_resume(CONDITIONAL, 1)

    def test_recalled_with_several_objectives(self) -> None:
        if self.takes_several:
            self._check_resume(PLANE, 2)

    def _check_resume(self, space: UnitSpace, num_objectives: int) -> None:
        """Stop a run with three workers after each call, and compare the next two questions."""
        log = _calls(self.num_trials)
        num = self.num_known
        whole = self.new(space, num_objectives=num_objectives, num_known=num)
        points: dict[int, dict[str, Value]] = {}
        for call, number in log:
            if call == "ask":
                points[number] = dict(whole.ask(number))
            else:
                whole.tell(number, self._outcome(points[number], number, num_objectives))
        # A study keeps no types of its own: what comes back is equal, not the same.
        kept = {number: dict(point) for number, point in points.items()}
        for stop in range(len(log)):
            resumed = self.new(space, num_objectives=num_objectives, num_known=num)
            compared = 0
            for index, (call, number) in enumerate(log):
                if call == "tell":
                    resumed.tell(number, self._outcome(kept[number], number, num_objectives))
                elif index < stop:
                    resumed.recall(number, kept[number])
                else:
                    again = resumed.ask(number)
                    assert again == kept[number], f"stopped after {stop} calls, trial {number}"
                    compared += 1
                    if compared == 2:
                        break

    def _outcome(self, point: Point, number: int, num_objectives: int) -> Told:
        if number % 6 == 5:
            return Told(None)
        return self.result(point, num_objectives, stderr=0.1 if number % 4 == 1 else 0.0)


def _calls(count: int) -> list[Call]:
    """Return the calls of a run with three workers, whose results come in no order."""
    chance = random.Random(3)  # noqa: S311
    calls: list[Call] = []
    busy: list[int] = []
    for number in range(count):
        if len(busy) == 3:
            calls.append(("tell", busy.pop(chance.randrange(3))))
        calls.append(("ask", number))
        busy.append(number)
    return calls


def _states_of_generators() -> dict[str, Any]:
    states: dict[str, Any] = {
        "random": random.getstate(),
        "numpy.random": _plain(np.random.get_state()),  # noqa: NPY002
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.get_rng_state().tolist()
    return states


def _plain(state: Iterable[Any]) -> list[Any]:
    return [part.tolist() if isinstance(part, np.ndarray) else part for part in state]
