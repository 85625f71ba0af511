"""Running a model on lm-eval's requests. Part of the adapter to lm-eval."""

import contextlib
import copy
import io
import logging
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from evomerge.errors import EvaluationError
from evomerge.evaluation.settings import EvaluationSettings

__all__ = ["LanguageModel", "Requests", "loading", "num_cut", "quiet", "run_requests"]

Requests = list[Any]
"""The lm-eval instances of one item, ordered by ``idx``; never changed after they were built."""


class LanguageModel(Protocol):
    """The part of lm-eval's ``LM`` that scoring calls."""

    tokenizer: Any

    @property
    def max_length(self) -> int:
        """Tokens that the model takes."""

    def tok_encode(self, string: str) -> list[int]:
        """Return the token ids of a text."""

    def loglikelihood(self, requests: Requests, disable_tqdm: bool = False) -> list[Any]:
        """Return (log-likelihood, is greedy) for each request."""

    def loglikelihood_rolling(self, requests: Requests, disable_tqdm: bool = False) -> list[Any]:
        """Return the log-likelihood of each text."""

    def generate_until(self, requests: Requests, disable_tqdm: bool = False) -> list[Any]:
        """Return the generated text for each request."""

    def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
        """Return a conversation as the prompt the model was trained on."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' log below errors to themselves while scoring."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers", "datasets", "vllm")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def loading(settings: EvaluationSettings, seed: int) -> Iterator[None]:
    """Quiet, without progress bars, and with seeded global generators that are put back after."""
    options = settings.lm_eval
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what tasks use
    random.seed(options.get("random_seed", seed))
    np.random.seed(options.get("numpy_random_seed", seed) % 2**32)  # noqa: NPY002
    try:
        # Building requests shows a bar that no argument turns off.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def num_cut(requests: Iterable[Requests], model: LanguageModel, answer: int | None) -> int:
    """Return how many prompts are longer than the model takes: they lose their beginning.

    Args:
        requests: The requests of each item.
        model: The model.
        answer: Tokens kept free for an answer where one is generated.
    """
    room, count = int(model.max_length), 0
    for instances in requests:
        for instance in instances:
            if instance.request_type == "generate_until":
                text, beside = instance.args[0], answer or 0
            elif instance.request_type == "loglikelihood":
                text, beside = "".join(instance.args), -1  # the last token is never read
            else:  # rolling windows: nothing is lost
                continue
            # A token has a byte at least, so most prompts need not be encoded.
            if len(text.encode()) + 2 + beside > room:
                count += len(model.tok_encode(text)) + beside > room
    return count


def _unanswered(instance: Any) -> Any:
    """Return a copy of an instance that has no responses yet."""
    fresh = copy.copy(instance)
    fresh.resps, fresh.filtered_resps = [], {}
    return fresh


def run_requests(
    model: LanguageModel, items: Mapping[str, Mapping[str, Requests]]
) -> dict[str, dict[str, Requests]]:
    """Run the model on the requests of some items, all tasks in the same batches.

    Args:
        model: The model.
        items: Task -> item id -> its instances; they are left as they are.

    Returns:
        The same, with copies of the instances that carry the responses.

    Raises:
        EvaluationError: if a log-likelihood is not finite.
    """
    answered = {
        task: {item: [_unanswered(each) for each in requests] for item, requests in by_item.items()}
        for task, by_item in items.items()
    }
    by_type: dict[str, list[tuple[str, str, Any]]] = defaultdict(list)
    for task, by_item in answered.items():
        for item, requests in by_item.items():
            for instance in requests:
                repeated = [(task, item, instance)] * (instance.repeats or 1)
                by_type[instance.request_type] += repeated
    for kind, entries in by_type.items():
        responses = getattr(model, kind)([entry[2] for entry in entries], disable_tqdm=True)
        for (task, item, instance), response in zip(entries, responses, strict=True):
            number = response[0] if isinstance(response, tuple) else response
            if not isinstance(number, str) and not math.isfinite(number):
                raise EvaluationError(
                    f"task {task!r}: the log-likelihood of item {item} is {number}: the "
                    "candidate's weights overflow or are damaged"
                )
            instance.resps.append(response)
    return answered
