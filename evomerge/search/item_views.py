"""Per-item results of a run's trials, for printing, exporting and comparing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.errors import StudyError, nearest
from evomerge.evaluation import Comparison, ItemScores, Objective, TaskItems, compare
from evomerge.evaluation.item_files import items_table, write_table
from evomerge.evaluation.settings import Split
from evomerge.search.objectives import ObjectiveFacts, make_objectives
from evomerge.search.opening import OpenRun
from evomerge.search.records import TrialRecord

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "TaskComparison",
    "compare_trials",
    "export_items",
    "item_values",
    "shared_items",
    "trial_items",
]

FORMATS = (".parquet", ".csv", ".jsonl")


@dataclass(frozen=True)
class TaskComparison:
    """Two trials on one task, or on the objective.

    Attributes:
        name: The task, or the objective's name.
        first: Score of the first trial.
        second: Score of the second.
        comparison: First minus second, positive where the first is better.
    """

    name: str
    first: float
    second: float
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        comparison = asdict(self.comparison)
        return {"name": self.name, "first": self.first, "second": self.second, **comparison}


def trial_items(
    run: OpenRun, record: TrialRecord, split: Split | None = None, task: str | None = None
) -> tuple[Split, ItemScores]:
    """Read a trial's per-item results.

    Args:
        run: The run.
        record: The trial.
        split: Which items; None means the held-out ones if the trial was scored on them.
        task: This task only.

    Raises:
        StudyError: if the trial was not scored on these items, or there is no such task.
    """
    if split is None:
        split = "search" if record.holdout is None else "holdout"
    path = run.directory.items(record.number, split)
    if not path.is_file():
        what = f": it failed: {record.reason}" if record.reason else ""
        raise StudyError(f"{record.label} has no {split} items{what}")
    scores = ItemScores.from_parquet(path)
    if task is None:
        return split, scores
    if task not in scores.by_task:
        raise StudyError(f"{record.label} has no task {task!r}; {nearest(task, scores.by_task)}")
    smooth = {name: items for name, items in scores.smooth.items() if name == task}
    return split, ItemScores({task: scores.by_task[task]}, smooth)


def shared_items(
    run: OpenRun,
    first: TrialRecord,
    second: TrialRecord,
    split: Split | None = None,
    task: str | None = None,
) -> tuple[Split, ItemScores, ItemScores]:
    """Read the per-item results of two trials on the items that both were scored on.

    A trial that a race stopped has some of the search items only.

    Args:
        run: The run.
        first: The one trial.
        second: The other one.
        split: Which items; None means the held-out ones if both were scored on them.
        task: This task only.

    Raises:
        StudyError: if they share no items, or there is no such task.
    """
    if split is None and None in (first.holdout, second.holdout):
        split = "search"
    side, mine = trial_items(run, first, split, task)
    _, theirs = trial_items(run, second, side, task)
    both = {name: set(mine.by_task[name].items) for name in mine.by_task if name in theirs.by_task}
    wanted = {
        name: [item for item in theirs.by_task[name].items if item in items]
        for name, items in both.items()
    }
    wanted = {name: items for name, items in wanted.items() if items}
    if not wanted:
        raise StudyError(f"{first.label} and {second.label} share no {side} items")
    return side, mine.select(wanted), theirs.select(wanted)


def compare_trials(
    run: OpenRun, first: ItemScores, second: ItemScores
) -> tuple[TaskComparison, ...]:
    """Compare two trials on each task, paired by item, and on the objectives if all are there.

    Raises:
        EvaluationError: if the two were not scored on the same items.
    """
    attributes = run.study.attributes
    facts = ObjectiveFacts.from_dict(attributes["objective"])
    found = []
    for name in first.by_task:
        compared = compare(first, second, Objective({name: 1.0}, seed=run.seed))
        values = [each.by_task[name].summary(run.seed).value for each in (first, second)]
        found.append(TaskComparison(name, values[0], values[1], compared))
    if set(first.by_task) >= set(facts.weights):
        parents = attributes.get("parents")
        objectives = make_objectives(run.space, facts, parents, folder=run.folder)
        for name, objective in objectives.reported.items():
            compared = compare(first, second, objective)
            values = [objective.estimate(each).value for each in (first, second)]
            found.append(TaskComparison(name, values[0], values[1], compared))
    return tuple(found)


def item_values(task: TaskItems) -> list[float | str]:
    """Return what each item's result looks like: a number, or the text of what is kept."""
    if task.details is not None:
        return list(task.details)
    if task.weights is None:
        return [float(value) for value in task.values]
    return [task.select([item]).summary().value for item in task.items]


def export_items(
    run: OpenRun,
    records: Sequence[TrialRecord],
    path: Path,
    *,
    split: Split | None = None,
    task: str | None = None,
) -> int:
    """Write per-item results to a file; its ending says which kind.

    Args:
        run: The run.
        records: The trials.
        path: Ends in ``.parquet``, ``.csv`` or ``.jsonl``; columns: trial, split, then those of
            ``items_table``.
        split: Which items; None means both.
        task: This task only.

    Returns:
        Number of rows.

    Raises:
        StudyError: for another ending, or if there is nothing to write.
    """
    import pyarrow as pa

    if path.suffix not in FORMATS:
        raise StudyError(f"--output {path}: want a name that ends in {', '.join(FORMATS)}")
    tables = []
    splits: tuple[Split, ...] = ("search", "holdout") if split is None else (split,)
    for record in records:
        for side in splits:
            if run.directory.items(record.number, side).is_file():
                _, scores = trial_items(run, record, side, task)
                tables.append(_with_trial(items_table(scores), record.number, side))
    if not tables:
        raise StudyError(f"{run.directory.path}: there are no such items to write")
    table = pa.concat_tables([each.unify_dictionaries() for each in tables])
    _write(table, path)
    return int(table.num_rows)


def _with_trial(table: "pa.Table", number: int, split: str) -> "pa.Table":
    import pyarrow as pa

    count = table.num_rows
    table = table.add_column(0, "split", pa.array([split] * count).dictionary_encode())
    return table.add_column(0, "trial", pa.array(np.full(count, number, dtype=np.int32)))


def _write(table: "pa.Table", path: Path) -> None:
    if path.suffix == ".parquet":
        write_table(table, path)
        return
    import csv
    import io
    import json

    from evomerge.search.directory import write_atomically

    rows: list[dict[str, Any]] = table.to_pylist()
    stream = io.StringIO()
    if path.suffix == ".csv":
        writer = csv.DictWriter(stream, table.column_names)
        writer.writeheader()
        writer.writerows(rows)
    else:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, stream.getvalue())
