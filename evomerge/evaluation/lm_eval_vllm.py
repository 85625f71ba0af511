"""The adapter to lm-eval's vLLM backend: what is reusable is kept, what it hides is watched.

Imports vLLM and lm-eval; ``vllm`` imports it when an engine is started.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm_eval.models.vllm_causallms import VLLM

from evomerge.errors import EvaluationError
from evomerge.evaluation.named_templates import named_template

__all__ = ["ResidentVLLM"]


class ResidentVLLM(VLLM):  # type: ignore[misc]  # lm-eval publishes no types
    """lm-eval's ``VLLM`` for an engine that answers the same prompts again and again.

    Token ids of every prompt are kept. Generated texts have no special tokens in them, as those of
    lm-eval's transformers backend; samples depend on the prompt alone.

    Args:
        args: As ``VLLM``.
        sampling_seed: What samples are drawn from.
        chat_template: Name of the chat template; None means the tokenizer's usual one.
        kwargs: As ``VLLM``.

    Attributes:
        engine: vLLM's ``LLM``.

    Raises:
        EvaluationError: if the tokenizer has no template of that name.
    """

    model: Any

    def __init__(
        self, *args: Any, sampling_seed: int, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        self._encoded: dict[Any, list[int]] = {}
        super().__init__(*args, **kwargs)
        if chat_template is not None:
            self.hf_chat_template = named_template(self.tokenizer, chat_template)
        self.engine: Any = self.model
        self.model = _WatchedEngine(self.engine, self.tokenizer, sampling_seed)

    def tok_encode(self, string: Any, add_special_tokens: bool | None = None, **kwargs: Any) -> Any:
        """Return the token ids of a text or of each of several; callers must not change them."""
        if not isinstance(string, str):
            return [self.tok_encode(each, add_special_tokens, **kwargs) for each in string]
        key = (string, add_special_tokens, tuple(sorted(kwargs.items())))
        if key not in self._encoded:
            self._encoded[key] = super().tok_encode(string, add_special_tokens, **kwargs)
        return self._encoded[key]

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = True,  # noqa: ARG002 - loglikelihood_rolling always passes False
    ) -> list[tuple[float, bool]]:
        result: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, disable_tqdm=True
        )
        return result


class _WatchedEngine:
    """vLLM's ``LLM`` with seeded samples, generations that are checked, and no progress bars."""

    def __init__(self, engine: Any, tokenizer: Any, seed: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._seed = seed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(
        self, prompts: Sequence[Any], sampling_params: Sequence[Any], **options: Any
    ) -> list[Any]:
        """Return vLLM's outputs.

        Raises:
            EvaluationError: if a token was chosen from logits that are not finite: greedy decoding
                turns NaN into a token without a word.
        """
        seen: Counter[bytes] = Counter()
        watched = [
            self._watched(params, prompt["prompt_token_ids"], seen)
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]
        options["use_tqdm"] = False
        outputs: list[Any] = self._engine.generate(prompts, sampling_params=watched, **options)
        for output, params in zip(outputs, watched, strict=True):
            if output.prompt_logprobs is not None:
                output.prompt_logprobs = [_best_first(each) for each in output.prompt_logprobs]
            for completion in output.outputs:
                chosen = completion.cumulative_logprob
                if chosen is not None and not math.isfinite(chosen):
                    raise EvaluationError(
                        "the model's logits are NaN or infinite: the candidate's weights overflow "
                        "or are damaged"
                    )
                if params.detokenize:
                    # vLLM needs special tokens in its text to stop at them.
                    completion.text = self._tokenizer.decode(
                        completion.token_ids, skip_special_tokens=True
                    )
        return outputs

    def _watched(self, params: Any, tokens: Sequence[int], seen: Counter[bytes]) -> Any:
        """Return sampling parameters that tell a token's log-probability and sample with a seed.

        The seed depends on the prompt and on how often it came before in this call, so that a
        sample is the same whatever else is asked, and repeats of a prompt are different samples.
        """
        params = params.clone()
        if params.logprobs is None:
            params.logprobs = 0  # of the chosen token only
        if params.temperature > 0 and params.seed is None:
            digest = hashlib.sha256(repr((self._seed, list(tokens))).encode()).digest()
            seen[digest] += 1
            again = seen[digest].to_bytes(4, "big")
            params.seed = int.from_bytes(hashlib.sha256(digest + again).digest()[:4], "big")
        return params


def _best_first(tokens: Any) -> Any:
    """Return the log-probabilities at one place, the most probable token's first.

    lm-eval calls a token greedy if no other has a greater value, and would call any token greedy
    for a model that gives all of them the same.
    """
    if not tokens or len(tokens) < 2:
        return tokens
    return dict(sorted(tokens.items(), key=lambda pair: pair[1].rank))
