"""The options of lm-eval's ``simple_evaluate`` that a space may pass on, and why not the others."""

from collections.abc import Mapping
from typing import Any

from evomerge.errors import nearest

__all__ = ["check_options"]

SEEDS = ("fewshot_random_seed", "random_seed", "numpy_random_seed", "torch_random_seed")
PASSED = (*SEEDS, "metadata")

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
    "model_args": "'evaluation' has dtype, max_length and batch_size",
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
        if name == "metadata" and not isinstance(value, Mapping):
            raise ValueError(f"'metadata' is a mapping, got {value!r}")
