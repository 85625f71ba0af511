"""A model with a LoRA adapter as a checkpoint: what merging the adapter and saving would give.

Nothing is computed before a tensor is read, and nothing is kept.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints.checkpoint import Checkpoint, content_digest, read_data
from evomerge.checkpoints.expert_lora import apply_experts, find_products
from evomerge.checkpoints.header import DTYPE_SIZES, TensorInfo
from evomerge.checkpoints.layers import is_embedding, is_head, is_head_weight
from evomerge.checkpoints.lora import Adapter, Change, LowRank, apply_low_rank
from evomerge.checkpoints.tokenizer import tokenizer_files
from evomerge.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = ["AdaptedCheckpoint"]

_FLOATS = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
_NUMBER = re.compile(r"(?:^|\.)\d+(?:\.|$)")
_HEADS = {"gpt_neox": "embed_out.weight"}
_MAX_NAMES = 10
_LAST = 4
"""Tensors of an adapter that are kept: A and B of two parameters."""


class AdaptedCheckpoint(Checkpoint):
    """A checkpoint whose tensors are those of a base, changed by a LoRA adapter.

    A change is computed in higher precision and rounded once, to the base tensor's type. Where
    the adapter changes only one of a tied embedding and head, the model has a head of its own.

    Attributes:
        base: The checkpoint below.
        adapter: What changes it.
        path: The folder whose tokenizer belongs to the model: the adapter's if it has one.
    """

    def __init__(self, name: str, base: Checkpoint, adapter: Adapter) -> None:
        """Combine the two.

        Args:
            name: As the user calls the pair.
            base: The model.
            adapter: The adapter.

        Raises:
            CheckpointError: if the adapter does not fit the model; all its tensors in one message.
        """
        self.name = name
        self.base = base
        self.adapter = adapter
        self.path = adapter.path if tokenizer_files(adapter.path) else base.path
        self.generation_config = base.generation_config
        self._changes = _find_targets(base, adapter)
        self._sources: dict[str, str] = {}
        self._last: dict[str, torch.Tensor] = {}
        self._add_head()
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(self._infos())
        self.config: Mapping[str, Any] = MappingProxyType(self._config())
        self._check_shapes()

    def __repr__(self) -> str:
        return f"AdaptedCheckpoint({self.name!r}, {len(self._changes)} tensors changed)"

    def __reduce__(self) -> tuple[Any, ...]:
        return AdaptedCheckpoint, (self.name, self.base, self.adapter)

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the tensors that the adapter changes."""
        return tuple(self._changes)

    def read(self, name: str) -> "torch.Tensor":
        """Read one tensor and change it.

        Raises:
            CheckpointError: if there is no such tensor or a file became shorter.
        """
        change = self._changes.get(name)
        source = self._sources.get(name, name)
        if change is None:
            return self.base.read(source)
        info = self.tensors[name]
        if change.replaced_by is not None:
            import torch

            weight = self._stored(change.replaced_by).to(getattr(torch, info.dtype))
        else:
            weight = self.base.read(source)
        if change.experts is not None:
            apply_experts(weight, change.experts, self._kept)
        if change.low_rank is not None:
            flipped = self._transposed(change.low_rank, info.shape)
            apply_low_rank(weight, change.low_rank, self._stored, transposed=flipped)
        if change.added is not None:
            stored, factor = change.added
            weight.copy_(weight.double() + factor * self._stored(stored).double())
        if change.rows is not None:
            stored, rows = change.rows
            weight[list(rows)] = self._stored(stored).to(weight.dtype)
        return weight

    def mapped(self, name: str) -> "torch.Tensor":
        """Return one tensor, in the memory of its file if the adapter leaves it as it is.

        Raises:
            CheckpointError: if there is no such tensor or a file became shorter.
        """
        if name in self._changes:
            return self.read(name)
        return self.base.mapped(self._sources.get(name, name))

    def fetch(self, name: str) -> None:
        """Bring the base's tensor from the disk into the system's file cache, and wait for it.

        Raises:
            CheckpointError: if there is no such tensor or a file became shorter.
        """
        change = self._changes.get(name)
        if change is None or change.replaced_by is None:
            self.base.fetch(self._sources.get(name, name))

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for part in (self.base.fingerprint(), content_digest(self.adapter.tensors)):
            digest.update(part.encode())
        digest.update(self.adapter.identity().encode())
        return digest.hexdigest()

    def _stored(self, name: str) -> "torch.Tensor":
        return read_data(name, self.adapter.tensors[name])

    def _kept(self, name: str) -> "torch.Tensor":
        """Read one of the adapter's tensors, which the next experts need too."""
        if name not in self._last:
            while len(self._last) >= _LAST:
                del self._last[next(iter(self._last))]
            self._last[name] = self._stored(name)
        return self._last[name]

    def _add_head(self) -> None:
        """Give a tied model a head of its own if the adapter makes it differ from the embedding."""
        embedding = self.base.token_embedding
        if embedding is None or not self.base.tied:
            return
        head = next((name for name in self._changes if is_head_weight(name)), None)
        change = self._changes.get(embedding)
        if head is None:
            shared = self.adapter.stays_tied or change is None or change.rows is not None
            if shared or (change and self._resizes(change, embedding)):
                return
            model_type = str(self.base.config.get("model_type"))
            head = _HEADS.get(model_type, "lm_head.weight")
        self._sources[head] = embedding

    def _resizes(self, change: Change, name: str) -> bool:
        stored = change.replaced_by
        return stored is not None and (
            self.adapter.tensors[stored].shape != self.base.tensors[name].shape
        )

    def _infos(self) -> dict[str, TensorInfo]:
        infos = dict(self.base.tensors)
        for name, source in self._sources.items():
            infos[name] = infos[source]
        for name, change in self._changes.items():
            if change.replaced_by is not None:
                info = infos[name]
                shape = self.adapter.tensors[change.replaced_by].shape
                size = DTYPE_SIZES[info.dtype]
                for length in shape:
                    size *= length
                infos[name] = replace(info, shape=shape, num_bytes=size)
        return infos

    def _config(self) -> dict[str, Any]:
        config = dict(self.base.config)
        if self._sources:
            for key, part in config.items():
                if isinstance(part, Mapping) and "tie_word_embeddings" in part:
                    config[key] = {**part, "tie_word_embeddings": False}
            config["tie_word_embeddings"] = False
        embedding = self.base.token_embedding
        if embedding is None or self.tensors[embedding].shape == self.base.tensors[embedding].shape:
            return config
        rows = self.tensors[embedding].shape[0]
        for key, part in config.items():
            if isinstance(part, Mapping) and "text" in key and "vocab_size" in part:
                config[key] = {**part, "vocab_size": rows}
        if "vocab_size" in config:
            config["vocab_size"] = rows
        return config

    def _transposed(self, change: LowRank, shape: tuple[int, ...]) -> bool:
        """Tell whether a weight is stored with its inputs first (GPT-2's `Conv1D`, embeddings).

        The flag in the adapter's config is that of the module which peft wrapped last, so the
        shapes decide where they can.
        """
        if change.embedding:
            return True
        if len(shape) != 2:
            return False
        inputs, outputs = self.adapter.tensors[change.a].shape[1], self._outputs(change)
        if inputs != outputs:
            return shape == (inputs, outputs)
        return self._inputs_first

    @cached_property
    def _inputs_first(self) -> bool:
        pairs = [
            (change.low_rank, self.tensors[name].shape)
            for name, change in self._changes.items()
            if change.low_rank is not None and not change.low_rank.embedding and not is_head(name)
        ]
        return self.adapter.fan_in_fan_out or any(
            len(shape) == 2
            and shape[0] != shape[1]
            and shape == (self.adapter.tensors[pair.a].shape[1], self._outputs(pair))
            for pair, shape in pairs
        )

    def _outputs(self, change: LowRank) -> int:
        return self.adapter.tensors[change.b].shape[0]

    def _check_shapes(self) -> None:
        wrong = []
        for name, change in self._changes.items():
            info = self.tensors[name]
            if info.dtype not in _FLOATS:
                wrong.append(f"{name}: of type {info.dtype}, a quantized model")
            elif change.low_rank is not None and not self._fits(change.low_rank, info.shape):
                a = list(self.adapter.tensors[change.low_rank.a].shape)
                b = list(self.adapter.tensors[change.low_rank.b].shape)
                wrong.append(f"{name}: {list(info.shape)}, the adapter's A is {a} and its B {b}")
            elif change.replaced_by is not None and not self._may_replace(name, info.shape):
                own = list(self.base.tensors[self._sources.get(name, name)].shape)
                wrong.append(f"{name}: {own}, the adapter's is {list(info.shape)}")
        if wrong:
            raise _misfit(self.base, self.adapter, wrong)

    def _fits(self, change: LowRank, shape: tuple[int, ...]) -> bool:
        a, b = (self.adapter.tensors[name].shape for name in (change.a, change.b))
        if len(shape) < 2 or len(a) < 2 or len(b) < 2 or b[1] != a[0]:
            return False
        inner = 1
        for length in a[1:]:
            inner *= length
        if self._transposed(change, shape):
            return shape == (inner, b[0])
        return shape[0] == b[0] and (shape[1:] == a[1:])

    def _may_replace(self, name: str, shape: tuple[int, ...]) -> bool:
        own = self.base.tensors[self._sources.get(name, name)].shape
        rows_differ = len(own) == len(shape) and own[1:] == shape[1:]
        return shape == own or (rows_differ and (is_head(name) or is_embedding(name)))


def _misfit(base: Checkpoint, adapter: Adapter, lines: list[str]) -> CheckpointError:
    more = [f"  … and {len(lines) - _MAX_NAMES} more"] if len(lines) > _MAX_NAMES else []
    of = "these tensors of the model differ from what the adapter was trained on"
    shown = "\n".join([*(f"  {line}" for line in lines[:_MAX_NAMES]), *more])
    return CheckpointError(
        f"the adapter {adapter.name} does not fit the model {base.name}; {of}:\n{shown}"
    )


def _find_targets(base: Checkpoint, adapter: Adapter) -> dict[str, Change]:
    """Return the changes by the names that the tensors have in the base."""
    found: dict[str, Change] = {}
    lost = []
    by_tail: dict[str, list[str]] | None = None
    for wanted, change in adapter.changes.items():
        name: str | None = wanted
        if wanted not in base.tensors and not (is_head_weight(wanted) and base.tied):
            if by_tail is None:
                by_tail = {}
                for own in base.tensors:
                    by_tail.setdefault(_tail(own), []).append(own)
            name = _nearest(wanted, by_tail.get(_tail(wanted), []))
        if name is None or name in found:
            lost.append(f"{wanted}: the model has no such tensor")
        else:
            found[name] = change
    products, misfits = find_products(adapter.experts, adapter.tensors, base.tensors)
    lost += misfits
    for name, product in products.items():
        found.setdefault(name, Change()).experts = product
    if lost:
        base.require_plain()
        raise _misfit(base, adapter, lost)
    return found


def _tail(name: str) -> str:
    """Return a name from its first number on, or its last two parts."""
    number = _NUMBER.search(name)
    return name[number.start() :].lstrip(".") if number else ".".join(name.split(".")[-2:])


def _nearest(wanted: str, names: list[str]) -> str | None:
    """Return the one name that means `wanted`, or None.

    A model's modules may stand in another order of parts than a checkpoint's names
    (`model.language_model.layers.0` and `language_model.model.layers.0`), or lack the first ones.
    """
    parts = wanted.split(".")

    def likeness(name: str) -> tuple[int, int]:
        own = name.split(".")
        same = 0
        while same < min(len(own), len(parts)) and own[-1 - same] == parts[-1 - same]:
            same += 1
        return same, len(set(own[:-same]) & set(parts[:-same]))

    ranked = sorted(names, key=likeness, reverse=True)
    if not ranked or (len(ranked) > 1 and likeness(ranked[0]) == likeness(ranked[1])):
        return None
    return ranked[0]
