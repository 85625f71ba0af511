"""Items are documents known by their content; a seeded hash divides them into two splits."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import EvaluationError
from evomerge.evaluation.settings import Split

__all__ = ["ID_DIGITS", "ItemSource", "ItemSplit", "content_id", "split_items"]

DEFAULT_SEARCH_ITEMS = 200
HELD_OUT = 5
"""Held-out items for each search item, at most, where nobody says how many: finalists and baselines
are then scored for about what the search costs."""
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


@dataclass(frozen=True)
class ItemSource:
    """What the items of one task may be taken from.

    Attributes:
        search: Content ids of the documents for search items, duplicates included.
        holdout: The same for held-out items; equal to ``search`` where one set is to be divided.
        search_list: The search items, where the space names them.
        holdout_list: The held-out items, where the space names them.
    """

    search: Sequence[str]
    holdout: Sequence[str]
    search_list: Sequence[str] | None = None
    holdout_list: Sequence[str] | None = None

    @property
    def is_divided(self) -> bool:
        """Whether both sides come from one set of documents that nothing else divides."""
        return (
            self.search == self.holdout and self.search_list is None and self.holdout_list is None
        )


def split_items(
    documents: Mapping[str, Sequence[str] | ItemSource],
    *,
    seed: int,
    search_items: int | None,
    holdout_items: int | None,
) -> dict[str, ItemSplit]:
    """Divide the documents of each task into search and held-out items.

    Documents are ordered by SHA-256 of (seed, id). Search items are taken from the front, held-out
    items from the back, so that raising one number keeps the items that were there. A document
    that is there twice is one item, and one that two tasks share is on the same side in both.

    Where the two sides are different splits of a data set, a document of both is a held-out item.
    Items that the space names are taken as they are.

    Args:
        documents: Each task's documents by their ids (see ``content_id``), duplicates included.
        seed: The seed of the search.
        search_items: Items a task; ``None`` means a third of the documents, 200 at most (of a
            split of its own: all, 200 at most).
        holdout_items: Items a task; ``None`` means all that are left, at most five for each search
            item (of a split of its own: all).

    Raises:
        EvaluationError: if a task has too few different documents, or an item is named for both
            sides.
    """
    sources = {
        task: source if isinstance(source, ItemSource) else ItemSource(source, source)
        for task, source in documents.items()
    }
    sides = _named_sides(sources)
    wanted = _Wanted(seed, search_items, holdout_items)
    splits: dict[str, ItemSplit] = {}
    for task, source in sources.items():
        if source.is_divided:
            splits[task] = _divide(task, source.search, sides, wanted)
        else:
            splits[task] = _choose(task, source, sides, wanted)
        sides.update(dict.fromkeys(splits[task].search, "search"))
        sides.update(dict.fromkeys(splits[task].holdout, "holdout"))
    return splits


def _named_sides(sources: Mapping[str, ItemSource]) -> dict[str, Split]:
    """Return the sides of the items that the space names."""
    sides: dict[str, Split] = {}
    for task, source in sources.items():
        named: dict[Split, Sequence[str]] = {
            "search": source.search_list or (),
            "holdout": source.holdout_list or (),
        }
        for side, ids in named.items():
            for item in ids:
                if sides.setdefault(item, side) != side:
                    raise EvaluationError(
                        f"task {task!r}: item {item} is named for the search and for the held-out "
                        "items (the same content in two lists); take it out of one"
                    )
    return sides


def _divide(
    task: str,
    ids: Sequence[str],
    sides: Mapping[str, Split],
    wanted: "_Wanted",
) -> ItemSplit:
    order = wanted.order(ids)
    want_search, want_holdout = _sizes(task, len(order), wanted.search, wanted.holdout)
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
    return ItemSplit(search, holdout)


def _choose(
    task: str,
    source: ItemSource,
    sides: Mapping[str, Split],
    wanted: "_Wanted",
) -> ItemSplit:
    """Take each side from its own documents, or as it is named."""
    if source.holdout_list is not None:
        holdout = tuple(dict.fromkeys(source.holdout_list))
    else:
        named = set(source.search_list or ())
        free = [item for item in source.holdout if item not in named]
        free = [item for item in free if sides.get(item, "holdout") == "holdout"]
        order = wanted.order(free)[::-1]
        holdout = _first(task, "holdout", order, wanted.holdout, len(order))
    if source.search_list is not None:
        search = tuple(dict.fromkeys(source.search_list))
    else:
        # Every document of the other split stays out, whether it is an item there or not.
        shared = set(source.holdout) if source.search != source.holdout else set(holdout)
        free = [item for item in source.search if item not in shared]
        free = [item for item in free if sides.get(item, "search") == "search"]
        search = _first(task, "search", wanted.order(free), wanted.search, DEFAULT_SEARCH_ITEMS)
    for side, ids in (("search", search), ("held-out", holdout)):
        if len(ids) < 2:
            raise EvaluationError(
                f"task {task!r} has {len(ids)} {side} items; at least 2 are needed"
            )
    return ItemSplit(search, holdout)


def _first(
    task: str, side: Split, order: Sequence[str], wanted: int | None, usual: int
) -> tuple[str, ...]:
    if wanted is not None and wanted > len(order):
        raise EvaluationError(
            f"task {task!r} has {len(order)} different documents for its {side} items, and "
            f"evaluation.{side}_items asks for {wanted}"
        )
    return tuple(order[: usual if wanted is None else wanted])


@dataclass(frozen=True)
class _Wanted:
    """The seed of the order, and the numbers of items that the settings ask for."""

    seed: int
    search: int | None
    holdout: int | None

    def order(self, ids: Sequence[str]) -> list[str]:
        """Return different ids in the order of the seeded hash."""
        return sorted(dict.fromkeys(ids), key=self._rank)

    def _rank(self, item: str) -> bytes:
        return hashlib.sha256(f"{self.seed}:{item}".encode()).digest()


def _sizes(task: str, count: int, search: int | None, holdout: int | None) -> tuple[int, int]:
    if search is None:
        search = min(DEFAULT_SEARCH_ITEMS, max(2, count // 3), count - (holdout or 0))
    if holdout is None:
        holdout = min(max(2, count - search), HELD_OUT * search)
    if search < 2 or search + holdout > count:
        needed = max(search, 2) + holdout
        raise EvaluationError(
            f"task {task!r} has {count} different documents, and its search items and held-out "
            f"items need {needed} ({max(search, 2)} + {holdout}); lower evaluation.search_items or "
            "evaluation.holdout_items"
        )
    return search, holdout
