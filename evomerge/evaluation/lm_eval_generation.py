"""What generation is asked for: names of options, and the room for answers. Part of the adapter."""

from collections.abc import Iterable, Mapping
from typing import Any

from evomerge.errors import EvaluationError, nearest
from evomerge.evaluation.settings import EvaluationSettings

__all__ = ["answer_limit", "check_gen_kwargs", "overrides", "room_of"]

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of one setting; where there are several, lm-eval takes the first of these."""

LM_EVAL_NAMES = ("until", "do_sample", "temperature", *LIMITS)
"""What lm-eval understands itself, whichever the backend."""

DEFAULT_LIMIT = 256
"""Tokens of an answer where a task says nothing: lm-eval's, in both backends."""

NOT_FOR_ANSWERS = (
    "stop",  # lm-eval's name is until
    "stop_strings",
    "num_return_sequences",
    "n",
    "return_dict_in_generate",
    "transformers_version",
    "is_assistant",
)
"""Options of a backend with which lm-eval gets no answer, or another one than it asks for."""


def check_gen_kwargs(settings: EvaluationSettings) -> None:
    """Check that the backend knows the names in ``evaluation.gen_kwargs``.

    Raises:
        EvaluationError: naming one that it does not know.
    """
    if unknown := set(settings.gen_kwargs).difference(LM_EVAL_NAMES):
        known = dict.fromkeys((*LM_EVAL_NAMES, *_backend_names(settings.backend)))
        for name in sorted(unknown.difference(known)):
            raise EvaluationError(
                f"evaluation.gen_kwargs: {settings.backend} generates with no option {name!r}; "
                f"{nearest(name, known)}"
            )


def _backend_names(backend: str) -> list[str]:
    if backend == "vllm":
        from vllm import SamplingParams

        names: Iterable[str] = SamplingParams.__struct_fields__
    else:
        from transformers import GenerationConfig

        names = GenerationConfig().to_dict()  # type: ignore[no-untyped-call]
    return [name for name in names if name[0] != "_" and name not in NOT_FOR_ANSWERS]


def overrides(gen_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``evaluation.gen_kwargs`` so that they win over a task's own, by whatever name."""
    limit = next((gen_kwargs[name] for name in LIMITS if name in gen_kwargs), None)
    changed = {key: value for key, value in gen_kwargs.items() if key not in LIMITS}
    return changed if limit is None else {**changed, "max_gen_toks": limit}


def room_of(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model takes, by lm-eval's rule; None if its config does not say."""
    from lm_eval.models.utils import resolve_max_length
    from transformers import AutoConfig

    try:
        parsed = type(AutoConfig.for_model(str(config.get("model_type")))).from_dict(dict(config))
    except (ValueError, KeyError, TypeError):
        return None  # building the model says what is wrong
    return resolve_max_length(parsed, default=0) or None


def answer_limit(task: Any) -> int | None:
    """Return how many tokens an answer to a task may have; None if nothing is generated.

    Raises:
        EvaluationError: if a value can be none of its option's.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    if task.get_config("output_type") != "generate_until":
        return None
    options: Mapping[str, Any] = task.get_config("generation_kwargs") or {}
    until = options.get("until") or []
    wrong = None
    if not all(isinstance(each, str) for each in (until if isinstance(until, list) else [until])):
        wrong = f"until is a text or a list of texts, got {until!r}"
    else:
        try:
            limit = int(normalize_gen_kwargs(dict(options), DEFAULT_LIMIT)["max_gen_toks"])
        except (TypeError, ValueError) as exc:
            wrong = str(exc)
        else:
            wrong = None if limit >= 1 else f"an answer has at least one token, got {limit}"
    if wrong:
        raise EvaluationError(
            f"task {task.task_name!r}: {wrong}; put it right in evaluation.gen_kwargs or in the "
            "task's generation_kwargs"
        )
    return limit
