"""Results that are known already: a recipe is never scored on an item again."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.errors import EvaluationError
from evomerge.evaluation import ItemScores
from evomerge.evaluation.item_files import read_items, read_metadata, write_items
from evomerge.evaluation.settings import Split
from evomerge.version import __version__
from evomerge.workers import Assignment, Outcome, PoolInfo, Scored

__all__ = ["KnownResults", "ResultCache", "missing_items", "open_caches"]

Items = Mapping[str, Sequence[str]]
"""Task -> item ids."""

_Content = tuple[ItemScores, Mapping[str, str]]
"""What a file holds: item scores, and the key of each of their tasks."""

_SOON = 0.1
"""Seconds: what took as long to score is written at once, and not at the end of its trial."""

_MAX_REMEMBERED = 256
"""Files; more than there are candidates under way at once."""


class ResultCache:
    """A folder with a file of item scores for each recipe.

    A file's name is a hash of the recipe, of the contents of its models, of the seed and of the
    version of this program. Inside, each task has a key: how its prompts, metrics and model are set
    up (``PoolInfo.task_keys``). Files appear whole or not at all; of two processes that write one
    at a time, the later wins. The contents used last are remembered: a candidate comes back with
    more items several times.

    Args:
        folder: The folder; made when the first result is kept.
        info: The pool, whose items and tasks they are.
        identities: Model name -> what identifies its content.
        seed: The run's seed.
        proxy: What makes the model that scores another one than the recipe says, if anything does.
    """

    def __init__(
        self,
        folder: Path,
        info: PoolInfo,
        identities: Mapping[str, str],
        seed: int,
        *,
        proxy: str | None = None,
    ) -> None:
        self._folder = folder
        self._info = info
        self._identities = dict(identities)
        self._seed = seed
        self._proxy = proxy
        self._remembered: dict[Path, _Content] = {}
        self._unsaved: dict[Path, None] = {}

    def known(self, recipe: Mapping[str, Any], wanted: Items) -> ItemScores:
        """Return what is known of a recipe on some items."""
        scores = self._current(*self._read(self._path(recipe)))
        there = {task: set(scores.by_task[task].items) for task in scores.by_task}
        chosen = {
            task: [item for item in ids if item in there[task]]
            for task, ids in wanted.items()
            if task in there
        }
        return scores.select({task: ids for task, ids in chosen.items() if ids})

    def wanted(self, assignment: Assignment) -> Items:
        """Return the items that an assignment asks for."""
        if assignment.items is not None:
            return assignment.items
        return self._info.ids.get(assignment.split, {})

    def keep(self, recipe: Mapping[str, Any], scores: ItemScores) -> None:
        """Add what was scored, and write it."""
        self.add(recipe, scores)
        self.save(recipe)

    def save(self, recipe: Mapping[str, Any]) -> None:
        """Write what was added for a recipe, if anything was."""
        self._save(self._path(recipe))

    def add(self, recipe: Mapping[str, Any], scores: ItemScores) -> None:
        """Add what was scored, to be written later; what is there stays as it is."""
        path = self._path(recipe)
        known, old_keys = self._read(path)
        mine = self._current(known, old_keys)
        fresh = {}
        for task, items in scores.by_task.items():
            there = set(mine.by_task[task].items) if task in mine.by_task else set()
            fresh[task] = [item for item in items.items if item not in there]
        new = scores.select({task: ids for task, ids in fresh.items() if ids})
        if not new.num_items:
            return
        stale = [task for task in known.by_task if task in new.by_task and task not in mine.by_task]
        kept = ItemScores(
            {task: items for task, items in known.by_task.items() if task not in stale},
            {task: items for task, items in known.smooth.items() if task not in stale},
        )
        keys = {**old_keys, **{task: self._info.task_keys[task] for task in new.by_task}}
        self._remember(path, (kept.merge(new), keys))
        self._unsaved[path] = None

    def _save(self, path: Path) -> None:
        if path not in self._unsaved:
            return
        scores, keys = self._remembered[path]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Damaged files are scored again, and a run has its items in a file of its own too.
        write_items(scores, path, {"tasks": json.dumps(keys, sort_keys=True)}, flush=False)
        del self._unsaved[path]

    def _read(self, path: Path) -> _Content:
        """Return what a file holds."""
        if path in self._remembered:
            return self._remembered[path]
        content: _Content = (ItemScores({}), {})
        if path.is_file():
            # A damaged one is as if it were not there.
            with contextlib.suppress(EvaluationError):
                content = read_items(path), json.loads(read_metadata(path).get("tasks", "{}"))
        self._remember(path, content)
        return content

    def _remember(self, path: Path, content: _Content) -> None:
        self._remembered.pop(path, None)
        self._remembered[path] = content
        if len(self._remembered) > _MAX_REMEMBERED:
            oldest = next(iter(self._remembered))
            self._save(oldest)
            del self._remembered[oldest]

    def _current(self, scores: ItemScores, keys: Mapping[str, str]) -> ItemScores:
        """Return the results of tasks that are set up now as they were then."""
        same = {task for task, key in self._info.task_keys.items() if keys.get(task) == key}
        return ItemScores(
            {task: items for task, items in scores.by_task.items() if task in same},
            {task: items for task, items in scores.smooth.items() if task in same},
        )

    def _path(self, recipe: Mapping[str, Any]) -> Path:
        content = [__version__, self._seed, _canonical(recipe, self._identities)]
        content += [self._proxy] if self._proxy else []
        text = json.dumps(content, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        return self._folder / digest[:2] / f"{digest}.parquet"


def open_caches(
    folder: Path,
    info: PoolInfo,
    identities: Mapping[str, str],
    seed: int,
    *,
    proxy: str | None = None,
) -> dict[Split, ResultCache]:
    """Return the cache of each split: one and the same, but where a proxy scores search items."""
    exact = ResultCache(folder, info, identities, seed)
    if proxy is None:
        return {"search": exact, "holdout": exact}
    return {"search": ResultCache(folder, info, identities, seed, proxy=proxy), "holdout": exact}


class KnownResults:
    """Takes known items out of assignments, and puts them back into the outcomes.

    Args:
        caches: What is known of the items of each split; it is added to.
    """

    def __init__(self, caches: Mapping[Split, ResultCache]) -> None:
        self._caches = caches
        self._under_way: dict[int, tuple[Assignment, ItemScores]] = {}
        self._unsaved: dict[int, tuple[Assignment, float]] = {}

    def take_out(self, assignment: Assignment) -> Assignment | Scored:
        """Return what is left to score, or the outcome if nothing is."""
        cache = self._caches[assignment.split]
        wanted = cache.wanted(assignment)
        known = cache.known(assignment.recipe, wanted)
        missing = missing_items(known, wanted)
        if known.num_items and not missing:
            seconds = {"materialize": 0.0, "score": 0.0}
            scores = known.select(wanted)
            return Scored(assignment.number, assignment.split, scores, seconds, scored_items=0)
        self._under_way[assignment.number] = (assignment, known)
        return replace(assignment, items=missing) if known.num_items else assignment

    def put_back(self, outcome: Outcome) -> Outcome:
        """Keep what was scored, and return it with what was known before.

        It is written at once if it took time to score, else when the trial ends: a rung of a race
        may take less time than a file.
        """
        assignment, known = self._under_way.pop(outcome.number)
        if not isinstance(outcome, Scored):
            return outcome
        scores = outcome.scores
        cache = self._caches[assignment.split]
        cache.add(assignment.recipe, scores)
        _, before = self._unsaved.get(outcome.number, (assignment, 0.0))
        seconds = before + sum(outcome.seconds.values())
        self._unsaved[outcome.number] = (assignment, seconds)
        if seconds >= _SOON:
            self.end(outcome.number)
        if known.num_items:
            scores = scores.merge(known).select(cache.wanted(assignment))
        return replace(outcome, scores=scores, scored_items=outcome.scores.num_items)

    def end(self, number: int) -> None:
        """Write what is known of a trial that has ended."""
        if number in self._unsaved:
            assignment, _ = self._unsaved.pop(number)
            self._caches[assignment.split].save(assignment.recipe)


def missing_items(known: ItemScores, wanted: Items) -> dict[str, tuple[str, ...]]:
    """Return the items that are not known."""
    found = {}
    for task, ids in wanted.items():
        there = set(known.by_task[task].items) if task in known.by_task else set()
        if left := tuple(item for item in ids if item not in there):
            found[task] = left
    return found


def _canonical(value: Any, identities: Mapping[str, str]) -> Any:
    """Return plain data in which numbers are floats and models are their content."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(inner, identities) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner, identities) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        return f"model:{identities[value]}" if value in identities else value
    return value
