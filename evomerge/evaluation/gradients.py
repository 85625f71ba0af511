"""The slope of what the gold answers' probability is worth along every live parameter.

By one backward pass.

Imports torch; ``Evaluator.gold_gradient`` imports it when a gradient is asked for.
"""

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evomerge.errors import EvaluationError
from evomerge.evaluation.calibration import Logistic
from evomerge.evaluation.hf import LiveModel
from evomerge.evaluation.lm_eval_requests import quiet
from evomerge.evaluation.lm_eval_smooth import GoldQuestion
from evomerge.evaluation.model import MemoryExhaustedError

__all__ = ["GoldGradient", "Gradient", "Part"]

_log = logging.getLogger(__name__)

MOST_ANSWERS = 16
"""In a batch: a backward pass keeps what every layer computed, which scoring does not."""

Tokens = tuple[list[int], list[int]]
"""Token ids of a prompt and of an answer."""


@dataclass(frozen=True)
class Part:
    """A question's part in the sum.

    Attributes:
        question: The question.
        weight: How much it counts.
        worth: What the probability of its gold answer is worth; None means itself.
    """

    question: GoldQuestion
    weight: float
    worth: Logistic | None = None


@dataclass(frozen=True)
class Gradient:
    """A number, and its slope along the live parameters.

    Attributes:
        value: The number.
        by_name: Tensor's name in the checkpoint -> slope, of the same shape. Tied tensors share
            theirs, which is that of all their uses.
    """

    value: float
    by_name: Mapping[str, torch.Tensor]


class GoldGradient:
    """Differentiates the gold answers' probability through a live model.

    Args:
        live: The model; between calls it is frozen as ever.
    """

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self._batch = min(live.batch_size, MOST_ANSWERS)

    def of(self, parts: Sequence[Part]) -> Gradient:
        """Return the weighted sum of what the probabilities are worth, with its slopes.

        Where memory runs out, it goes on with smaller batches: at least one question each.

        Args:
            parts: What is summed.

        Raises:
            EvaluationError: if the sum is not finite, or there is no room for the slopes.
            MemoryExhaustedError: if not even one question fits.
        """
        self._check_memory()
        while True:
            try:
                return self._of(parts)
            except torch.OutOfMemoryError as error:
                if self._batch == 1:
                    raise MemoryExhaustedError(
                        f"{self._live.device} ran out of memory in the backward pass of one item; "
                        "set search.climb: false, or evaluation.max_length"
                    ) from error
            self._batch = max(self._batch // 2, 1)
            _log.warning(
                "%s ran out of memory in a backward pass: batches of %d there from now on",
                self._live.device,
                self._batch,
            )

    def _check_memory(self) -> None:
        """Refuse what a CPU has no memory for: there the system would kill the process."""
        free = _free_memory() if self._live.device.type == "cpu" else None
        need = sum(each.nbytes for each in self._live.model.parameters())
        if free is not None and need > free:
            raise EvaluationError(
                f"a gradient takes {need / 2**30:.1f} GiB beside the model, and "
                f"{free / 2**30:.1f} GiB are free"
            )

    def _of(self, parts: Sequence[Part]) -> Gradient:
        encoded = [(self._live.lm.encode_answers(part.question.instances), part) for part in parts]
        encoded.sort(key=lambda each: -max(len(c) + len(a) for c, a in each[0]))
        value = 0.0
        # A climb has few backward passes: compiling them would cost more than they do.
        with quiet(), self._live.uncompiled(), self._thawed(), torch.enable_grad():
            for batch in self._batches(encoded):
                likelihoods = self._likelihoods([pair for pairs, _ in batch for pair in pairs])
                shares = torch.split(likelihoods, [len(pairs) for pairs, _ in batch])
                worths = [
                    _worth(part, share) * part.weight
                    for (_, part), share in zip(batch, shares, strict=True)
                ]
                total = torch.stack(worths).sum()
                value += total.item()
                total.backward()  # type: ignore[no-untyped-call]
            if not math.isfinite(value):
                raise EvaluationError(
                    f"what the gold answers are worth is {value}: the candidate's weights overflow "
                    "or are damaged"
                )
            return Gradient(value, self._by_name())

    @contextlib.contextmanager
    def _thawed(self) -> Iterator[None]:
        """Let parameters have gradients inside."""
        parameters = [each for each in self._live.model.parameters() if each.is_floating_point()]
        try:
            for each in parameters:
                each.requires_grad_(True)
            yield
        finally:
            for each in parameters:
                each.requires_grad_(False)
                each.grad = None

    def _batches(
        self, encoded: Sequence[tuple[list[Tokens], Part]]
    ) -> Iterator[list[tuple[list[Tokens], Part]]]:
        """Yield questions whose answers together are no more than a batch; one at least."""
        batch: list[tuple[list[Tokens], Part]] = []
        count = 0
        for each in encoded:
            if batch and count + len(each[0]) > self._batch:
                yield batch
                batch, count = [], 0
            batch.append(each)
            count += len(each[0])
        if batch:
            yield batch

    def _likelihoods(self, pairs: Sequence[Tokens]) -> torch.Tensor:
        """Return the log-likelihood of each answer, shape ``(len(pairs),)``."""
        device = self._live.device
        longest = self._live.lm.max_length + 1  # as in scoring, cut from the left
        rows = [((context + answer)[-longest:], len(answer)) for context, answer in pairs]
        width = max(len(row) for row, _ in rows) - 1
        ids = torch.tensor([row[:-1] + [0] * (width + 1 - len(row)) for row, _ in rows])
        places = [
            (i, place, row[place + 1])
            for i, (row, length) in enumerate(rows)
            for place in range(len(row) - 1 - length, len(row) - 1)
        ]
        # Padding is on the right, where no token of a causal model looks.
        logits = self._live.model(ids.to(device)).logits
        row, column, token = torch.tensor(places, device=device).unbind(1)
        chosen = torch.log_softmax(logits[row, column].float(), -1)
        chosen = chosen.gather(1, token[:, None])[:, 0]
        return torch.stack(
            [part.sum() for part in torch.split(chosen, [length for _, length in rows])]
        )

    def _by_name(self) -> dict[str, torch.Tensor]:
        """Return the gradients as the checkpoint names and shapes their tensors."""
        with_gradient = {
            each.untyped_storage().data_ptr(): each
            for each in self._live.model.parameters()
            if each.grad is not None
        }
        found = {}
        for name, view in self._live.parameters_by_name().items():
            whole = with_gradient.get(view.untyped_storage().data_ptr())
            if whole is None or whole.grad is None:
                continue
            gradient = whole.grad
            if gradient.stride() != whole.stride():
                gradient = torch.empty_like(whole, requires_grad=False).copy_(gradient)
            start = view.storage_offset() - whole.storage_offset() + gradient.storage_offset()
            found[name] = gradient.as_strided(view.shape, view.stride(), start)
        return found


def _free_memory() -> int | None:
    """Return the bytes that Linux can still give; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] * 1024 if sizes else None


def _worth(part: Part, likelihoods: torch.Tensor) -> torch.Tensor:
    """Return what the probability of the likeliest right answer is worth."""
    gold, scales = list(part.question.gold), part.question.scales
    if scales is not None:
        likelihoods = torch.log_softmax(
            likelihoods / torch.tensor(scales, device=likelihoods.device), 0
        )
    likeliest = likelihoods[gold].max()
    if part.worth is None:
        return likeliest.exp()
    return torch.sigmoid(part.worth.slope * (likeliest - part.worth.middle))
