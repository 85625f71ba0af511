"""What the evaluator needs of a live model, whichever backend runs it."""

from contextlib import AbstractContextManager
from typing import Protocol

from evomerge.errors import EvaluationError
from evomerge.evaluation.lm_eval_requests import LanguageModel

__all__ = ["MemoryExhaustedError", "ScoringModel"]


class MemoryExhaustedError(EvaluationError):
    """The device ran out of memory while scoring."""


class ScoringModel(Protocol):
    """A live model that holds a candidate's weights."""

    @property
    def lm(self) -> LanguageModel:
        """The model as lm-eval asks it."""
        ...

    def scoring(self) -> AbstractContextManager[None]:
        """Run forward passes inside.

        Raises:
            EvaluationError: if the model gave numbers that are not finite.
            MemoryExhaustedError: if the device ran out of memory.
        """
        ...

    def shrink_batch(self) -> bool:
        """Make batches smaller; return whether that was possible."""
        ...
