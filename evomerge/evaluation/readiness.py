"""Whether a model can be asked the questions of a space: found out before anything is scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import EvaluationError
from evomerge.evaluation.lm_eval_generation import room_of
from evomerge.evaluation.named_templates import check_usual_template, named_template
from evomerge.evaluation.settings import EvaluationSettings

__all__ = ["check_readiness"]


def check_readiness(
    config: Mapping[str, Any],
    tokenizer: Path,
    settings: EvaluationSettings,
    answers: Mapping[str, int],
) -> None:
    """Check that there is a chat template where one is to be applied, and room for the answers.

    Args:
        config: The model's ``config.json``.
        tokenizer: Folder of its tokenizer.
        settings: How it is asked.
        answers: Task -> tokens that an answer may have.

    Raises:
        EvaluationError: saying what is missing and what to do.
    """
    if settings.apply_chat_template:
        _check_template(tokenizer, settings.chat_template)
    room = _room(config, settings) if answers else None
    for task, tokens in answers.items():
        if room is not None and tokens >= room:
            raise EvaluationError(
                f"task {task!r} asks for answers of up to {tokens} tokens, and the model takes "
                f"{room}, prompt included; set evaluation.gen_kwargs: {{max_gen_toks: …}} to less"
            )


def _check_template(folder: Path, name: str | None) -> None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as exc:
        raise EvaluationError(f"{folder}: the tokenizer cannot be loaded: {exc}") from exc
    if name is None:
        check_usual_template(tokenizer)
    else:
        named_template(tokenizer, name)


def _room(config: Mapping[str, Any], settings: EvaluationSettings) -> int | None:
    given = settings.max_length
    if settings.backend == "vllm":
        given = given or settings.vllm.get("max_model_len")
    return room_of(config) if given is None else int(given)
