"""A checkpoint on disk: what it holds, and its tensors one at a time."""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from evomerge.checkpoints.header import TensorInfo, read_header
from evomerge.checkpoints.layers import LayerStack, find_layers, is_embedding, is_head_weight
from evomerge.checkpoints.mapping import fetch, map_tensor
from evomerge.checkpoints.tokenizer import read_json, read_vocab
from evomerge.errors import CheckpointError, nearest

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "content_digest", "read_data"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SAMPLE = 1 << 13
_WHOLE = 1 << 16
_PACKED = ("uint8", "int8", "int16", "int32", "float8_e4m3fn", "float8_e5m2")
_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.gguf")


class Checkpoint:
    """A model in Hugging Face format, opened by reading its headers only.

    Attributes:
        name: As the user calls it: a path or a hub name.
        path: The folder.
        config: `config.json`.
        generation_config: `generation_config.json`, or None.
        tensors: What the checkpoint holds, in the order of the files.
    """

    def __init__(self, name: str, path: Path) -> None:
        """Open the folder.

        Raises:
            CheckpointError: if a file is missing, damaged or cut short.
        """
        self.name = name
        self.path = path
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path}: no checkpoint: config.json is missing")
        self.config: Mapping[str, Any] = MappingProxyType(read_json(path / "config.json"))
        generation = path / "generation_config.json"
        self.generation_config = read_json(generation) if generation.is_file() else None
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(_read_headers(path))

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r}, {len(self.tensors)} tensors)"

    def __reduce__(self) -> tuple[type["Checkpoint"], tuple[str, Path]]:
        return Checkpoint, (self.name, self.path)

    @property
    def num_parameters(self) -> int:
        """Number of elements of all tensors as stored."""
        return sum(info.numel for info in self.tensors.values())

    @property
    def num_bytes(self) -> int:
        """Size of all tensors as stored."""
        return sum(info.num_bytes for info in self.tensors.values())

    @cached_property
    def dtype(self) -> str:
        """The type of most elements."""
        totals: dict[str, int] = {}
        for info in self.tensors.values():
            totals[info.dtype] = totals.get(info.dtype, 0) + info.numel
        return max(totals, key=lambda dtype: totals[dtype])

    @cached_property
    def layers(self) -> LayerStack:
        """The stack of layers, found from names and config."""
        sizes = ((name, info.numel) for name, info in self.tensors.items())
        return find_layers(sizes, self.config)

    @cached_property
    def layers_in_config(self) -> bool:
        """Whether the layers are those that the config counts; parts of a model may have others."""
        return True

    @cached_property
    def tied(self) -> bool:
        """Whether the output head is the embedding, by config or because there is no head.

        Where the config says so and the files have a head beside the embedding, it counts if the
        two differ, as transformers has it.
        """
        for part in (self.config, *(v for v in self.config.values() if isinstance(v, Mapping))):
            if "tie_word_embeddings" in part:
                return bool(part["tie_word_embeddings"]) and not self._has_other_head()
        return not any(is_head_weight(name) for name in self.tensors)

    def is_tied_head(self, name: str) -> bool:
        """Tell whether a name is that of a head which is the embedding."""
        return self.tied and self.is_output_head(name)

    def is_output_head(self, name: str) -> bool:
        """Tell whether a name is that of the language model's head.

        A head of another shape than the embedding's belongs to another tower.
        """
        own, embedding = self.tensors.get(name), self.token_embedding
        fits = own is None or embedding is None or own.shape == self.tensors[embedding].shape
        return is_head_weight(name) and fits

    def _has_other_head(self) -> bool:
        """Tell whether the files have a head that could be the embedding and differs from it."""
        embedding = self.token_embedding
        if embedding is None:
            return False
        heads = [name for name in self.tensors if self.is_output_head(name)]
        return not all(
            self.tensors[head].dtype == self.tensors[embedding].dtype
            and same_data(self.mapped(head), self.mapped(embedding))
            for head in heads
        )

    def require_plain(self) -> None:
        """Check that the weights are numbers that can be merged.

        Raises:
            CheckpointError: if they are quantized.
        """
        found = self.config.get("quantization_config")
        packed = any(info.dtype in _PACKED for info in self.tensors.values())
        if isinstance(found, Mapping) and packed:
            kind = found.get("quant_method") or "see quantization_config in config.json"
            raise CheckpointError(
                f"{self.name}: its weights are quantized ({kind}), and packed numbers cannot be "
                "merged; name the model that it was made from, or dequantize it with transformers "
                "and save that"
            )

    @cached_property
    def token_embedding(self) -> str | None:
        """Name of the tensor with a row for each token, or None."""
        # A model with several towers has the number in the config of its language model.
        parts = (self.config, *(v for v in self.config.values() if isinstance(v, Mapping)))
        rows = {part["vocab_size"] for part in parts if "vocab_size" in part}
        found = [
            name
            for name, info in self.tensors.items()
            if len(info.shape) == 2 and is_embedding(name) and self.layers.split(name) is None
        ]
        return min(found, key=lambda name: self.tensors[name].shape[0] not in rows, default=None)

    @cached_property
    def num_token_rows(self) -> int | None:
        """Number of rows of the token embedding, or None if there is none."""
        name = self.token_embedding
        return None if name is None else self.tensors[name].shape[0]

    def read(self, name: str) -> "torch.Tensor":
        """Read one tensor into new memory.

        Raises:
            CheckpointError: if there is no such tensor or the file became shorter.
        """
        return read_data(name, self._info(name))

    def mapped(self, name: str) -> "torch.Tensor":
        """Return one tensor in the memory of its file where that can be, else read it.

        For tensors that are given up soon; see `evomerge.checkpoints.mapping`.

        Raises:
            CheckpointError: if there is no such tensor or the file became shorter.
        """
        info = self._info(name)
        found = map_tensor(info)
        return read_data(name, info) if found is None else found

    def fetch(self, name: str) -> None:
        """Bring one tensor from the disk into the system's file cache, and wait for it.

        Raises:
            CheckpointError: if there is no such tensor or the file became shorter.
        """
        fetch(self._info(name))

    def _info(self, name: str) -> TensorInfo:
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(
                f"{self.name} has no tensor {name!r}; {nearest(name, self.tensors)}"
            )
        return info

    def tokenizer_vocab(self) -> dict[str, int] | None:
        """Return the tokens and their ids, or None if no file tells them."""
        return read_vocab(self.path)

    def fingerprint(self) -> str:
        """Return a hash of tensors and content that a moved or resharded copy keeps.

        Tensors up to 64 KiB are hashed whole, larger ones by two samples.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return content_digest(self.tensors)


def same_data(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    """Tell whether two tensors of one type and shape hold the same bytes."""
    import torch

    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def read_data(name: str, info: TensorInfo) -> "torch.Tensor":
    """Read a tensor into new memory.

    Raises:
        CheckpointError: if the file became shorter.
    """
    import torch

    data = torch.empty(info.num_bytes, dtype=torch.uint8)
    with info.file.open("rb", buffering=0) as stream:
        stream.seek(info.offset)
        view = data.numpy().data
        done = 0
        while done < info.num_bytes:
            count = stream.readinto(view[done:])
            if not count:
                raise CheckpointError(f"{info.file}: cut short while reading {name!r}")
            done += count
    tensor: torch.Tensor = data.view(getattr(torch, info.dtype)).reshape(info.shape)
    return tensor


def content_digest(tensors: Mapping[str, TensorInfo]) -> str:
    """Return a hash of names, types, shapes and data (large tensors by two samples)."""
    digest = hashlib.sha256()
    with ExitStack() as files:
        streams: dict[Path, BinaryIO] = {}
        for name, info in sorted(tensors.items()):
            digest.update(f"{name}\0{info.dtype}\0{info.shape}\0".encode())
            if info.file not in streams:
                streams[info.file] = files.enter_context(info.file.open("rb"))
            for start, length in _samples(info.num_bytes):
                streams[info.file].seek(info.offset + start)
                digest.update(streams[info.file].read(length))
    return digest.hexdigest()


def _samples(num_bytes: int) -> tuple[tuple[int, int], ...]:
    if num_bytes <= _WHOLE:
        return ((0, num_bytes),)
    return ((0, _SAMPLE), (num_bytes // 2, _SAMPLE))


def _read_headers(path: Path) -> dict[str, TensorInfo]:
    index = path / _INDEX
    if index.is_file():
        return _read_index(path, index)
    files = [path / _SINGLE] if (path / _SINGLE).is_file() else sorted(path.glob("*.safetensors"))
    if not files:
        others = [file.name for kind in _OTHER_FORMATS for file in sorted(path.glob(kind))]
        hint = (
            f" (there is {others[0]}: load the model with transformers and save it, which writes "
            "safetensors)"
        )
        raise CheckpointError(
            f"{path}: no checkpoint: no .safetensors file{hint if others else ''}"
        )
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for name, info in read_header(file).items():
            if name in tensors:
                raise CheckpointError(
                    f"{path}: tensor {name!r} is in {tensors[name].file.name} and in {file.name}; "
                    f"keep one of them, or add {_INDEX}"
                )
            tensors[name] = info
    return tensors


def _read_index(path: Path, index: Path) -> dict[str, TensorInfo]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: the key 'weight_map' is missing or empty")
    tensors: dict[str, TensorInfo] = {}
    for name in dict.fromkeys(weight_map.values()):
        file = path / name
        if file.parent != path or not file.is_file():
            raise CheckpointError(f"{index}: names the shard {name!r}, which is missing in {path}")
        tensors.update(
            (key, info) for key, info in read_header(file).items() if weight_map.get(key) == name
        )
    lost = [key for key in weight_map if key not in tensors]
    if lost:
        raise CheckpointError(
            f"{index}: {len(lost)} tensors are not in the shards that it names, the first is "
            f"{lost[0]!r} in {weight_map[lost[0]]}; copy or download the checkpoint again"
        )
    return tensors
