"""The options of lm-eval's ``simple_evaluate`` that a space may pass on, and why not the others."""

from collections.abc import Mapping
from typing import Any

from evomerge.errors import nearest

__all__ = ["check_options"]

SEEDS = ("fewshot_random_seed", "random_seed", "numpy_random_seed", "torch_random_seed")
PASSED = (*SEEDS, "metadata", "model_args")

MODEL_ARGS = (
    "add_bos_token",
    "prefix_token_id",
    "enable_thinking",
    "chat_template_args",
    "think_end_token",
)
"""What of ``model_args`` says how a model is asked and read, the same for both backends."""

_OWN_KEY = "has a key of its own in 'evaluation': write it there"
_REQUESTS = "prompts are built once for each worker and kept in memory"
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "num_fewshot",
            "batch_size",
            "limit",
            "system_instruction",
            "apply_chat_template",
            "fewshot_as_multiturn",
            "gen_kwargs",
        ),
        _OWN_KEY,
    ),
    "model": "the candidates are the models",
    "tasks": "the space's own 'tasks' are evaluated",
    "max_batch_size": "batch_size: auto finds what fits",
    "device": "give --device at the command line",
    "use_cache": "a run keeps every item's result, and --cache shares them between runs",
    "cache_requests": _REQUESTS,
    "rewrite_requests_cache": _REQUESTS,
    "delete_requests_cache": _REQUESTS,
    "samples": "name the items in a task's search_list and holdout_list",
    "bootstrap_iters": "the errors are computed here, clustered by item",
    "check_integrity": "it runs lm-eval's own tests",
    "write_out": "'evomerge items' shows every item",
    "log_samples": "every item's result is kept; 'evomerge items' shows them",
    "evaluation_tracker": "the study and the run directory are the record",
    "task_manager": "task_dirs and --include-path say where tasks are",
    "verbosity": "a run tells its own progress",
    "predict_only": "a search needs scores",
    "confirm_run_unsafe_code": "set allow_code_execution and give --allow-code-execution",
}


def check_options(options: Mapping[str, Any]) -> None:
    """Check what ``evaluation.lm_eval`` holds.

    Raises:
        ValueError: naming an option that is unknown, makes no sense here, or has a wrong value.
    """
    for name, value in options.items():
        if name in _REFUSED:
            raise ValueError(f"{name!r} is not passed on to lm-eval: {_REFUSED[name]}")
        if name not in PASSED:
            raise ValueError(f"lm-eval has no option {name!r}; {nearest(name, PASSED)}")
        if name in SEEDS and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"{name!r} is a whole number: a run must be repeatable, got {value!r}")
        if name in ("metadata", "model_args") and not isinstance(value, Mapping):
            raise ValueError(f"{name!r} is a mapping, got {value!r}")
    model_args = options.get("model_args", {})
    if model_args.get("enable_thinking") and model_args.get("think_end_token") is None:
        raise ValueError("model_args: enable_thinking needs think_end_token, which ends thoughts")
    for name in model_args:
        if name not in MODEL_ARGS:
            raise ValueError(
                f"model_args: {name!r} is not passed on to lm-eval, where it would say which model "
                "is loaded and how: 'evaluation' has dtype, max_length, batch_size and vllm; "
                f"{nearest(name, MODEL_ARGS)}"
            )
