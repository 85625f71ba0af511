"""The engine options that a space may give to vLLM. Imports no vLLM."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "RESOURCES",
    "check_engine_options",
    "quantization_of",
    "without_quantization",
    "without_resources",
]

RESOURCES: Mapping[str, str] = MappingProxyType(
    {
        "gpu_memory_utilization": "how much memory the engine takes",
        "kv_cache_memory_bytes": "how much of it keys and values take",
        "cpu_offload_gb": "how much of the weights waits in host memory",
        "max_num_seqs": "how many requests are under way at once",
        "max_num_batched_tokens": "how many tokens one step takes",
        "max_parallel_loading_workers": "how many workers load weights at once",
        "disable_log_stats": "what the engine tells of itself",
    }
)
"""Options that say how memory and time are used, and what each says.

Neither the weights nor the prompts nor the arithmetic follow from them; as with ``batch_size``, a
log-likelihood may differ in its last bits where other requests are in its batch. A study goes on
when they change, and known results hold. Every other option is taken to decide scores.
"""

_OWN = {
    "model": "it is the candidate",
    "tokenizer": "it is the candidate's",
    "dtype": "set evaluation.dtype, which means the same for both backends",
    "seed": "the run has one seed, search.seed",
    "load_format": "the candidates' weights come from memory",
    "worker_cls": "evomerge extends vLLM's own worker",
    "worker_extension_cls": "evomerge's own extension merges in vLLM's workers",
    "trust_remote_code": "code that comes with a checkpoint is never run",
    "data_parallel_size": "use evomerge run --workers N, one engine each",
    "enable_lora": "adapters are merged: write model+adapter in the recipe",
}

_QUANTIZATION = ("quantization", "quantization_config")
"""Options that make of the merged weights another model."""


def check_engine_options(options: Mapping[str, Any], *, max_length: int | None) -> None:
    """Check that a space's engine options leave alone what evomerge decides.

    Args:
        options: ``evaluation.vllm``.
        max_length: ``evaluation.max_length``.

    Raises:
        ValueError: naming the option and what to do instead.
    """
    for name, value in options.items():
        if name in _OWN and value is not None:
            raise ValueError(f"{name!r} cannot be set for vLLM here: {_OWN[name]}")
    if max_length is not None and options.get("max_model_len") is not None:
        raise ValueError(
            "max_length and vllm.max_model_len are two names of one setting; give one of them"
        )


def without_resources(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine options that may decide a score."""
    return {name: value for name, value in options.items() if name not in RESOURCES}


def quantization_of(options: Mapping[str, Any]) -> str | None:
    """Return in one line how the engine quantizes the weights that it gets; None if it does not."""
    given = [options[name] for name in _QUANTIZATION if options.get(name) is not None]
    texts = [one if isinstance(one, str) else json.dumps(one, sort_keys=True) for one in given]
    return f"quantization {' '.join(texts)}" if texts else None


def without_quantization(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an engine that runs the weights as they are exported."""
    return {name: value for name, value in options.items() if name not in _QUANTIZATION}
