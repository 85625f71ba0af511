"""Which candidates can share a live model."""

import hashlib
import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.engine import MergePlan
from evomerge.engine.assets import TokenizerPlan
from evomerge.evaluation.dtypes import compute_dtype

__all__ = ["Structures"]

_WITHOUT_MEANING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
"""Keys that say nothing about a live model, whose type is decided apart from them."""

_REMEMBERED = 32


class Structures:
    """Compares the configs, shapes and tokenizers of plans by their content.

    Parents alone come with their own folders, whose tokenizers are the same in most searches.

    Args:
        dtype: ``evaluation.dtype``.
        device: Where live models are.
    """

    def __init__(self, dtype: str, device: str) -> None:
        self._dtype = dtype
        self._device = device
        self._known: deque[tuple[TokenizerPlan, str]] = deque(maxlen=_REMEMBERED)

    def of(self, plan: MergePlan) -> object:
        """Return what is equal for plans that a live model can take in turn."""
        shapes = tuple((tensor.name, tensor.shape) for tensor in plan.outputs)
        generation = plan.generation_config
        return (
            compute_dtype(self._dtype, plan.config, self._device.partition(":")[0]),
            _meaning(plan.config),
            None if generation is None else _meaning(generation),
            self._tokenizer(plan.tokenizer),
            shapes,
        )

    def _tokenizer(self, tokenizer: TokenizerPlan) -> str:
        for known, digest in self._known:
            if known is tokenizer:
                return digest
        digest = _digest(tokenizer)
        self._known.append((tokenizer, digest))
        return digest


def _meaning(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _meaning(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _WITHOUT_MEANING
    }


def _digest(tokenizer: TokenizerPlan) -> str:
    """Return a hash of the names and contents of a tokenizer's files."""
    contents: dict[str, bytes] = {}
    for file in tokenizer.files:
        inside = sorted(file.rglob("*")) if file.is_dir() else [file]
        contents |= {_name(path, file): path.read_bytes() for path in inside if path.is_file()}
    for name, content in tokenizer.documents.items():
        text = content if isinstance(content, str) else json.dumps(content)
        contents[name] = text.encode()
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(f"{name}\0{len(contents[name])}\0".encode())
        digest.update(contents[name])
    return digest.hexdigest()


def _name(path: Path, top: Path) -> str:
    return str(path.relative_to(top.parent))
