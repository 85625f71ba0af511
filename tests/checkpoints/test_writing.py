"""Writing checkpoints: shards, order, and nothing half-done."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from evomerge.checkpoints import TensorSpec, open_checkpoint, write_checkpoint
from evomerge.errors import CheckpointError

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.ones(5).bfloat16(),
    "c": torch.tensor(3.0, dtype=torch.float16),
    "d": torch.zeros(0, 2),
    "e": torch.tensor([[True], [False]]),
}
SPECS = [
    TensorSpec(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
    for name, tensor in TENSORS.items()
]


def write(out: Path, shard_bytes: float = 1e9) -> None:
    documents = {"config.json": {"x": 1}, "README.md": "hello"}
    with write_checkpoint(out, SPECS, shard_bytes=shard_bytes, documents=documents) as writer:
        for name, tensor in TENSORS.items():
            writer.write(name, tensor)


@pytest.mark.parametrize("shard_bytes", [1e9, 30, 1])
def test_round_trip(tmp_path: Path, shard_bytes: float) -> None:
    out = tmp_path / "out"
    write(out, shard_bytes)
    files = sorted(out.glob("*.safetensors"))
    found: dict[str, torch.Tensor] = {}
    for file in files:
        found |= load_file(file)
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
        assert torch.equal(open_checkpoint(str(out)).read(name), tensor)
    assert (len(files) == 1) == (shard_bytes == 1e9)
    assert (out / "model.safetensors.index.json").exists() == (len(files) > 1)
    assert json.loads((out / "config.json").read_text()) == {"x": 1}
    assert (out / "README.md").read_text() == "hello"
    assert list(tmp_path.iterdir()) == [out]


def test_tensors_that_are_not_contiguous(tmp_path: Path) -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    with write_checkpoint(tmp_path / "out", [TensorSpec("t", "float32", (3, 2))]) as writer:
        writer.write("t", turned)
    assert torch.equal(load_file(tmp_path / "out/model.safetensors")["t"], turned)


def test_wrong_order_type_shape_or_number_leave_nothing(tmp_path: Path) -> None:
    for name, tensor, message in (
        ("b", TENSORS["b"], "expected TensorSpec.name='a'"),
        ("a", TENSORS["a"].double(), "float64"),
        ("a", TENSORS["a"].T, r"\(3, 2\)"),
    ):
        with (
            pytest.raises(ValueError, match=message),
            write_checkpoint(tmp_path / "out", SPECS) as writer,
        ):
            writer.write(name, tensor)
    with (
        pytest.raises(ValueError, match="'b' was not written"),
        write_checkpoint(tmp_path / "out", SPECS) as writer,
    ):
        writer.write("a", TENSORS["a"])
    assert list(tmp_path.iterdir()) == []


def test_a_goal_filled_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write_while_another_does() -> None:
        with write_checkpoint(out, SPECS[:1]) as writer:
            writer.write("a", TENSORS["a"])
            out.mkdir()
            (out / "other").write_text("x")

    with pytest.raises(CheckpointError, match="not empty"):
        write_while_another_does()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def usage(path: Path) -> shutil._ntuple_diskusage:
        asked.append(path)
        return shutil._ntuple_diskusage(10**12, 10**12, 1_234_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    huge = [TensorSpec("t", "bfloat16", (5, 10**9))]
    with (
        pytest.raises(CheckpointError, match=r"takes 10\.02 GB .* has 1\.23 GB free"),
        write_checkpoint(tmp_path / "a" / "b", huge),
    ):
        pass
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with (
            pytest.raises(CheckpointError, match="model.safetensors: cannot be written: File too"),
            write_checkpoint(tmp_path / "out", [TensorSpec("t", "float32", (1 << 16,))]) as writer,
        ):
            writer.write("t", torch.zeros(1 << 16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(CheckpointError, match="cannot be written: Not a directory"),
        write_checkpoint(tmp_path / "file" / "out", SPECS),
    ):
        pass


def test_large_shards_are_brought_to_the_disk_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evomerge.checkpoints import writing

    synced: list[str] = []
    monkeypatch.setattr("evomerge.checkpoints.direct_file._DIRECT", 0)
    sync = writing._sync
    monkeypatch.setattr(writing, "_sync", lambda path: synced.append(path.name) or sync(path))
    monkeypatch.setattr(writing, "_SYNC_BYTES", 1000)
    specs = [TensorSpec(str(i), "float32", (100,)) for i in range(20)]
    with write_checkpoint(tmp_path / "out", specs, documents={"config.json": {}}) as writer:
        for spec in specs:
            writer.write(spec.name, torch.ones(100))
            for future in writer._syncs:
                future.result()
        before = synced.count("model.safetensors")
    assert before == 20 * 400 // 1200
    # The last word on a file is after its last byte, and the folder's comes last.
    assert synced.count("model.safetensors") == before + 1
    assert "config.json" in synced
    assert synced[-1] == tmp_path.name
