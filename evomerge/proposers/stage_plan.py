"""Which stages a search has, and for how long: by dimensions and budget, or as the settings say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.errors import SpaceError
from evomerge.proposers.base import Told, UnitSpace
from evomerge.proposers.staged import Stage
from evomerge.space import LEVELS, Level, SearchSettings, Value, is_user_class

__all__ = ["PlannedStage", "StagePlan", "plan_stages"]

Known = Sequence[tuple[Mapping[str, Value], Told]]

_MANY_TRIALS = 30
"""Trials a value from which on a search of all values at once is left alone."""

_COARSER = 1.5
"""How many times fewer values a stage has that `auto` pays for."""

_UNSUITED = {
    "surrogate": "surrogate compares points by the means of their groups already",
    "qmc": "qmc has no start that a stage could give it",
    "random": "random has no start that a stage could give it",
}


@dataclass(frozen=True)
class PlannedStage:
    """One stage.

    Attributes:
        level: What moves together.
        questions: See :class:`evomerge.proposers.staged.Stage`.
        items: Likewise.
    """

    level: Level
    questions: int | None = None
    items: int | None = None


@dataclass(frozen=True)
class StagePlan:
    """The stages of a search.

    It is made once for a run and kept with it: a run that goes on with a larger budget keeps its
    stages, and the last one gets the rest.

    Attributes:
        stages: From coarse to fine; none where all values are searched at once.
        reason: What was chosen and why, in one sentence.
    """

    stages: tuple[PlannedStage, ...]
    reason: str

    def of(self, space: UnitSpace) -> list[Stage]:
        """Return the stages with the groups of a space."""
        return [
            Stage(_groups_at(space, each.level), each.questions, each.items) for each in self.stages
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that a study can keep."""
        return {"stages": [asdict(each) for each in self.stages], "reason": self.reason}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "StagePlan":
        """Return the plan that ``to_dict`` made plain."""
        return cls(tuple(PlannedStage(**each) for each in data["stages"]), data["reason"])


def plan_stages(
    space: UnitSpace, settings: SearchSettings, optimizer: str, known: Known = ()
) -> StagePlan:
    """Return the stages of a search.

    A stage is left out where the next one has the same groups; its share goes to that. By default
    the shares are as the cube roots of the numbers of values.

    Args:
        space: What is searched.
        settings: Stages and budget.
        optimizer: Who searches in each stage; not ``auto``.
        known: What is known before the first question, with the items that it took.

    Raises:
        SpaceError: if stages are wanted and neither trials nor items limit the search.
    """
    wanted = settings.stages
    if wanted is False:
        return StagePlan((), "no stages: search.stages is false")
    if isinstance(wanted, str):
        levels = _worth(space)
        reason = _unsuited(space, settings, optimizer, known, levels)
        if reason is not None:
            return StagePlan((), f"no stages: {reason}")
    else:
        levels = list(wanted)
    weights = (
        wanted if isinstance(wanted, dict) else {each: _default(space, each) for each in levels}
    )
    shares = _without_equal(space, {level: weights[level] for level in levels})
    if not any(_groups_at(space, level) for level in shares):
        return StagePlan((), "no stages: in this space they would all be the same")
    if len(shares) > 1 and settings.trial_limit is None and settings.items is None:
        raise SpaceError(
            "search.stages: stages share out trials or items, and neither limits this search; give "
            "search.trials or search.items, or stages: false"
        )
    total = sum(shares.values())
    parts = [
        f"{level} ({_count(space, level)} values, {share / total:.0%} of the budget)"
        for level, share in shares.items()
    ]
    return StagePlan(_ends(shares, settings, known), f"stages: {', then '.join(parts)}")


def _worth(space: UnitSpace) -> list[Level]:
    """Return the levels that have clearly fewer values than the next one."""
    model, by_filter, layer = (_count(space, level) for level in LEVELS)
    found: list[Level] = []
    if model * _COARSER <= layer:
        found.append("model")
    if (model * _COARSER <= by_filter or not found) and by_filter * _COARSER <= layer:
        found.append("filter")
    return [*found, "layer"]


def _unsuited(
    space: UnitSpace,
    settings: SearchSettings,
    optimizer: str,
    known: Known,
    levels: Sequence[Level],
) -> str | None:
    """Return why ``auto`` has no stages."""
    if optimizer in _UNSUITED:
        return _UNSUITED[optimizer]
    if is_user_class(optimizer):
        return f"{optimizer} is your own, and sees the whole space"
    if len(levels) == 1:
        return f"{len(space.dimensions)} values, of which hardly any belong together"
    if settings.trial_limit is None and settings.items is None:
        return "nobody knows how many trials there will be in the given seconds"
    trials, count = _num_trials(settings, known), len(space.dimensions)
    if trials is not None and trials >= _MANY_TRIALS * count:
        return f"{trials} trials are enough to search {count} values at once"
    return None


def _num_trials(settings: SearchSettings, known: Known) -> int | None:
    """Return about how many questions the budget is good for, without early stops; if known."""
    limits = []
    if settings.trial_limit is not None:
        limits.append(settings.trial_limit - len(known))
    each = max((told.items for _, told in known), default=0)
    if settings.items is not None and each > 0:
        limits.append((settings.items - _items(known)) // each)
    return min(limits, default=None)


def _without_equal(space: UnitSpace, shares: Mapping[Level, float]) -> dict[Level, float]:
    """Return the shares of the levels that differ from the next one."""
    kept: dict[Level, float] = {}
    waiting = 0.0
    levels = list(shares)
    for level, finer in zip(levels, [*levels[1:], None], strict=True):
        waiting += shares[level]
        if finer is None or _groups_at(space, level) != _groups_at(space, finer):
            kept[level], waiting = waiting, 0.0
    return kept


def _ends(
    shares: Mapping[Level, float], settings: SearchSettings, known: Known
) -> tuple[PlannedStage, ...]:
    """Return the stages, each up to its part of the budget."""
    total, done = sum(shares.values()), 0.0
    limit, spent = settings.trial_limit, _items(known)
    planned = []
    for level, share in shares.items():
        done += share / total
        questions = None if limit is None else round(done * max(limit - len(known), 0))
        items = (
            None if settings.items is None else spent + round(done * max(settings.items - spent, 0))
        )
        planned.append(PlannedStage(level, questions, items))
    planned[-1] = PlannedStage(planned[-1].level)
    return tuple(planned)


def _default(space: UnitSpace, level: Level) -> float:
    return math.cbrt(_count(space, level))


def _items(known: Known) -> int:
    return sum(told.items for _, told in known)


def _groups_at(space: UnitSpace, level: Level) -> tuple[tuple[str, ...], ...]:
    """Return a space's groups at a level; none for a space that has no levels."""
    groups_at = getattr(space, "groups_at", None)
    return () if groups_at is None else tuple(groups_at(level))


def _count(space: UnitSpace, level: Level) -> int:
    """Return how many values are searched at a level."""
    together = sum(len(group) - 1 for group in _groups_at(space, level))
    return len(space.dimensions) - together
