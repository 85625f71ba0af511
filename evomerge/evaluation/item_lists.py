"""Files that name the items of a task."""

from collections.abc import Collection, Sequence
from pathlib import Path

from evomerge.errors import EvaluationError
from evomerge.evaluation.items import ID_DIGITS

__all__ = ["read_item_list"]


def read_item_list(
    name: str, folder: Path, task: str, ids: Sequence[str], candidates: Collection[str]
) -> tuple[str, ...]:
    """Read the items that a file names, one a line; empty lines and ``# ...`` do not count.

    Args:
        name: The file, from the current folder or the space file's.
        folder: The space file's folder.
        task: The task, for messages.
        ids: Content id of each document of the task, in lm-eval's order.
        candidates: Those that may be items: few-shot examples may not.

    Returns:
        Content ids, each once.

    Raises:
        EvaluationError: if the file is not there, or a line names no item of the task.
    """
    for path in (Path(name).expanduser(), folder / name):
        if path.is_file():
            break
    else:
        raise EvaluationError(
            f"task {task!r}: the list of items {name!r} is neither here nor in {folder.resolve()}"
        )
    known = set(ids)
    found: dict[str, None] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if len(text) != ID_DIGITS and text.isdecimal() and int(text) < len(ids):
            text = ids[int(text)]
        if text not in known:
            raise EvaluationError(
                f"{path}:{number}: task {task!r} has no item {text!r}; name items by their ids (as "
                f"'evomerge items' prints them) or by numbers from 0 to {len(ids) - 1}"
            )
        if text not in candidates:
            raise EvaluationError(
                f"{path}:{number}: item {text!r} of task {task!r} may be a few-shot example, "
                "and an example must never be an item; set num_fewshot: 0, or take it out"
            )
        found[text] = None
    return tuple(found)
