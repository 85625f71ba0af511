"""Which tensors the merged model has and where each comes from: all that needs no numbers.

A search plans thousands of candidates that differ in numbers only, so layouts are cached by their
structure and checkpoints.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from evomerge.checkpoints import Checkpoint, is_embedding, is_head, is_head_weight
from evomerge.engine.config import counted_config, merged_config
from evomerge.engine.rows import RowMap, row_shape, with_rows
from evomerge.engine.vocabulary import Vocabulary, is_token_tensor
from evomerge.errors import CheckpointError, RecipeError

__all__ = ["Layout", "LayoutTensor", "SliceKey", "find_layout"]

SliceKey = tuple[tuple[str, tuple[int, int] | None], ...]
"""The inputs of a slice: model names and layer ranges, in the method's order."""

_MAX_LINES = 20
_BUFFERS = re.compile(r"(inv_freq|masked_bias|position_ids)$")
_CAUSAL_MASK = re.compile(r"(attn|attention)\.bias$")


@dataclass(frozen=True, slots=True)
class LayoutTensor:
    """One tensor of the merged model.

    Attributes:
        name: Its name.
        slice: Index of the slice whose sources and parameters it gets.
        position: Place in the slice from 0 to 1, or None outside the layers.
        inputs: Its names in the slice's inputs.
        dtypes: Its types there.
        shape: Its sizes, the same everywhere once `rows` are applied.
        rows: How the rows of each input are rearranged; None if all stay as they are.
    """

    name: str
    slice: int
    position: float | None
    inputs: tuple[str, ...]
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    rows: tuple[RowMap | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The structure of a merged model.

    Attributes:
        tensors: In the order in which they are written.
        config: `config.json`, still without the type.
        has_head: Whether one of the tensors is an output head.
    """

    tensors: tuple[LayoutTensor, ...]
    config: Mapping[str, Any]
    has_head: bool


@dataclass(frozen=True, slots=True)
class _Input:
    model: str
    checkpoint: Checkpoint
    start: int
    stop: int


@dataclass(slots=True)
class _Problems:
    """Tensors on which the models disagree, collected for one message."""

    lines: list[str] = field(default_factory=list)

    def add(self, name: str, found: Mapping[str, tuple[int, ...] | None]) -> None:
        shown = ", ".join(
            f"{model} {'has none' if shape is None else list(shape)}"
            for model, shape in found.items()
        )
        self.lines.append(f"  {name}: {shown}")

    def check(self) -> None:
        if not self.lines:
            return
        lines = list(dict.fromkeys(self.lines))
        more = len(lines) - _MAX_LINES
        tail = [f"  … and {more} more"] if more > 0 else []
        names = [line.split(":")[0].strip() for line in lines if "has none" not in line]
        embedding = any(is_embedding(name) or is_head(name) for name in names)
        hint = (
            " For models with different tokens or numbers of embedding rows, say which tokens the "
            "merged model has, with tokenizer: {source: union}, {source: base} or {source: MODEL}."
            if embedding
            else ""
        )
        raise CheckpointError(
            "the models to merge must have the same tensors with the same shapes; these "
            f"{len(lines)} differ.{hint}\n" + "\n".join([*lines[:_MAX_LINES], *tail])
        )


@lru_cache(maxsize=64)
def find_layout(
    slices: tuple[SliceKey, ...],
    donor: str,
    checkpoints: tuple[tuple[str, Checkpoint], ...],
    vocabulary: Vocabulary | None = None,
    bases: tuple[str | None, ...] = (),
) -> Layout:
    """Lay out the merged model.

    Args:
        slices: The inputs of each slice.
        donor: Name of the model whose config is taken.
        checkpoints: Names and checkpoints.
        vocabulary: The tokens of the merged model; None to take embedding rows as they stand.
        bases: The base model of each slice, to whose embedding rows the others fall back.

    Raises:
        RecipeError: if a layer range leaves its model.
        CheckpointError: if the models disagree; one message lists all tensors that do.
    """
    named = dict(checkpoints)
    inputs = [tuple(_input(model, named[model], span) for model, span in part) for part in slices]
    for part in inputs:
        _check_lengths(part)
    lengths = [part[0].stop - part[0].start for part in inputs]
    words = _Words(vocabulary, named, bases)
    builder = _Builder(named[donor], inputs, sum(lengths), words)
    before = [builder.outside(name, 0, inputs[0]) for name in builder.names_outside(after=False)]
    inside: list[LayoutTensor] = []
    first = 0
    for i, part in enumerate(inputs):
        inside.extend(builder.layers(i, part, first))
        first += lengths[i]
    last = len(inputs) - 1
    after = [builder.outside(name, last, inputs[-1]) for name in builder.names_outside(after=True)]
    tensors = tuple(t for t in (*before, *inside, *after) if t is not None)
    builder.problems.check()
    rows = {tensor.shape for tensor in tensors if tensor.name == named[donor].token_embedding}
    heads = any(
        is_head_weight(tensor.name) and (not rows or tensor.shape in rows) for tensor in tensors
    )
    origins = [
        (
            counted_config(_layer_donor(part, named[donor]).checkpoint),
            _layer_donor(part, named[donor]).start + k,
        )
        for part, length in zip(inputs, lengths, strict=True)
        for k in range(length)
    ]
    tied = named[donor].tied and not heads
    config = merged_config(named[donor], origins, tied=tied)
    if vocabulary is not None:
        config = vocabulary.follow(config, donor)
    return Layout(tensors, config, heads)


def _input(model: str, checkpoint: Checkpoint, span: tuple[int, int] | None) -> _Input:
    count = checkpoint.layers.count
    start, stop = span or (0, count)
    if stop > count:
        raise RecipeError(
            f"layer_range [{start}, {stop}] of {checkpoint.name}: the model has {count} layers"
        )
    return _Input(model, checkpoint, start, stop)


def _check_lengths(part: tuple[_Input, ...]) -> None:
    if len({source.stop - source.start for source in part}) > 1:
        shown = ", ".join(f"{s.checkpoint.name} {s.stop - s.start}" for s in part)
        raise CheckpointError(
            f"models that are merged with each other must have the same number of layers: {shown}; "
            "choose layers with slices and layer_range"
        )


def _layer_donor(part: tuple[_Input, ...], donor: Checkpoint) -> _Input:
    return next((source for source in part if source.checkpoint is donor), part[0])


@dataclass(frozen=True, slots=True)
class _Words:
    """The rearrangement of embeddings and heads."""

    vocabulary: Vocabulary | None
    checkpoints: Mapping[str, Checkpoint]
    bases: tuple[str | None, ...]

    def rearranges(self, names: tuple[str, ...], part: tuple[_Input, ...]) -> bool:
        """Tell whether a tensor of the slice's inputs has a row for each token."""
        return self.vocabulary is not None and all(
            is_token_tensor(name, source.checkpoint)
            for name, source in zip(names, part, strict=True)
        )

    def apply(self, tensor: LayoutTensor, part: tuple[_Input, ...]) -> LayoutTensor:
        """Return the tensor with one row for each token of the merged model."""
        vocabulary = self.vocabulary
        assert vocabulary is not None  # noqa: S101 - `rearranges` came first
        models = [source.model for source in part]
        named = dict.fromkeys(s.source.model for _, s in vocabulary.rules if s.source.model)
        rule_tensors = {m: _token_tensor(tensor.name, self.checkpoints[m]) for m in named}
        found = [(m, self.checkpoints[m], n) for m, n in zip(models, tensor.inputs, strict=True)]
        found += [(m, self.checkpoints[m], n) for m, n in rule_tensors.items() if m not in models]
        shapes = {m: opened.tensors[n].shape for m, opened, n in found}
        rest = row_shape(tensor.shape)
        other = next((m for m, shape in shapes.items() if row_shape(shape) != rest), None)
        if other is not None:
            raise CheckpointError(
                f"{tensor.name}: a row has the shape {list(rest)}, and "
                f"{list(row_shape(shapes[other]))} in {other}, which tokenizer.tokens names; take "
                "rows from models of one width"
            )
        rows = {m: opened.num_token_rows or 0 for m, opened, _ in found}
        base = self.bases[tensor.slice] if self.bases else None
        maps = vocabulary.row_maps(
            tuple(zip(models, tensor.inputs, strict=True)), base, rule_tensors, rows
        )
        return replace(tensor, shape=with_rows(tensor.shape, vocabulary.size), rows=maps)


class _Builder:
    """Builds the tensors of a layout and collects what does not fit."""

    def __init__(
        self, donor: Checkpoint, inputs: list[tuple[_Input, ...]], count: int, words: _Words
    ) -> None:
        self._donor = donor
        self._words = words
        self._inputs = inputs
        self._shift = count - donor.layers.count
        self._reference = _shapes_inside(donor)
        self.problems = _Problems()

    def names_outside(self, *, after: bool) -> list[str]:
        """Return the names outside the layers that stand before or after them."""
        part = self._inputs[-1 if after else 0]
        names: dict[str, None] = {}
        for source in part:
            for name in source.checkpoint.tensors:
                split = source.checkpoint.layers.split(name)
                outside = split is None or split[0] >= source.checkpoint.layers.count
                if outside and _is_after(name, source.checkpoint) == after:
                    names[name] = None
        return list(names)

    def outside(self, name: str, index: int, part: tuple[_Input, ...]) -> LayoutTensor | None:
        """Lay out a tensor outside the layers; None if the merged model does without it."""
        if all(source.checkpoint.is_tied_head(name) for source in part):
            return None
        found = tuple(_tied_name(name, source.checkpoint) for source in part)
        missing = any(n not in s.checkpoint.tensors for n, s in zip(found, part, strict=True))
        if missing and _is_buffer(name, part):
            return None
        split = self._donor.layers.split(name)
        merged = self._donor.layers.join(split[0] + self._shift, split[1]) if split else name
        loose = self._words.rearranges(found, part)
        tensor = self._tensor(merged, index, None, found, part, loose=loose)
        known = self._donor.tensors.get(name)
        fits = row_shape if loose else tuple
        if tensor is not None and known is not None and fits(known.shape) != fits(tensor.shape):
            self.problems.add(
                name, {part[0].checkpoint.name: tensor.shape, self._donor.name: known.shape}
            )
        return self._words.apply(tensor, part) if tensor is not None and loose else tensor

    def layers(self, index: int, part: tuple[_Input, ...], first: int) -> Iterator[LayoutTensor]:
        """Lay out the layers of a slice, numbered from `first`."""
        count = part[0].stop - part[0].start
        insides = [_names_inside(source.checkpoint) for source in part]
        for k in range(count):
            position = k / (count - 1) if count > 1 else 1.0
            rests: dict[str, None] = {}
            for source, inside in zip(part, insides, strict=True):
                rests.update(dict.fromkeys(inside.get(source.start + k, ())))
            for rest in rests:
                names = tuple(s.checkpoint.layers.join(s.start + k, rest) for s in part)
                missing = any(
                    n not in s.checkpoint.tensors for n, s in zip(names, part, strict=True)
                )
                if missing and _is_buffer(rest, part, names):
                    continue
                merged = self._donor.layers.join(first + k, rest)
                tensor = self._tensor(merged, index, position, names, part)
                if tensor is None:
                    continue
                known = self._reference.get(rest)
                if known and tensor.shape not in known:
                    example = min(known)
                    self.problems.add(
                        merged, {part[0].checkpoint.name: tensor.shape, self._donor.name: example}
                    )
                yield tensor

    def _tensor(
        self,
        merged: str,
        index: int,
        position: float | None,
        names: tuple[str, ...],
        part: tuple[_Input, ...],
        *,
        loose: bool = False,
    ) -> LayoutTensor | None:
        """Lay out a tensor on which the inputs agree, in all sizes but the first if `loose`."""
        infos = [s.checkpoint.tensors.get(n) for n, s in zip(names, part, strict=True)]
        fits = row_shape if loose else tuple
        if any(info is None for info in infos) or len({fits(i.shape) for i in infos if i}) > 1:
            shapes = (info.shape if info else None for info in infos)
            models = (source.checkpoint.name for source in part)
            self.problems.add(merged, dict(zip(models, shapes, strict=True)))
            return None
        known = [info for info in infos if info is not None]
        dtypes = tuple(info.dtype for info in known)
        return LayoutTensor(merged, index, position, names, dtypes, known[0].shape)


def _is_after(name: str, checkpoint: Checkpoint) -> bool:
    """Tell whether a tensor stands after the layers: the head, and the norm beside the stack.

    Embeddings and other towers stand before them.
    """
    if is_head(name):
        return True
    if is_embedding(name):
        return False
    parent, _, _ = checkpoint.layers.prefix.rpartition(".")
    beside = not parent or name.startswith(f"{parent}.")
    return beside and name.count(".") - parent.count(".") <= 2


def _token_tensor(name: str, checkpoint: Checkpoint) -> str:
    """Return the embedding or head of a model that is not merged itself."""
    own = _tied_name(name, checkpoint)
    if not is_token_tensor(own, checkpoint):
        raise CheckpointError(
            f"{checkpoint.name} has no tensor {name!r} with {checkpoint.num_token_rows} rows, and "
            "tokenizer.tokens wants a row of it; take rows from models of one architecture"
        )
    return own


def _tied_name(name: str, checkpoint: Checkpoint) -> str:
    """Return the tensor that serves as `name`: a tied head is the embedding."""
    if checkpoint.is_tied_head(name) and checkpoint.token_embedding is not None:
        return checkpoint.token_embedding
    return name


def _is_buffer(name: str, part: tuple[_Input, ...], names: tuple[str, ...] | None = None) -> bool:
    """Tell whether a tensor is a buffer that older files carry and newer ones do without."""
    if _BUFFERS.search(name):
        return True
    if not _CAUSAL_MASK.search(name):
        return False
    infos = (
        source.checkpoint.tensors.get(own)
        for own, source in zip(names or (name,) * len(part), part, strict=True)
    )
    return all(info is None or len(info.shape) == 4 for info in infos)


@lru_cache(maxsize=64)
def _names_inside(checkpoint: Checkpoint) -> dict[int, tuple[str, ...]]:
    names: dict[int, list[str]] = {}
    for name in checkpoint.tensors:
        split = checkpoint.layers.split(name)
        if split is not None:
            names.setdefault(split[0], []).append(split[1])
    return {index: tuple(rests) for index, rests in names.items()}


def _shapes_inside(checkpoint: Checkpoint) -> dict[str, set[tuple[int, ...]]]:
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for name, info in checkpoint.tensors.items():
        split = checkpoint.layers.split(name)
        if split is not None:
            shapes.setdefault(split[1], set()).add(info.shape)
    return shapes
