"""Scoring: the model's forward passes on requests that were built once, then the metrics."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evomerge.errors import EvaluationError, nearest
from evomerge.evaluation.calibration import Logistic
from evomerge.evaluation.hf import LiveModel
from evomerge.evaluation.lm_eval_requests import Requests, num_cut, quiet, run_requests
from evomerge.evaluation.model import MemoryExhaustedError, ScoringModel
from evomerge.evaluation.scores import ItemScores, TaskItems
from evomerge.evaluation.settings import Split
from evomerge.evaluation.tasks import TaskSet

if TYPE_CHECKING:
    from evomerge.evaluation.gradients import GoldGradient, Gradient

__all__ = ["Evaluator"]

_log = logging.getLogger(__name__)


class Evaluator:
    """Scores whatever weights the live model has at the moment.

    Prompts and requests of all items are built here, once. The same weights and items give the
    same bits each time; with other items in the batches a log-likelihood may differ in its last
    bits.

    Attributes:
        task_set: The tasks.
        live_model: The model whose parameters are overwritten between calls.
    """

    def __init__(self, task_set: TaskSet, live_model: ScoringModel) -> None:
        self.task_set = task_set
        self.live_model = live_model
        self._requests: dict[str, dict[str, Requests]] = {}
        self._gradient: GoldGradient | None = None
        for name, task in task_set.tasks.items():
            items = [*task_set.items("search")[name], *task_set.items("holdout")[name]]
            self._requests[name] = task.build(items, live_model.lm)
            self._tell_of_cut_prompts(name)

    def score(self, split: Split, items: Mapping[str, Sequence[str]] | None = None) -> ItemScores:
        """Score the live model.

        Args:
            split: ``"search"`` or ``"holdout"``.
            items: Task -> item ids, all of this split; ``None`` means every item of it. A task
                that is left out is not scored.

        Returns:
            The metric of each item, in the order asked for.

        Raises:
            EvaluationError: if an item is not in the split, or the model gives NaN or infinity.
        """
        wanted = self._wanted(split, items)
        chosen = {
            task: {item: self._requests[task][item] for item in ids} for task, ids in wanted.items()
        }
        while True:
            try:
                return self._run(chosen)
            except MemoryExhaustedError:
                if not self.live_model.shrink_batch():
                    raise

    def gold_gradient(
        self,
        split: Split,
        items: Mapping[str, Sequence[str]] | None = None,
        worth: Mapping[str, Logistic] | None = None,
    ) -> "Gradient":
        """Return the slope of what the gold answers' probability is worth along each parameter.

        Args:
            split: ``"search"`` or ``"holdout"``.
            items: As for ``score``.
            worth: Task -> what its probabilities are worth; without, they count as they are.

        Raises:
            EvaluationError: if an item is not in the split, a task has no such probability, the
                backend has no gradients, or the model gives NaN or infinity.
        """
        from evomerge.evaluation.gradients import GoldGradient, Part

        wanted = self._wanted(split, items)
        if self._gradient is None:
            if not isinstance(self.live_model, LiveModel):
                raise EvaluationError("gradients need evaluation.backend: hf")
            self._gradient = GoldGradient(self.live_model)
        weights = self.task_set.objective.weights
        parts = []
        for name, ids in wanted.items():
            smooth = self.task_set.tasks[name].smooth
            if smooth is None or smooth.kind != "gold_probability":
                raise EvaluationError(f"task {name!r} has no probability of a gold answer to climb")
            questions = [smooth.question(self._requests[name][item]) for item in ids]
            share = weights[name] / len(ids)
            mine = None if worth is None else worth.get(name)
            parts += [Part(each, share, mine) for each in questions if each is not None]
        return self._gradient.of(parts)

    def _tell_of_cut_prompts(self, name: str) -> None:
        """Say which prompts do not fit, once a task: lm-eval cuts them, and scores suffer."""
        task, requests, lm = self.task_set.tasks[name], self._requests[name], self.live_model.lm
        count = num_cut(requests.values(), lm, task.answer_limit)
        if count and not task.told_of_cut_prompts:
            task.told_of_cut_prompts = True
            _log.warning(
                "task %s: %d of %d prompts are longer than the %d tokens that the model takes, and "
                "lose their beginning; fewer few-shot examples or a shorter answer (max_gen_toks) "
                "make room",
                *(name, count, sum(map(len, requests.values())), lm.max_length),
            )

    def _run(self, chosen: Mapping[str, Mapping[str, Requests]]) -> ItemScores:
        result: dict[str, TaskItems] = {}
        smooth: dict[str, TaskItems] = {}
        try:
            with quiet(), self.live_model.scoring():
                answered = run_requests(self.live_model.lm, chosen)
            for name, by_item in answered.items():
                result[name], guide = self.task_set.tasks[name].score(by_item)
                if guide is not None:
                    smooth[name] = guide
        except EvaluationError:
            raise
        except Exception as exc:  # lm-eval asserts, and a task's own metric can do anything
            raise EvaluationError(f"scoring failed: {type(exc).__name__}: {exc}") from exc
        return ItemScores(result, smooth)

    def _wanted(
        self, split: Split, items: Mapping[str, Sequence[str]] | None
    ) -> dict[str, tuple[str, ...]]:
        all_items = self.task_set.items(split)
        if items is None:
            return all_items
        wanted = {}
        for task, ids in items.items():
            if task not in all_items:
                raise EvaluationError(f"no task {task!r} is loaded; {nearest(task, all_items)}")
            known = set(all_items[task])
            if strange := [item for item in ids if item not in known]:
                raise EvaluationError(
                    f"task {task!r} has no {split} item {strange[0]!r} "
                    f"({len(strange)} of {len(ids)} items are not in this split)"
                )
            if ids:
                wanted[task] = tuple(dict.fromkeys(ids))
        return wanted
