"""What an earlier run says about a space that it shares, in whole or in part."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import StudyError
from evomerge.proposers import Told
from evomerge.recipe import parse_recipe
from evomerge.search.opening import OpenRun, open_run
from evomerge.search.records import CANDIDATES, TrialRecord
from evomerge.space import Dimension, Space, Value, usual_point, with_starts

__all__ = ["Hint", "WarmStart", "read_warm_start"]

NUM_STARTS = 3
NUM_HINTS = 200


@dataclass(frozen=True)
class Hint:
    """A point with what an earlier run measured for it.

    Attributes:
        point: A point of this run's space.
        gain: Objective minus that of the earlier run's best baseline.
        stderr: Its standard error.
    """

    point: Mapping[str, Value]
    gain: float
    stderr: float

    def told(self, level: float) -> Told:
        """Return it as a result, on the scale of this run.

        Args:
            level: The objective of this run's best baseline.
        """
        return Told((level + self.gain,), (self.stderr,))


@dataclass(frozen=True)
class WarmStart:
    """What is taken from an earlier run.

    Attributes:
        space: This run's space, with the earlier run's best recipes among its starts.
        hints: Points that need not be scored again to be of use.
    """

    space: Space
    hints: tuple[Hint, ...] = ()


def read_warm_start(space: Space, path: str | Path) -> WarmStart:
    """Read an earlier run over the same or an overlapping space.

    Its best recipes whose models are all in this space are scored again, first of all. The points
    of its other trials become hints, if both runs raise one objective of the same tasks: scores
    count relative to the best baseline, because the items may be others.

    Args:
        space: This run's space.
        path: The earlier run's directory.

    Raises:
        StudyError: if there is no run, or it shares nothing with this space.
    """
    earlier = open_run(path)
    records = [
        record
        for record in earlier.study.records.values()
        if record.kind in CANDIDATES and record.state == "complete" and record.value is not None
    ]
    records.sort(key=_rank)
    names = set(space.model_names())
    fitting = [r for r in records if set(_models(r)) <= names]
    shared = {d.name for d in space.dimensions} & {d.name for d in earlier.space.dimensions}
    if not fitting and not shared:
        raise StudyError(
            f"--warm-start {path}: the run shares neither models nor searched values with this "
            f"space (it has {', '.join(earlier.space.model_names())}); leave it out"
        )
    label = Path(path).name
    best = [
        {"name": f"{label}: {record.label}", "recipe": dict(record.recipe)}
        for record in fitting[:NUM_STARTS]
    ]
    hints = _hints(space, earlier, records, shared) if _same_tasks(space, earlier.space) else ()
    return WarmStart(with_starts(space, best), hints)


def _rank(record: TrialRecord) -> tuple[float, float, int]:
    held = record.holdout.objective.value if record.holdout else float("-inf")
    return -held, -(record.value or 0.0), record.number


def _models(record: TrialRecord) -> list[str]:
    return list(parse_recipe(dict(record.recipe)).model_names())


def _same_tasks(space: Space, other: Space) -> bool:
    """Return whether both raise one number, made of the same scores in the same way."""
    one, two = space.document, other.document
    mine = {task.name: (task.metric, task.weight, task.smooth) for task in one.tasks}
    theirs = {task.name: (task.metric, task.weight, task.smooth) for task in two.tasks}
    return mine == theirs and one.objective == two.objective and len(one.objective) == 1


def _hints(
    space: Space, earlier: OpenRun, records: list[TrialRecord], shared: set[str]
) -> tuple[Hint, ...]:
    baselines = [
        record.value
        for record in earlier.study.records.values()
        if record.is_baseline and record.kind != "start" and record.value is not None
    ]
    if not baselines or not shared:
        return ()
    usual = usual_point(space)
    dimensions = {dimension.name: dimension for dimension in space.dimensions}
    # Where this space has more values than the earlier one, the earlier score says less of a point.
    doubt = 1.0 + len(dimensions.keys() - shared)
    found = []
    for record in records:
        point = dict(usual)
        for name, value in (record.point or {}).items():
            if name in shared and not _is_inside(dimensions[name], value):
                break
            if name in shared:
                point[name] = value
        else:
            if record.point is not None and record.search is not None:
                stderr = record.search.objective.stderr * doubt
                gain = (record.value or 0.0) - max(baselines)
                found.append(Hint(space.settle(point), gain, stderr))
    return tuple(found[:NUM_HINTS])


def _is_inside(dimension: Dimension, value: Value) -> bool:
    if dimension.kind == "choice":
        return value in dimension.choices
    return isinstance(value, int | float) and dimension.low <= value <= dimension.high
