"""Coarse to fine: one proposer after the other, each over finer groups than the one before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evomerge.proposers.base import Proposer, Told, UnitSpace
from evomerge.proposers.pending import Pending, check_told
from evomerge.proposers.points import check_same
from evomerge.proposers.tied import TiedSpace
from evomerge.space import Value

__all__ = ["Stage", "StagedProposer"]

Known = Sequence[tuple[Mapping[str, Value], Told]]


@dataclass(frozen=True)
class Stage:
    """A part of a search.

    Attributes:
        groups: Names of the numbers that move together; none in a stage where each is alone.
        questions: Questions of the whole search after which the next stage begins, or None.
        items: Item evaluations, told or known, after which the next stage begins, or None.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    questions: int | None = None
    items: int | None = None


class StagedProposer:
    """Searches in stages, each from the best point that is known when it begins.

    Which stage a question belongs to is a function of the calls before it: how many questions there
    were, and how many items the told results had. Where the proposer of a stage has nothing left to
    ask, the next stage begins.

    In a stage with groups, each of them is shifted from the stage's start (see :class:`TiedSpace`).
    The next stage knows all results so far that its groups can express. A result that comes when
    its stage is over is no longer told to anyone, but counts when a later stage begins.

    Args:
        space: What is searched.
        stages: From coarse to fine; the last one has no end.
        make: Index of a stage, its space, start and known points -> its proposer.
        start: The point to start from.
        known: Points with known results.
        num_objectives: How many numbers are raised; the first of them says which point is best.

    Raises:
        EvomergeError: what ``make`` raises.
        ValueError: what ``make`` raises; or if there is no stage.
    """

    def __init__(
        self,
        space: UnitSpace,
        stages: Sequence[Stage],
        make: Callable[[int, UnitSpace, Mapping[str, Value], Known], Proposer],
        *,
        start: Mapping[str, Value],
        known: Known,
        num_objectives: int = 1,
    ) -> None:
        if not stages:
            raise ValueError("a search in stages has one stage at least, got none")
        self._space = space
        self._stages = tuple(stages)
        self._make = make
        self._start = dict(start)
        self._results = [(dict(point), told) for point, told in known]
        self._num_objectives = num_objectives
        self._num_asked = 0
        self._items = sum(told.items for _, told in known)
        self._pending: Pending[tuple[int, dict[str, Value]]] = Pending()
        self._index = 0
        self._view, self._inner = self._begin()

    def ask(self, number: int) -> dict[str, Value]:
        """Return the next point of the stage that the question belongs to."""
        self._advance()
        point = self._inner.ask(number)
        if self._view is not None:
            point = self._view.expand(point)
        self._note(number, point)
        return point

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Repeat a question of an earlier process."""
        self._advance()
        inner = point
        if self._view is not None:
            inner = self._view.contract(point)
            check_same(number, self._view.expand(inner), point, "evomerge")
        self._inner.recall(number, inner)
        self._note(number, point)

    def tell(self, number: int, told: Told) -> None:
        """Take one result."""
        check_told(told, self._num_objectives)
        index, point = self._pending.take(number)
        if index == self._index:
            self._inner.tell(number, told)
        self._results.append((point, told))
        self._items += told.items

    def should_stop(self) -> str | None:
        """Return why the last stage has nothing left, or None."""
        return self._inner.should_stop() if self._is_last() else None

    def _is_last(self) -> bool:
        return self._index == len(self._stages) - 1

    def _note(self, number: int, point: Mapping[str, Value]) -> None:
        self._pending.add(number, (self._index, dict(point)))
        self._num_asked += 1

    def _advance(self) -> None:
        """Begin the stage that the next question belongs to."""
        while not self._is_last() and (
            self._is_over(self._stages[self._index]) or self._inner.should_stop() is not None
        ):
            self._index += 1
            while not self._is_last() and self._is_over(self._stages[self._index]):
                self._index += 1
            self._start = _best(self._results) or self._start
            self._view, self._inner = self._begin()

    def _is_over(self, stage: Stage) -> bool:
        asked, items = stage.questions, stage.items
        return (asked is not None and self._num_asked >= asked) or (
            items is not None and self._items >= items
        )

    def _begin(self) -> tuple[TiedSpace | None, Proposer]:
        groups = self._stages[self._index].groups
        known = [(point, told) for point, told in self._results if told.values is not None]
        if not groups:
            return None, self._make(self._index, self._space, self._start, known)
        view = TiedSpace(self._space, groups, self._start)
        tied = [(view.contract(point), told) for point, told in known if view.holds(point)]
        return view, self._make(self._index, view, view.contract(self._start), tied)


def _best(results: Known) -> dict[str, Value] | None:
    """Return the best point: the highest of those without an error, else less its error."""
    exact: list[tuple[float, Mapping[str, Value]]] = []
    careful: list[tuple[float, Mapping[str, Value]]] = []
    for point, told in results:
        if told.values is not None:
            stderr = told.stderrs[0] if told.stderrs else 0.0
            careful.append((told.values[0] - stderr, point))
            if stderr == 0.0:
                exact.append((told.values[0], point))
    if not careful:
        return None
    _, best = max(exact or careful, key=lambda each: each[0])
    return dict(best)
