"""The header of a safetensors file: names, types, shapes and places, without the data.

The format: 8 bytes of little-endian length, a JSON object of that length, then the data; the
offsets in the object count from the end of the object. (https://github.com/huggingface/safetensors)
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError

__all__ = ["DTYPE_CODES", "DTYPE_SIZES", "TensorInfo", "encode_header", "read_header"]

DTYPE_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""The names of types here (torch's) and in the file."""

DTYPE_SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Bytes of one element."""

_DTYPE_NAMES = {code: name for name, code in DTYPE_CODES.items()}
_MAX_HEADER = 100_000_000
_LFS_POINTER = b"version "


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a checkpoint, not loaded.

    Attributes:
        dtype: Name of the type as torch spells it (`bfloat16`).
        shape: Its sizes.
        file: The file that holds it.
        offset: First byte in the file.
        num_bytes: Length of its data.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    num_bytes: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Read what a safetensors file holds and check that the file is as long as it says.

    Returns:
        The tensors in the order of their data.

    Raises:
        CheckpointError: if the file cannot be read, is no safetensors file, or is cut short.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            if start == _LFS_POINTER:
                raise CheckpointError(
                    f"{file}: not the file itself but a pointer of Git LFS to it; run `git lfs "
                    "pull` in its folder, or download the model again"
                )
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(size - 8, _MAX_HEADER):
                raise CheckpointError(
                    f"{file}: not a safetensors file, or cut short: {size} bytes, and the header "
                    f"should take {length}; copy or download it again"
                )
            entries = json.loads(stream.read(length))
    except OSError as exc:
        raise CheckpointError(f"{file}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise CheckpointError(f"{file}: the header is damaged: {exc}; download it again") from exc
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file}: the header is damaged; copy or download it again")
    entries.pop("__metadata__", None)
    infos = {name: _info(file, 8 + length, name, entry) for name, entry in entries.items()}
    end = max((info.offset + info.num_bytes for info in infos.values()), default=8 + length)
    if end != size:
        problem = "cut short" if end > size else "longer than its header says"
        raise CheckpointError(
            f"{file}: {problem}: {size} bytes where the header says {end}; "
            "copy or download it again"
        )
    return dict(sorted(infos.items(), key=lambda item: item[1].offset))


def _info(file: Path, start: int, name: str, entry: Any) -> TensorInfo:
    try:
        code, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
        first, last = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"{file}: damaged header at tensor {name!r}: {exc!r}") from exc
    dtype = _DTYPE_NAMES.get(code)
    if dtype is None:
        raise CheckpointError(
            f"{file}: tensor {name!r} has the type {code}, which cannot be merged; "
            f"convert it to one of {', '.join(DTYPE_CODES)}"
        )
    if last - first != math.prod(shape) * DTYPE_SIZES[dtype]:
        raise CheckpointError(
            f"{file}: tensor {name!r} has {last - first} bytes, which are not {list(shape)} of "
            f"{dtype}; copy or download it again"
        )
    return TensorInfo(dtype, shape, file, start + first, last - first)


def encode_header(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Return the start of a safetensors file for tensors (type, shape) stored in this order."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * DTYPE_SIZES[dtype]
        entries[name] = {
            "dtype": DTYPE_CODES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
