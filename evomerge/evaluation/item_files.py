"""Per-item results as a compact table, and as a Parquet file that is whole or not there."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.errors import EvaluationError
from evomerge.evaluation.scores import ItemScores, TaskItems
from evomerge.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["items_table", "read_items", "read_metadata", "write_items", "write_table"]

_WORDS = ("task", "metric", "aggregation")
_FLAGS = ("higher_is_better", "guides")
_NUMBERS = ("value", "weight")
_COLUMNS = (*_WORDS, *_FLAGS, "item", *_NUMBERS, "detail")


def items_table(scores: ItemScores) -> "pa.Table":
    """Return one row an item.

    Columns: task, metric, higher_is_better, aggregation, guides (true for a smooth metric that
    only guides the search), item, value, weight, detail.
    """
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for guides, group in ((False, scores.by_task), (True, scores.smooth)):
        for name, task in group.items():
            count = len(task.items)
            columns["task"] += [name] * count
            columns["metric"] += [task.metric] * count
            columns["aggregation"] += [task.aggregation] * count
            columns["higher_is_better"] += [task.higher_is_better] * count
            columns["guides"] += [guides] * count
            columns["item"] += task.items
            columns["value"] += task.values.tolist()
            columns["weight"] += [None] * count if task.weights is None else task.weights.tolist()
            columns["detail"] += [None] * count if task.details is None else task.details
    kinds = dict.fromkeys(_FLAGS, pa.bool_()) | dict.fromkeys(_NUMBERS, pa.float64())
    table = {name: pa.array(columns[name], kinds.get(name, pa.string())) for name in _COLUMNS}
    return pa.table(table | {name: table[name].dictionary_encode() for name in _WORDS})


def write_table(table: "pa.Table", path: Path, *, flush: bool = True) -> None:
    """Write a Parquet file beside, flush it to the disk and rename it."""
    from pyarrow import parquet

    with replacing(Path(path), flush=flush) as file:
        parquet.write_table(table, file, compression="zstd", write_page_checksum=True)


def write_items(
    scores: ItemScores, path: Path, metadata: dict[str, str] | None = None, *, flush: bool = True
) -> None:
    """Write item scores.

    Args:
        scores: What to write.
        path: The file.
        metadata: Kept in the file's schema.
        flush: Wait for the disk; without it, a power cut may leave a damaged file, which is noticed
            when it is read.
    """
    table = items_table(scores)
    if metadata:
        table = table.replace_schema_metadata(metadata)
    write_table(table, path, flush=flush)


def read_items(path: Path) -> ItemScores:
    """Read what ``write_items`` wrote.

    Raises:
        EvaluationError: if the file is missing or is something else.
    """
    columns = _columns(_read(path), path)
    groups: dict[tuple[bool, str], list[int]] = {}
    keys = zip(columns["guides"], columns["task"], strict=True)
    for row, (guides, task) in enumerate(keys):
        groups.setdefault((guides, task), []).append(row)
    parts: dict[bool, dict[str, TaskItems]] = {False: {}, True: {}}
    for (guides, task), rows in groups.items():
        first = rows[0]
        weights = [columns["weight"][row] for row in rows]
        details = [columns["detail"][row] for row in rows]
        parts[guides][task] = TaskItems(
            columns["metric"][first],
            columns["higher_is_better"][first],
            tuple(columns["item"][row] for row in rows),
            np.array([columns["value"][row] for row in rows], dtype=np.float64),
            columns["aggregation"][first],
            None if weights[0] is None else np.array(weights),
            None if details[0] is None else tuple(details),
        )
    return ItemScores(parts[False], parts[True])


def read_metadata(path: Path) -> dict[str, str]:
    """Return what ``write_items`` kept in the schema.

    Raises:
        EvaluationError: if the file is missing or is something else.
    """
    found = _read(path).schema.metadata or {}
    return {key.decode(): value.decode() for key, value in found.items()}


def _read(path: Path) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(path, partitioning=None, page_checksum_verification=True)
    except (OSError, pa.ArrowInvalid) as exc:
        raise EvaluationError(f"{path}: not a file of per-item results: {exc}") from exc


def _columns(table: "pa.Table", path: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = table.to_pydict()
    for name in ("task", "metric", "higher_is_better", "item", "value"):
        if name not in found:
            raise EvaluationError(f"{path}: not a file of per-item results: no column {name!r}")
    count = table.num_rows
    later = {"aggregation": "mean", "guides": False, "weight": None, "detail": None}
    return {name: [default] * count for name, default in later.items()} | found
