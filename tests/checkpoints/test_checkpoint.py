"""Opening checkpoints, and what is wrong with them."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.checkpoints import content_identity, locate, open_checkpoint
from evomerge.errors import CheckpointError

MODELS = Path(__file__).parents[1] / "golden" / "models"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODELS / "llama_a", tmp_path / "copy"))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODELS / "llama_a_sharded", tmp_path / "sharded"))


@pytest.mark.parametrize("name", sorted(path.parent.name for path in MODELS.glob("*/config.json")))
def test_reads_every_tensor(name: str) -> None:
    checkpoint = open_checkpoint(str(MODELS / name))
    wanted: dict[str, torch.Tensor] = {}
    for file in (MODELS / name).glob("*.safetensors"):
        wanted |= load_file(file)
    assert checkpoint.tensors.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(checkpoint.read(key), tensor)
        assert checkpoint.tensors[key].shape == tensor.shape
        assert f"torch.{checkpoint.tensors[key].dtype}" == str(tensor.dtype)
    assert checkpoint.num_parameters == sum(tensor.numel() for tensor in wanted.values())
    assert checkpoint.layers.count == checkpoint.config["num_hidden_layers"]
    assert checkpoint.tied == name.startswith(("tied", "qwen3"))


def test_odd_tensors(tmp_path: Path) -> None:
    tensors = {
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "flags": torch.tensor([True, False]),
        "narrow": torch.ones(3).to(torch.float8_e4m3fn),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(str(tmp_path))
    for name, tensor in tensors.items():
        found = checkpoint.read(name)
        assert found.dtype == tensor.dtype
        assert torch.equal(found.float(), tensor.float())
    assert checkpoint.layers.count == 0
    with pytest.raises(CheckpointError, match="no tensor 'flag'; did you mean 'flags'"):
        checkpoint.read("flag")


def test_a_pointer_of_git_lfs_is_no_model(copied: Path) -> None:
    (copied / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with pytest.raises(CheckpointError, match="a pointer of Git LFS to it; run `git lfs pull`"):
        open_checkpoint(str(copied))


def test_vocabularies() -> None:
    vocab = open_checkpoint(str(MODELS / "llama_a")).tokenizer_vocab()
    assert vocab is not None
    assert (len(vocab), vocab["<s>"]) == (96, 0)
    assert open_checkpoint(str(MODELS / "llama_a_sharded")).tokenizer_vocab() is None


def test_unigram_and_old_vocabularies(copied: Path) -> None:
    tokens = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": []}
    (copied / "tokenizer.json").write_text(json.dumps(tokens))
    assert open_checkpoint(str(copied)).tokenizer_vocab() == {"a": 0, "b": 1}
    (copied / "tokenizer.json").unlink()
    (copied / "vocab.json").write_text('{"x": 0}')
    (copied / "added_tokens.json").write_text('{"y": 1}')
    assert open_checkpoint(str(copied)).tokenizer_vocab() == {"x": 0, "y": 1}


def test_fingerprints_follow_content_only(copied: Path) -> None:
    original = open_checkpoint(str(MODELS / "llama_a")).fingerprint()
    os.utime(copied / "model.safetensors", (1, 1))
    assert open_checkpoint(str(copied)).fingerprint() == original
    assert open_checkpoint(str(MODELS / "llama_a_sharded")).fingerprint() == original
    assert open_checkpoint(str(MODELS / "llama_b")).fingerprint() != original
    checkpoint = pickle.loads(pickle.dumps(open_checkpoint(str(copied))))  # noqa: S301
    assert checkpoint.fingerprint() == original


@pytest.mark.parametrize(
    ("file", "old", "new", "is_other"),
    [
        ("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05', True),
        ("tokenizer.json", '"[UNK]"', '"[?]"', True),
        ("chat_template.jinja", "", "{{ messages }}", True),
        ("additional_chat_templates/tools.jinja", "", "{{ tools }}", True),
        ("README.md", "", "# other words", False),
    ],
)
def test_what_decides_a_models_answers_is_its_identity(
    copied: Path, file: str, old: str, new: str, is_other: bool
) -> None:
    (copied / "tokenizer.json").write_text('{"model": {"vocab": {"[UNK]": 0}}}')
    before = open_checkpoint(str(copied))
    identity = content_identity(before)
    text = (copied / file).read_text() if (copied / file).exists() else ""
    assert old in text
    (copied / file).parent.mkdir(exist_ok=True)
    (copied / file).write_text(text.replace(old, new) if old else new)
    after = open_checkpoint(str(copied))
    edited = content_identity(after)
    assert (identity != edited) == is_other
    assert before.fingerprint() == after.fingerprint(), "random methods draw the same"
    moved = copied.rename(copied.with_name("moved"))
    assert content_identity(open_checkpoint(str(moved))) == edited


def truncate(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-7, r"model.safetensors: cut short: \d+ bytes where the header says \d+"),
        (5, "model.safetensors: not a safetensors file, or cut short: 5 bytes"),
        (100, "not a safetensors file, or cut short"),
        (0, "not a safetensors file, or cut short: 0 bytes"),
    ],
)
def test_truncated_files(copied: Path, size: int, message: str) -> None:
    truncate(copied / "model.safetensors", size)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(copied))


def test_truncated_shard_names_the_shard(sharded: Path) -> None:
    truncate(sharded / "model-00002-of-00002.safetensors", -1)
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors: cut short"):
        open_checkpoint(str(sharded))


def test_too_long_and_garbled_files(copied: Path) -> None:
    file = copied / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data + b"x")
    with pytest.raises(CheckpointError, match="longer than its header says"):
        open_checkpoint(str(copied))
    file.write_bytes(data[:8] + b"}" + data[9:])
    with pytest.raises(CheckpointError, match="the header is damaged"):
        open_checkpoint(str(copied))
    file.write_bytes(data.replace(b'"F32"', b'"F99"', 1))
    with pytest.raises(CheckpointError, match="has the type F99"):
        open_checkpoint(str(copied))
    file.write_bytes(data.replace(b"[96,32]", b"[96,33]", 1))
    with pytest.raises(CheckpointError, match=r"12288 bytes, which are not \[96, 33\] of float32"):
        open_checkpoint(str(copied))


def change_index(folder: Path, **changes: Any) -> None:
    file = folder / "model.safetensors.index.json"
    data = json.loads(file.read_text())
    data["weight_map"] |= changes
    file.write_text(json.dumps(data))


def test_index_and_shards_must_agree(sharded: Path) -> None:
    change_index(sharded, extra="model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="1 tensors are not in the shards .*'extra'"):
        open_checkpoint(str(sharded))
    change_index(sharded, extra="../model.safetensors")
    with pytest.raises(CheckpointError, match="names the shard '../model.safetensors'"):
        open_checkpoint(str(sharded))
    (sharded / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="names the shard 'model-00001.*missing"):
        open_checkpoint(str(sharded))


def test_shards_without_index(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    assert len(open_checkpoint(str(sharded)).tensors) == 39
    first = sharded / "model-00001-of-00002.safetensors"
    shutil.copy(first, sharded / "again.safetensors")
    with pytest.raises(CheckpointError, match=r"is in again.safetensors and in model-00001"):
        open_checkpoint(str(sharded))


def test_folders_that_are_no_checkpoints(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no .safetensors file \(there is pytorch_model.bin"):
        open_checkpoint(str(copied))
    (copied / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="a JSON object is expected, got list"):
        open_checkpoint(str(copied))
    (copied / "config.json").unlink()
    with pytest.raises(CheckpointError, match="config.json is missing"):
        open_checkpoint(str(copied))
    with pytest.raises(CheckpointError, match="this is a file"):
        open_checkpoint(str(copied / "pytorch_model.bin"))


def test_missing_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "models").mkdir()
    for name, message in {
        "models/nosuch": "models/nosuch: no such folder .*there is models",
        "./nosuch": "./nosuch: no such folder",
        "a/b/c": "a/b/c: no such folder",
        "someone/something@main": "not in the local cache, and HF_HUB_OFFLINE is set.*hf download",
        "models/base+models/lora": "models/base: no such folder",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(name)


def test_hub_snapshots_are_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(MODELS / "llama_a")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    checkpoint = open_checkpoint("org/model@v1")
    assert (checkpoint.name, checkpoint.path) == ("org/model@v1", MODELS / "llama_a")
    assert (asked["name"], asked["revision"]) == ("org/model", "v1")
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any(pattern in ("*", "*.bin", "*.py") for pattern in asked["allow_patterns"])


def test_locate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "space" / "beside").mkdir(parents=True)
    (tmp_path / "space" / "here").mkdir()
    assert locate("here", tmp_path / "space") == "here"
    assert locate("beside", Path("space")) == "space/beside"
    assert locate("org/name@rev", Path("space")) == "org/name@rev"
    assert locate(str(tmp_path / "here"), Path("space")) == str(tmp_path / "here")


def test_the_token_embedding_of_a_model_with_towers(tmp_path: Path) -> None:
    """The number of tokens stands in the config of the language model."""
    names = ("model.audio.embed_tokens.weight", "model.language_model.embed_tokens.weight")
    save_file(
        {names[0]: torch.zeros(7, 4), names[1]: torch.zeros(11, 4)},
        tmp_path / "model.safetensors",
    )
    config = {"model_type": "llava", "text_config": {"vocab_size": 11, "num_hidden_layers": 1}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(tmp_path).token_embedding == names[1]
