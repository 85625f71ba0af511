"""Smooth metrics: how far the model is from the gold answer. Part of the adapter to lm-eval.

With few items accuracy moves in steps, and most candidates are on the same one. The log-probability
of the gold answer moves with every weight.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from evomerge.errors import EvaluationError
from evomerge.evaluation.lm_eval_metrics import Metric
from evomerge.evaluation.lm_eval_requests import Requests
from evomerge.evaluation.scores import TaskItems
from evomerge.evaluation.settings import Smooth

__all__ = ["GoldQuestion", "SmoothMetric", "is_gold", "make_smooth"]

Kind = Literal["margin", "gold_bits_per_byte", "gold_probability"]

CHEAP_METRICS = ("acc", "acc_norm", "acc_bytes", "exact_match")
SHORT_ANSWER = 32
NUM_LOOKED_AT = 8


def is_gold(instance: Any) -> bool:
    """Return whether an instance was added for a smooth metric: lm-eval numbers its own from 0."""
    return bool(instance.idx < 0)


@dataclass(frozen=True)
class GoldQuestion:
    """What the probability of an item's gold answer is made of.

    Attributes:
        instances: lm-eval's, each with a prompt and an answer whose log-likelihood is wanted.
        gold: Places of the right answers; the likeliest counts.
        scales: Among choices: what each log-likelihood is divided by. None where there are no
            choices, and the probability is that of the answer itself.
    """

    instances: tuple[Any, ...]
    gold: tuple[int, ...]
    scales: tuple[float, ...] | None = None


def make_smooth(
    task: Any,
    wanted: Smooth | None,
    reported: Metric,
    documents: Iterable[Any],
    *,
    with_chat_template: bool,
) -> "SmoothMetric | None":
    """Return the smooth metric of a task, or None where the reported one is alone.

    ``auto`` takes one for multiple choice, where it costs nothing, and for exact matches of short
    answers, where it costs one forward pass beside those of the generation.

    Args:
        task: The lm-eval task.
        wanted: ``smooth`` of the space.
        reported: The metric that it guides beside, or in whose place.
        documents: The task's documents.
        with_chat_template: Whether prompts go through a chat template.

    Raises:
        EvaluationError: if the task's kind has no such metric.
    """
    if wanted is None:
        return None
    if wanted != "auto" and wanted != "blend":  # noqa: PLR1714 - mypy follows this one
        return SmoothMetric(task, wanted, reported, with_chat_template=with_chat_template)
    if wanted == "auto" and (
        reported.name not in CHEAP_METRICS
        or task.get_config("output_type") not in ("multiple_choice", "generate_until")
    ):
        return None
    if reported.aggregation != "mean":
        if wanted == "auto":
            return None
        raise EvaluationError(
            f"task {reported.task!r}: smooth: blend is for metrics that are a mean over the items, "
            f"and {reported.label!r} is aggregated by {reported.aggregation!r}"
        )
    made = SmoothMetric(
        task, "gold_probability", reported, with_chat_template=with_chat_template, is_blended=True
    )
    if wanted == "auto" and not made.is_cheap(islice(documents, NUM_LOOKED_AT)):
        return None
    return made


class SmoothMetric:
    """The margin of the gold choice, the bits of the gold answer, or its probability.

    ``margin`` is the log-probability of the gold choice minus that of the best other one, in nats,
    by character or byte where the reported metric is ``acc_norm`` or ``acc_bytes``: it is above 0
    where the metric is 1. ``gold_probability`` is that of the whole gold answer, among the choices
    where there are any: no single item can outweigh the others. Where several answers are right,
    the likeliest counts.

    Args:
        task: The lm-eval task.
        kind: Which of the two.
        reported: The metric in whose place it guides the search.
        with_chat_template: Whether prompts go through a chat template.
        is_blended: It guides beside the metric: the probability of a gold answer that an item
            does not have is 0. Else such an item is an error.

    Raises:
        EvaluationError: if the task's kind has no such metric.
    """

    def __init__(
        self,
        task: Any,
        kind: Kind,
        reported: Metric,
        *,
        with_chat_template: bool,
        is_blended: bool = False,
    ) -> None:
        self._task = task
        self.kind = kind
        self._reported = reported
        self._chat = with_chat_template
        self.is_blended = is_blended
        self._output = task.get_config("output_type")
        wanted = ("multiple_choice",) if kind == "margin" else _WITH_GOLD
        if self._output not in wanted:
            other = (
                "; gold_bits_per_byte and gold_probability work"
                if self._output in _WITH_GOLD
                else ""
            )
            raise EvaluationError(
                f"task {reported.task!r}: smooth: {kind} is for tasks of the type "
                f"{' or '.join(wanted)}, this one is {self._output}{other}"
            )

    def is_cheap(self, documents: Iterable[Any]) -> bool:
        """Return whether it needs no forward pass of its own, or a short one."""
        if self._output != "generate_until":
            return True
        try:
            texts = [text for each in documents for text in self._gold_texts(each)]
        except Exception:  # noqa: BLE001 - a task's own templates can do anything; then it has no gold answers
            return False
        return bool(texts) and max(map(len, texts)) <= SHORT_ANSWER

    def requests(self, own: Requests) -> Requests:
        """Return the requests that one item needs beside its own: the gold answers of a prompt."""
        if self._output != "generate_until":
            return []
        from lm_eval.api.instance import Instance

        first = own[0]
        prompt = first.args[0]
        return [
            Instance(
                request_type="loglikelihood",
                doc=first.doc,
                arguments=(prompt, self._delimiter() + text),
                idx=-1 - place,
                metadata=(first.task_name, first.doc_id, 1),
            )
            for place, text in enumerate(self._gold_texts(first.doc))
            if text
        ]

    def collect(self, answered: Mapping[str, Requests]) -> TaskItems:
        """Return the metric of each item, from its instances with their responses."""
        values = [self._value(item, requests) for item, requests in answered.items()]
        higher = self.kind != "gold_bits_per_byte"
        return TaskItems(self.kind, higher, tuple(answered), np.array(values))

    def question(self, requests: Requests) -> GoldQuestion | None:
        """Return what ``gold_probability`` is made of; None for an item without a gold answer.

        Args:
            requests: One item's instances, as built.
        """
        if self._output == "multiple_choice":
            _, choices, places = self._choices(requests[0].doc)
            if not places:
                return None
            scales = tuple(self._length(choice) for choice in choices)
            return GoldQuestion(tuple(requests[: len(choices)]), tuple(places), scales)
        gold = self._gold(requests)
        return GoldQuestion(tuple(gold), tuple(range(len(gold)))) if gold else None

    def _gold(self, requests: Requests) -> Requests:
        return requests if self._output == "loglikelihood" else list(filter(is_gold, requests))

    def _value(self, item: str, requests: Requests) -> float:
        if self._output == "multiple_choice":
            return self._of_choices(item, requests)
        document = requests[0].doc
        likelihoods = [instance.resps[0][0] for instance in self._gold(requests)]
        if not likelihoods:
            return 0.0
        if self.kind == "gold_probability":
            return math.exp(max(likelihoods))
        texts = self._gold_texts(document)
        return min(_bits(nats, text) for nats, text in zip(likelihoods, texts, strict=True))

    def _of_choices(self, item: str, requests: Requests) -> float:
        task, document = self._task, requests[0].doc
        by_context, choices, gold = self._choices(document)
        likelihoods = [requests[place].resps[0][0] for place in range(len(choices))]
        if not gold and self.is_blended:
            return 0.0
        if not gold:
            raise EvaluationError(
                f"task {self._reported.task!r}: the gold answer of item {item} is none of its "
                "choices, so it has no smooth metric"
            )
        if self.kind == "gold_bits_per_byte":
            texts = [task.doc_to_target(document)] * len(choices) if by_context else choices
            return min(_bits(likelihoods[place], texts[place]) for place in gold)
        scaled = [
            likelihood / self._length(choice)
            for likelihood, choice in zip(likelihoods, choices, strict=True)
        ]
        if self.kind == "gold_probability":
            top = max(scaled)
            shares = [math.exp(value - top) for value in scaled]
            return max(shares[place] for place in gold) / math.fsum(shares)
        others = [value for place, value in enumerate(scaled) if place not in gold]
        return float(max(scaled[place] for place in gold) - max(others, default=0.0))

    def _choices(self, document: Any) -> tuple[bool, Sequence[str], list[int]]:
        """Return whether the choices are prompts, the choices, and the places of the right ones."""
        task = self._task
        choices = task.doc_to_choice(document)
        by_context = isinstance(task.doc_to_text(document), int)
        right = task.doc_to_text(document) if by_context else task.doc_to_target(document)
        return by_context, choices, _places(right, choices)

    def _length(self, choice: str) -> float:
        """Return what lm-eval divides by before it takes the best choice."""
        if self._reported.name == "acc_norm":
            return float(len(choice)) or 1.0
        return float(len(choice.encode())) if self._reported.name == "acc_bytes" else 1.0

    def _gold_texts(self, document: Any) -> list[str]:
        target = self._task.doc_to_target(document)
        if self._task.get_config("doc_to_choice") is not None and isinstance(target, int):
            target = self._task.doc_to_choice(document)[target]
        texts = [str(each) for each in (target if isinstance(target, list) else [target])]
        if not self.is_blended and not (texts and all(texts)):
            raise EvaluationError(
                f"task {self._reported.task!r} has an item without a gold answer, so it has no "
                "smooth metric; leave 'smooth' out"
            )
        return texts

    def _delimiter(self) -> str:
        """Return what stands between a prompt and its answer, as lm-eval does for choices."""
        prefix = self._task.get_config("gen_prefix")
        if self._chat and not (prefix and not prefix[-1:].isspace()):
            return ""
        return str(self._task.get_config("target_delimiter"))


_WITH_GOLD = ("multiple_choice", "loglikelihood", "generate_until")


def _places(gold: Any, choices: Sequence[str]) -> list[int]:
    """Return the places of the right choices."""
    found = []
    for each in gold if isinstance(gold, list) else [gold]:
        if isinstance(each, str):
            found += [choices.index(each)] if each in choices else []
        elif 0 <= each < len(choices):
            found.append(int(each))
    return found


def _bits(likelihood: float, text: str) -> float:
    return float(-likelihood / math.log(2) / len(text.encode()))
