"""Tensors in the memory of their files."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from evomerge.checkpoints import Checkpoint
from evomerge.errors import CheckpointError

TENSORS = {
    "wide": torch.randn(300, 70),
    "narrow": torch.randn(513).bfloat16(),
    "scalar": torch.tensor(2.5, dtype=torch.float16),
    "empty": torch.zeros(0, 3),
    "flags": torch.tensor([True, False, True]),
    "eight": torch.randn(9).to(torch.float8_e4m3fn),
    "numbers": torch.arange(5),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    (tmp_path / "config.json").write_text("{}")
    save_file(TENSORS, tmp_path / "model.safetensors")
    return Checkpoint("models/m", tmp_path)


@pytest.mark.parametrize("name", TENSORS)
def test_a_mapped_tensor_equals_the_read_one(checkpoint: Checkpoint, name: str) -> None:
    checkpoint.fetch(name)
    found = checkpoint.mapped(name)
    assert found.dtype == TENSORS[name].dtype
    assert torch.equal(found.float(), checkpoint.read(name).float())
    assert torch.equal(found.float(), TENSORS[name].float())


def test_it_is_the_file_and_writing_to_it_is_not(checkpoint: Checkpoint) -> None:
    file = checkpoint.path / "model.safetensors"
    before = file.read_bytes()
    found = checkpoint.mapped("wide")
    found.zero_()
    assert file.read_bytes() == before
    assert torch.equal(checkpoint.mapped("wide"), TENSORS["wide"])
    with file.open("r+b") as stream:
        stream.seek(checkpoint.tensors["wide"].offset)
        stream.write(struct.pack("<f", 7.0))
    # A page that nobody wrote to shows the file.
    assert checkpoint.mapped("wide")[0, 0] == 7.0


def test_a_place_that_does_not_suit_the_type_is_read(tmp_path: Path) -> None:
    entries = {"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}
    header = json.dumps(entries).encode()
    header += b" " * (-(8 + len(header)) % 8 + 1)
    values = struct.pack("<3f", 1.0, 2.0, 3.0)
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + values)
    checkpoint = Checkpoint("m", tmp_path)
    assert checkpoint.tensors["x"].offset % 4
    assert checkpoint.mapped("x").tolist() == [1.0, 2.0, 3.0]


def test_an_unknown_name_and_a_file_cut_short(checkpoint: Checkpoint) -> None:
    for action in (checkpoint.mapped, checkpoint.fetch):
        with pytest.raises(CheckpointError, match="models/m has no tensor 'wid'; did you mean"):
            action("wid")
    file = checkpoint.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:4096])
    for action in (checkpoint.mapped, checkpoint.fetch):
        with pytest.raises(CheckpointError, match=r"model.safetensors: "):
            action("wide")
    file.unlink()
    for action in (checkpoint.mapped, checkpoint.fetch):
        with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be read: .*No such"):
            action("wide")
