"""The adapter to lm-eval's transformers backend: a resident model, everything reusable kept.

Imports torch, transformers and lm-eval; ``hf`` imports it when a live model is built.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from evomerge.evaluation.named_templates import named_template

__all__ = ["ResidentLM"]


class ResidentLM(HFLM):  # type: ignore[misc]  # lm-eval publishes no types
    """lm-eval's ``HFLM`` for a model that scores the same prompts again and again.

    Token ids of every prompt are kept, as are padded batches; nothing else differs, so results
    are those of ``HFLM``.

    Args:
        args: As ``HFLM``.
        chat_template: Name of the chat template; None means the tokenizer's usual one.
        kwargs: As ``HFLM``.

    Raises:
        EvaluationError: if the tokenizer has no template of that name.
    """

    chat_template_args: dict[str, Any]

    def __init__(self, *args: Any, chat_template: str | None = None, **kwargs: Any) -> None:
        self._encoded: dict[Any, list[int]] = {}
        self._batches: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}
        super().__init__(*args, **kwargs)
        if chat_template is not None:
            text = named_template(self.tokenizer, chat_template)
            self.chat_template_args = {**self.chat_template_args, "chat_template": text}

    @cached_property
    def max_length(self) -> int:
        """Tokens that the model takes; lm-eval asks for each request, and would look anew."""
        return int(super().max_length)

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """Return the token ids of a text; callers must not change them."""
        key = (string, add_special_tokens, left_truncate_len)
        if key not in self._encoded:
            self._encoded[key] = super().tok_encode(
                string, add_special_tokens, left_truncate_len, **kwargs
            )
        return self._encoded[key]

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask of a padded batch, on the model's device."""
        key = (tuple(strings), padding_side, left_truncate_len, truncation)
        if key not in self._batches:
            ids, mask = super().tok_batch_encode(
                list(strings), padding_side, left_truncate_len, truncation
            )
            self._batches[key] = (ids.to(self.device), mask.to(self.device))
        return self._batches[key]

    def encode_answers(self, requests: Sequence[Any]) -> list[tuple[list[int], list[int]]]:
        """Return the token ids of prompt and answer for each instance, as ``loglikelihood`` does.

        Callers must not change them.
        """
        found = []
        for context, continuation in (instance.args for instance in requests):
            if context:
                found.append(self._encode_pair(context, continuation))
                continue
            answer = self.tok_encode(continuation, add_special_tokens=False)
            prefix = self.prefix_token_id
            found.append(([prefix], answer) if answer[0] != prefix else (answer[:1], answer[1:]))
        return found

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = True,  # noqa: ARG002 - loglikelihood_rolling always passes False
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        result: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, disable_tqdm=True, override_bs=override_bs
        )
        return result
