"""Climbing before searching: Adam in the unit cube, along slopes from backward passes.

A score says how good one point is; a backward pass says of every searched value at once which way
is up. What it costs more does not grow with their number.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from evomerge.errors import EvomergeError, SpaceError
from evomerge.evaluation.calibration import Logistic
from evomerge.search.objectives import ObjectiveFacts
from evomerge.search.study import Study
from evomerge.space import ClimbSettings, Space, climb_obstacle
from evomerge.workers import Assignment, Failed, PoolInfo, Sloped

__all__ = ["COST", "Climb", "ClimbState", "plan_climb", "summarize_climb"]

COST = 3
"""Item evaluations that a forward and a backward pass for one item count as."""

SHARE = 2 / 3
"""Of the budget after the baselines that ``auto`` spends at most."""
FEWEST_STEPS = 10
FEWEST_ITEMS = 8
"""Of a task in a step; ``auto`` rather takes fewer of these than fewer steps."""

APART = 0.05
"""Distance of a tangent in the unit cube. A merge is nearly linear over it, and methods that jump,
as by a sign that is elected, are smoother over a longer way."""

BETAS = (0.9, 0.999)
EPSILON = 1e-8

Array = npt.NDArray[np.float64]
Ask = Callable[[Assignment], Sloped | Failed]

_ORDER, _SIGNS = 0, 1
"""What a random generator is for."""


@dataclass
class ClimbState:
    """A climb as the study keeps it after every step; nothing else is needed to go on.

    Attributes:
        steps: Steps in all; 0 where there is no climb.
        items: Search items a task and step.
        rate: See :class:`evomerge.space.ClimbSettings`.
        reason: What was chosen and why.
        worth: Task -> what its gold answers' probability is worth, as ``Logistic`` in plain form.
        point: Where it stands in the unit cube.
        mean: Adam's first moment.
        square: Adam's second moment.
        total: Sum of the points of the last half.
        values: The weighted sum of what the step's gold answers are worth, before each step.
        spent: Item evaluations that it counts as so far.
        failed: Why it ended early and came to nothing.
        is_cut: Whether it ended early since the search was to end.
    """

    steps: int
    items: int = 0
    rate: float = 0.0
    reason: str = ""
    worth: dict[str, dict[str, float]] = field(default_factory=dict)
    point: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    square: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    spent: int = 0
    failed: str | None = None
    is_cut: bool = False

    @property
    def done(self) -> int:
        """Steps that were taken."""
        return len(self.values)

    @property
    def ended(self) -> bool:
        """Whether there is no step left to take."""
        return self.failed is not None or self.is_cut or self.done >= self.steps

    def average(self) -> list[float] | None:
        """Return the climb's result in the unit cube; None if it came to none.

        It is the mean of the points after the last half of the steps, or where it stands if it was
        cut before that.
        """
        if self.failed is not None or not self.ended or not self.done:
            return None
        count = self.done - self.steps // 2
        if count <= 0:
            return self.point
        return [min(max(each / count, 0.0), 1.0) for each in self.total]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ClimbState":
        """Return the state of its plain form."""
        return cls(**data)


def plan_climb(
    space: Space,
    facts: ObjectiveFacts,
    items: Mapping[str, int],
    climbable: Collection[str],
    *,
    spent: int,
    worth: Mapping[str, Logistic] | None = None,
) -> ClimbState:
    """Return what the settings and the budget give; a climb of 0 steps if it does nothing.

    Args:
        space: The space.
        facts: What loading its tasks said.
        items: Task -> number of its search items.
        climbable: Tasks with a probability of the gold answer to climb.
        spent: Item evaluations of the baselines.
        worth: Task -> what its gold answers' probability is worth; None while nobody knows.

    Raises:
        SpaceError: if the settings ask for a climb that cannot be.
    """
    wanted = space.document.search.climb
    if wanted is False:
        return ClimbState(0, reason="search.climb is false")
    obstacle = climb_obstacle(space.document, space.dimensions)
    if obstacle is None:
        left = [task for task in _tasks(space, facts) if task not in climbable]
        if left:
            obstacle = f"task {left[0]!r} has no gold answer whose probability could be climbed"
    if isinstance(wanted, ClimbSettings):
        if obstacle is not None:
            where = space.origin.where("search", "climb")
            raise SpaceError(f"{where}: this space cannot be climbed: {obstacle}; leave it out")
        return _shorten(wanted, space, [items[task] for task in _tasks(space, facts)], spent)
    if obstacle is None and worth is not None:
        left = [t for t in _tasks(space, facts) if t in facts.blended and t not in worth]
        if left:
            obstacle = (
                f"what the baselines got on {left[0]!r} does not rise with the probability of its "
                "gold answers"
            )
    if obstacle is not None:
        return ClimbState(0, reason=obstacle)
    affordable = _affordable(space, sum(items.values()), spent)
    if affordable is None:
        return ClimbState(0, reason="nobody knows how many items the given seconds are good for")
    return _fit(affordable, len(_tasks(space, facts)))


def _shorten(wanted: ClimbSettings, space: Space, sizes: Sequence[int], spent: int) -> ClimbState:
    """Return the climb that is asked for, with no more steps than the budget of items pays for.

    Args:
        wanted: What is asked for.
        space: The space.
        sizes: Search items of each task that is climbed.
        spent: Item evaluations of the baselines.
    """
    steps, reason = wanted.steps, "search.climb asks for it"
    budget = space.document.search.items
    if budget is not None:
        # Where it leads has to be scored, too.
        left = budget - spent - sum(sizes)
        each = COST * sum(min(wanted.items, size) for size in sizes)
        if left < steps * each:
            steps = max(left // each, 0)
            reason = f"search.climb asks for {wanted.steps}; search.items pays for no more"
    if steps < 2:
        return ClimbState(0, reason="search.items leaves nothing for the climb")
    return ClimbState(steps, wanted.items, wanted.rate, reason)


def _affordable(space: Space, whole: int, spent: int) -> int | None:
    """Return the item evaluations that a climb may take; None without a limit to items."""
    settings = space.document.search
    limits = [] if settings.items is None else [settings.items]
    if settings.trial_limit is not None:
        limits.append(settings.trial_limit * whole)
    return int(SHARE * max(min(limits) - spent, 0)) if limits else None


def _fit(affordable: int, num_tasks: int) -> ClimbState:
    """Return the climb that so many item evaluations are good for."""
    usual = ClimbSettings()
    each = COST * num_tasks
    items = min(max(affordable // (usual.steps * each), FEWEST_ITEMS), usual.items)
    steps = min(affordable // (items * each), usual.steps)
    if steps < FEWEST_STEPS:
        return ClimbState(
            0,
            reason=f"{affordable} item evaluations, {SHARE:.0%} of the budget, are too few for "
            f"{FEWEST_STEPS} steps of {FEWEST_ITEMS} items a task",
        )
    return ClimbState(steps, items, usual.rate, f"fits into {SHARE:.0%} of the budget")


def _tasks(space: Space, facts: ObjectiveFacts) -> tuple[str, ...]:
    """Return the tasks of the objective, groups and tags expanded."""
    (objective, *_) = space.document.objective.values()
    if objective.tasks is None:
        return tuple(facts.weights)
    return tuple(task for name in objective.tasks for task in facts.members[name])


class Climb:
    """Goes up, a step at a time, and keeps where it is.

    Args:
        space: What is searched.
        info: The workers.
        study: Where the state is kept.
        state: The plan, or the state of an earlier process.
    """

    def __init__(self, space: Space, info: PoolInfo, study: Study, state: ClimbState) -> None:
        self._space = space
        self._study = study
        self._seed = space.document.search.seed
        self.state = state
        tasks = _tasks(space, ObjectiveFacts.from_info(info))
        self._items = {task: info.ids["search"][task] for task in tasks}

    def begin(self, point: list[float], worth: Mapping[str, Logistic] | None = None) -> None:
        """Start.

        Args:
            point: In the unit cube.
            worth: Task -> what the probability of its gold answers is worth; without, itself.
        """
        zeros = [0.0] * len(point)
        self.state.worth = {task: asdict(each) for task, each in (worth or {}).items()}
        self.state.point = [min(max(each, 0.0), 1.0) for each in point]
        self.state.mean, self.state.square, self.state.total = zeros, zeros, zeros
        self._keep()

    def step(self, ask: Ask) -> None:
        """Take one step; a failure ends the climb."""
        state = self.state
        here = np.array(state.point)
        ways = self._ways(here)
        try:
            assignment = Assignment(
                len(self._study.records),
                self._recipe(here),
                "search",
                self._batch(),
                tuple(self._recipe(here + way) for way in np.diag(ways)),
                {task: Logistic(**each) for task, each in state.worth.items()},
            )
        except EvomergeError as error:
            return self._fail(" ".join(str(error).split()))
        outcome = ask(assignment)
        if isinstance(outcome, Failed):
            return self._fail(outcome.reason)
        state.spent += COST * outcome.items
        self._move(here, np.array(outcome.slopes) / ways)
        state.values.append(outcome.value)
        return self._keep()

    def cut(self) -> None:
        """End here; a climb of a few steps is left for a later session."""
        if self.state.done >= FEWEST_STEPS:
            self.state.is_cut = True
            self._keep()

    def _move(self, here: Array, slopes: Array) -> None:
        """Take a step of Adam (Kingma and Ba 2014, algorithm 1) upwards, inside the cube."""
        state = self.state
        count = state.done + 1
        mean = BETAS[0] * np.array(state.mean) + (1 - BETAS[0]) * slopes
        square = BETAS[1] * np.array(state.square) + (1 - BETAS[1]) * slopes**2
        direction = mean / (1 - BETAS[0] ** count)
        scale = np.sqrt(square / (1 - BETAS[1] ** count)) + EPSILON
        there = np.clip(here + state.rate * direction / scale, 0.0, 1.0)
        state.point, state.mean, state.square = there.tolist(), mean.tolist(), square.tolist()
        if state.done >= state.steps // 2:
            state.total = (np.array(state.total) + there).tolist()

    def _ways(self, here: Array) -> Array:
        """Return how far the tangent along each value is, forward or backward, in the cube."""
        draw = np.random.default_rng([self._seed, _SIGNS, self.state.done])
        ways = APART * draw.choice([-1.0, 1.0], len(here))
        outside = (here + ways < 0.0) | (here + ways > 1.0)
        return np.where(outside, -ways, ways)

    def _batch(self) -> dict[str, tuple[str, ...]]:
        """Return this step's items: every item of a task comes before one comes again."""
        batch = {}
        for index, (task, ids) in enumerate(self._items.items()):
            count = min(self.state.items, len(ids))
            places = range(self.state.done * count, (self.state.done + 1) * count)
            chosen = []
            for round_ in dict.fromkeys(place // len(ids) for place in places):
                draw = np.random.default_rng([self._seed, _ORDER, index, round_])
                order = draw.permutation(len(ids))
                mine = [place for place in places if place // len(ids) == round_]
                chosen += [ids[order[place % len(ids)]] for place in mine]
            batch[task] = tuple(dict.fromkeys(chosen))
        return batch

    def _recipe(self, point: Array) -> dict[str, Any]:
        return self._space.decode(self._space.from_unit(point.tolist())).to_dict()

    def _fail(self, reason: str) -> None:
        self.state.failed = reason
        self._keep()

    def _keep(self) -> None:
        self._study.set_attribute("climb", self.state.to_dict())


def summarize_climb(kept: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what ``result.json`` says of a climb that a study keeps; None without one."""
    if kept is None or not kept["steps"]:
        return None
    state = ClimbState.from_dict(kept)
    content = {"steps": state.done, "items": state.items, "item_evaluations": state.spent}
    return {**content, "values": state.values, "failed": state.failed}
