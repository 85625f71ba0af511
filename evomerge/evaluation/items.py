"""Items are documents known by their content; a seeded hash divides them into two splits."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import EvaluationError
from evomerge.evaluation.settings import Split

__all__ = ["ItemSplit", "content_id", "split_items"]

DEFAULT_SEARCH_ITEMS = 200
ID_DIGITS = 16


def content_id(document: Any) -> str:
    """Return the id of a document: 16 hex digits (64 bits) of the SHA-256 of its content.

    The same content has the same id in every task, process and run. Key order does not count;
    numpy and date values count as their text.
    """
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:ID_DIGITS]


def _plain(value: Any) -> Any:
    for method in ("tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    return value.hex() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True)
class ItemSplit:
    """The items of one task.

    Attributes:
        search: Ids of the search items, in the order of the seeded hash.
        holdout: Ids of the held-out items, in the reverse of that order.
    """

    search: tuple[str, ...]
    holdout: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """Return one side.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in ("search", "holdout"):
            raise ValueError(f"a split is 'search' or 'holdout', got {split!r}")
        return self.search if split == "search" else self.holdout


def split_items(
    documents: Mapping[str, Sequence[str]],
    *,
    seed: int,
    search_items: int | None,
    holdout_items: int | None,
) -> dict[str, ItemSplit]:
    """Divide the documents of each task into search and held-out items.

    Documents are ordered by SHA-256 of (seed, id). Search items are taken from the front, held-out
    items from the back, so that raising one number keeps the items that were there. A document
    that is there twice is one item, and one that two tasks share is on the same side in both.

    Args:
        documents: Ids of each task's documents (see ``content_id``), duplicates included.
        seed: The seed of the search.
        search_items: Items a task; ``None`` means a third of the documents, 200 at most.
        holdout_items: Items a task; ``None`` means all that are left.

    Raises:
        EvaluationError: if a task has too few different documents.
    """
    sides: dict[str, Split] = {}
    splits: dict[str, ItemSplit] = {}
    for task, ids in documents.items():
        order = sorted(dict.fromkeys(ids), key=lambda item: _rank(seed, item))
        want_search, want_holdout = _sizes(task, len(order), search_items, holdout_items)
        free_front = [item for item in order if sides.get(item, "search") == "search"]
        search = tuple(free_front[:want_search])
        taken = set(search)
        free_back = [
            item
            for item in reversed(order)
            if sides.get(item, "holdout") == "holdout" and item not in taken
        ]
        holdout = tuple(free_back[:want_holdout])
        if len(search) < want_search or len(holdout) < min(want_holdout, 2):
            raise EvaluationError(
                f"task {task!r} shares documents with another task, and what is left gives "
                f"{len(search)} search items (wanted {want_search}) and {len(holdout)} held-out "
                f"items (wanted {want_holdout}); lower evaluation.search_items or holdout_items"
            )
        splits[task] = ItemSplit(search, holdout)
        sides.update(dict.fromkeys(search, "search"))
        sides.update(dict.fromkeys(holdout, "holdout"))
    return splits


def _rank(seed: int, item: str) -> bytes:
    return hashlib.sha256(f"{seed}:{item}".encode()).digest()


def _sizes(task: str, count: int, search: int | None, holdout: int | None) -> tuple[int, int]:
    if search is None:
        search = min(DEFAULT_SEARCH_ITEMS, max(2, count // 3), count - (holdout or 0))
    if holdout is None:
        holdout = max(2, count - search)
    if search < 2 or search + holdout > count:
        needed = max(search, 2) + holdout
        raise EvaluationError(
            f"task {task!r} has {count} different documents, and its search items and held-out "
            f"items need {needed} ({max(search, 2)} + {holdout}); lower evaluation.search_items or "
            "evaluation.holdout_items"
        )
    return search, holdout
