"""The owner of one device: resident sources, one live model, one evaluator."""

import logging
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import torch

from evomerge.checkpoints import open_checkpoint
from evomerge.documents import Origin
from evomerge.engine import plan_merge
from evomerge.errors import EvaluationError, EvomergeError
from evomerge.evaluation import Evaluator, TaskSet
from evomerge.evaluation.settings import Split
from evomerge.recipe import Recipe, parse_recipe
from evomerge.workers.assignment import (
    Assignment,
    Failed,
    Outcome,
    Scored,
    Sloped,
    WorkerInfo,
    WorkerSpec,
)
from evomerge.workers.backend import open_backend

__all__ = ["Worker"]

_log = logging.getLogger(__name__)
_ONE_THREAD_BELOW = 20_000_000


class Worker:
    """Materializes and scores candidates on one device.

    Nothing a candidate does ends a worker: an evaluation that raises becomes a :class:`Failed`.

    Args:
        spec: Models, tasks and settings.

    Raises:
        EvomergeError: if a model or a task cannot be loaded.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        started = time.perf_counter()
        self._spec = spec
        self._tasks = TaskSet.load(
            spec.tasks,
            spec.evaluation,
            seed=spec.seed,
            folder=Path(spec.folder),
            code_confirmed=spec.code_confirmed,
        )
        self._checkpoints = {name: open_checkpoint(name) for name in spec.models}
        largest = max(c.num_parameters for c in self._checkpoints.values())
        torch.set_num_threads(_num_threads(spec.max_threads, largest))
        self._backend = open_backend(spec, self._checkpoints)
        self._is_proxy = spec.evaluation.proxy is not None
        self._evaluator: Evaluator | None = None
        splits: tuple[Split, ...] = ("search", "holdout")
        guides = {name: task.smooth for name, task in self._tasks.tasks.items() if task.smooth}
        self.info = WorkerInfo(
            pid=os.getpid(),
            items={
                split: {task: len(ids) for task, ids in self._tasks.items(split).items()}
                for split in splits
            },
            objective=self._tasks.objective.weights,
            load_seconds=time.perf_counter() - started,
            bank_bytes=self._backend.bank_bytes,
            ids={split: dict(self._tasks.items(split)) for split in splits},
            task_keys=self._tasks.keys(device=torch.device(spec.device).type),
            task_identities=self._tasks.identities(),
            members=self._tasks.members,
            smooth=tuple(guides),
            blended=tuple(name for name, smooth in guides.items() if smooth.is_blended),
            climbable=self._tasks.climbable if spec.evaluation.backend == "hf" else (),
            answers=self._tasks.answers,
        )

    def evaluate(self, assignment: Assignment) -> Outcome | Sloped:
        """Materialize one recipe into the live model and score it, or find the slope there."""
        seconds = {"materialize": 0.0, "score": 0.0}
        number, split = assignment.number, assignment.split
        try:
            started = time.perf_counter()
            recipe = parse_recipe(assignment.recipe, Origin(f"trial {number}"))
            evaluator = self._materialize(recipe, split)
            seconds["materialize"] = time.perf_counter() - started
            if assignment.tangents:
                return self._slope(assignment, recipe, evaluator, seconds)
            started = time.perf_counter()
            scores = evaluator.score(split, assignment.items)
            seconds["score"] = time.perf_counter() - started
        except (KeyboardInterrupt, SystemExit):
            raise
        except EvomergeError as error:
            reason = " ".join(str(error).split())
            return Failed(number, split, reason, seconds, os.getpid())
        except Exception as error:  # noqa: BLE001 - a failed candidate is a result, whatever it raised
            _log.debug("trial %d failed", number, exc_info=True)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self._drop_live_model()
            return Failed(number, split, reason[:500], seconds, os.getpid())
        return Scored(number, split, scores, seconds, os.getpid())

    def close(self) -> None:
        """Free the live model."""
        self._drop_live_model()

    def _slope(
        self,
        assignment: Assignment,
        recipe: Recipe,
        evaluator: Evaluator,
        seconds: dict[str, float],
    ) -> Sloped:
        """Find the slope at the recipe that is in the live model."""
        started = time.perf_counter()
        gradient = evaluator.gold_gradient(assignment.split, assignment.items, assignment.worth)
        seconds["score"] = time.perf_counter() - started
        started = time.perf_counter()
        beside = Origin(f"a recipe beside trial {assignment.number}")
        recipes = [recipe, *(parse_recipe(each, beside) for each in assignment.tangents)]
        plan, *tangents = (plan_merge(each, self._checkpoints) for each in recipes)
        slopes = self._backend.moves_along(plan, tangents, gradient.by_name)
        seconds["tangents"] = time.perf_counter() - started
        if not all(map(math.isfinite, slopes)):
            raise EvaluationError("the slope is not finite: the candidate's weights overflow")
        wanted = assignment.items or self._tasks.items(assignment.split)
        count = sum(map(len, wanted.values()))
        return Sloped(assignment.number, gradient.value, tuple(slopes), count, seconds, os.getpid())

    def _materialize(self, recipe: Recipe, split: Split) -> Evaluator:
        plan = plan_merge(recipe, self._checkpoints)
        self._choose_backend(split)
        if self._evaluator is None or not self._backend.fits(plan):
            self._drop_live_model()
            self._evaluator = Evaluator(self._tasks, self._backend.build(recipe, plan))
        self._backend.materialize(recipe, plan)
        return self._evaluator

    def _choose_backend(self, split: Split) -> None:
        """Let a proxy score search items only: what is held out decides."""
        evaluation = self._spec.evaluation
        is_proxy = evaluation.proxy is not None and split == "search"
        if is_proxy == self._is_proxy:
            return
        self._drop_live_model()
        chosen = evaluation if is_proxy else evaluation.deciding()
        self._backend = open_backend(replace(self._spec, evaluation=chosen), self._checkpoints)
        self._is_proxy = is_proxy

    def _drop_live_model(self) -> None:
        """Forget a live model that may be half written or out of memory."""
        self._evaluator = None
        self._backend.drop()


def _num_threads(limit: int | None, num_parameters: int) -> int:
    """Return how many threads pay: for a small model, handing out the work costs more than it."""
    available = min(limit or os.cpu_count() or 1, torch.get_num_threads())
    return 1 if num_parameters < _ONE_THREAD_BELOW else max(available, 1)
