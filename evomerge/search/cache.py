"""Results that are known already: a recipe is never scored on an item again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.errors import EvaluationError
from evomerge.evaluation import ItemScores
from evomerge.evaluation.item_files import read_items, read_metadata, write_items
from evomerge.version import __version__
from evomerge.workers import Assignment, Outcome, PoolInfo, Scored

__all__ = ["KnownResults", "ResultCache", "missing_items"]

Items = Mapping[str, Sequence[str]]
"""Task -> item ids."""


class ResultCache:
    """A folder with a file of item scores for each recipe.

    A file's name is a hash of the recipe, of the weights of its models, of the seed and of the
    version of this program. Inside, each task has a key: how its prompts, metrics and model are set
    up (``PoolInfo.task_keys``). Files appear whole or not at all; of two processes that write one
    at a time, the later wins.

    Args:
        folder: The folder; made when the first result is kept.
        info: The pool, whose items and tasks they are.
        fingerprints: Model name -> fingerprint of its content.
        seed: The run's seed.
    """

    def __init__(
        self, folder: Path, info: PoolInfo, fingerprints: Mapping[str, str], seed: int
    ) -> None:
        self._folder = folder
        self._info = info
        self._fingerprints = dict(fingerprints)
        self._seed = seed

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
        """Add what was scored; what is there stays as it is."""
        path = self._path(recipe)
        known, keys = self._read(path)
        mine = self._current(known, keys)
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
        keys |= {task: self._info.task_keys[task] for task in new.by_task}
        path.parent.mkdir(parents=True, exist_ok=True)
        # Damaged files are scored again, and a run has its items in a file of its own too.
        tasks = json.dumps(keys, sort_keys=True)
        write_items(kept.merge(new), path, {"tasks": tasks}, flush=False)

    def _read(self, path: Path) -> tuple[ItemScores, dict[str, str]]:
        """Return what a file holds, and the key of each of its tasks."""
        if not path.is_file():
            return ItemScores({}), {}
        try:
            return read_items(path), json.loads(read_metadata(path).get("tasks", "{}"))
        except EvaluationError:  # damaged: as if it were not there
            return ItemScores({}), {}

    def _current(self, scores: ItemScores, keys: Mapping[str, str]) -> ItemScores:
        """Return the results of tasks that are set up now as they were then."""
        same = {task for task, key in self._info.task_keys.items() if keys.get(task) == key}
        return ItemScores(
            {task: items for task, items in scores.by_task.items() if task in same},
            {task: items for task, items in scores.smooth.items() if task in same},
        )

    def _path(self, recipe: Mapping[str, Any]) -> Path:
        content = [__version__, self._seed, _canonical(recipe, self._fingerprints)]
        text = json.dumps(content, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        return self._folder / digest[:2] / f"{digest}.parquet"


class KnownResults:
    """Takes known items out of assignments, and puts them back into the outcomes.

    Args:
        cache: What is known; it is added to.
    """

    def __init__(self, cache: ResultCache) -> None:
        self._cache = cache
        self._under_way: dict[int, tuple[Assignment, ItemScores]] = {}

    def take_out(self, assignment: Assignment) -> Assignment | Scored:
        """Return what is left to score, or the outcome if nothing is."""
        wanted = self._cache.wanted(assignment)
        known = self._cache.known(assignment.recipe, wanted)
        missing = missing_items(known, wanted)
        if known.num_items and not missing:
            seconds = {"materialize": 0.0, "score": 0.0}
            scores = known.select(wanted)
            return Scored(assignment.number, assignment.split, scores, seconds, scored_items=0)
        self._under_way[assignment.number] = (assignment, known)
        return replace(assignment, items=missing) if known.num_items else assignment

    def put_back(self, outcome: Outcome) -> Outcome:
        """Keep what was scored, and return it with what was known before."""
        assignment, known = self._under_way.pop(outcome.number)
        if not isinstance(outcome, Scored):
            return outcome
        scores = outcome.scores
        self._cache.keep(assignment.recipe, scores)
        if known.num_items:
            scores = scores.merge(known).select(self._cache.wanted(assignment))
        return replace(outcome, scores=scores, scored_items=outcome.scores.num_items)


def missing_items(known: ItemScores, wanted: Items) -> dict[str, tuple[str, ...]]:
    """Return the items that are not known."""
    found = {}
    for task, ids in wanted.items():
        there = set(known.by_task[task].items) if task in known.by_task else set()
        if left := tuple(item for item in ids if item not in there):
            found[task] = left
    return found


def _canonical(value: Any, fingerprints: Mapping[str, str]) -> Any:
    """Return plain data in which numbers are floats and models are their content."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(inner, fingerprints) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner, fingerprints) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        return f"model:{fingerprints[value]}" if value in fingerprints else value
    return value
