"""The search problem of bench_search.py: playground models, 18 weights, three skills.

A procedure spends item evaluations: every item that a model is asked for, in search and choice. How
good its choice truly is, is measured afterwards on items that neither has seen, for free.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import evomerge
from evomerge.documents import Origin
from evomerge.evaluation import Comparison, ItemScores, Objective, compare
from evomerge.evaluation.settings import Split
from evomerge.search import worker_spec
from evomerge.space import Space
from evomerge.workers import Assignment, Failed
from evomerge.workers.worker import Worker

SPACES = Path(__file__).resolve().parent.parent / "search_spaces"


class BudgetSpentError(Exception):
    """A procedure wants to score one more candidate than it may."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all arms have in common.

    Attributes:
        budget: Item evaluations of a whole search.
        search_items: Items a skill that guide the search; the seed draws them.
        holdout_items: Items a skill that evomerge chooses its winner by; they count as spent.
        true_items: Items a skill, apart from all those, that the true score is measured on.
        space: The space file.
    """

    budget: int
    search_items: int
    holdout_items: int
    true_items: int
    space: Path = SPACES / "bench_search.yml"

    def document(self, seed: int) -> dict[str, Any]:
        """Return the space file's content for a seed."""
        data = yaml.safe_load(self.space.read_text(encoding="utf-8"))
        data["search"] = {"seed": seed}
        data["evaluation"] |= {
            "search_items": self.search_items,
            "holdout_items": self.holdout_items,
        }
        return data

    def identity(self) -> dict[str, Any]:
        """Return what two results must share to be compared."""
        data = self.document(0)
        problem = json.dumps([data["recipe"], data["tasks"]], sort_keys=True)
        digest = hashlib.sha256(problem.encode()).hexdigest()[:16]
        return {
            "space": digest,
            "budget": self.budget,
            "items": [self.search_items, self.holdout_items, self.true_items],
        }

    def parse(self, data: Mapping[str, Any]) -> Space:
        """Return a space, with paths as in the space file."""
        origin = Origin(str(self.space), self.space.read_text(encoding="utf-8"))
        return evomerge.parse_space(dict(data), origin, name=self.space.stem)


class Problem:
    """One seed of the search problem.

    Attributes:
        protocol: What all arms have in common.
        seed: Draws the items, and is the procedure's own seed.
        candidates: ``(item evaluations spent, search score)`` of every candidate, in order.
        recipes: The candidates' recipes.
    """

    def __init__(self, protocol: Protocol, seed: int) -> None:
        self.protocol = protocol
        self.seed = seed
        self.candidates: list[tuple[int, float]] = []
        self.recipes: list[dict[str, Any]] = []

    @cached_property
    def space(self) -> Space:
        """The space with the items of this seed."""
        return self.protocol.parse(self.protocol.document(self.seed))

    @cached_property
    def _worker(self) -> Worker:
        # Held-out items come in one order however many there are: evomerge's are the first of them.
        spec = worker_spec(self.space, device="cpu")
        number = self.protocol.holdout_items + self.protocol.true_items
        evaluation = spec.evaluation.model_copy(update={"holdout_items": number})
        # What guides evomerge beside the metric is no part of the other procedures.
        tasks = tuple(task.model_copy(update={"smooth": None}) for task in spec.tasks)
        return Worker(replace(spec, evaluation=evaluation, tasks=tasks))

    @property
    def low(self) -> list[float]:
        """Lower end of every searched value."""
        return [dimension.low for dimension in self.space.dimensions]

    @property
    def high(self) -> list[float]:
        """Upper end of every searched value."""
        return [dimension.high for dimension in self.space.dimensions]

    @property
    def cost(self) -> int:
        """Item evaluations of one candidate on all search items."""
        return self.protocol.search_items * len(self.space.document.tasks)

    @property
    def num_affordable(self) -> int:
        """Candidates that the budget pays for."""
        return self.protocol.budget // self.cost

    def score(self, values: Sequence[float], *, is_extra: bool = False) -> float:
        """Score a candidate on all search items.

        Args:
            values: One for every dimension; those outside the ranges are taken as they are.
            is_extra: This one may exceed the budget; it counts all the same.

        Raises:
            BudgetSpentError: if the budget does not pay for it.
        """
        if len(self.candidates) >= self.num_affordable and not is_extra:
            raise BudgetSpentError
        names = [dimension.name for dimension in self.space.dimensions]
        recipe = self.space.decode(dict(zip(names, map(float, values), strict=True))).to_dict()
        scores = self._items(recipe, "search", None)
        spent = self.candidates[-1][0] if self.candidates else 0
        value = self._objective(scores)
        self.candidates.append((spent + scores.num_items, value))
        self.recipes.append(recipe)
        return value

    def true_score(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Score a recipe on the items that nobody has seen."""
        scores = self._items(recipe, "holdout", self.unseen_items())
        tasks = {name: score.value for name, score in scores.tasks().items()}
        return {"true": self._objective(scores), "tasks": tasks}

    def compare(self, first: ItemScores, second: ItemScores) -> Comparison:
        """Compare two on the same items by the objective."""
        return compare(first, second, Objective(self._worker.info.objective))

    def unseen_items(self) -> dict[str, tuple[str, ...]]:
        """Return the items that no search and no choice sees."""
        known = self.protocol.holdout_items
        held = self._worker.info.ids["holdout"]
        return {name: ids[known:] for name, ids in held.items()}

    def _items(
        self, recipe: Mapping[str, Any], split: Split, items: dict[str, tuple[str, ...]] | None
    ) -> ItemScores:
        outcome = self._worker.evaluate(Assignment(0, dict(recipe), split, items))
        if isinstance(outcome, Failed):
            raise SystemExit(f"seed {self.seed}: a candidate failed: {outcome.reason}")
        return outcome.scores

    def _objective(self, scores: ItemScores) -> float:
        weights = self._worker.info.objective
        parts = [weights[name] * score.value for name, score in scores.tasks().items()]
        return math.fsum(parts)
