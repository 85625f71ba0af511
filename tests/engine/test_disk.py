"""Merging onto the disk: complete or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.checkpoints import open_checkpoint
from evomerge.engine import merge_to_disk
from evomerge.errors import CheckpointError, EvaluationError, PrerequisiteError
from evomerge.recipe import parse_recipe
from tests.engine import reference


def test_shards_load_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "deep" / "out"
    steps: list[tuple[int, int]] = []
    merge_to_disk(
        reference.simple("ties", out_dtype="bfloat16"),
        out,
        seed=0,
        shard_bytes=20_000,
        progress=lambda done, total: steps.append((done, total)),
        model_card="# Merged\n",
    )
    files = sorted(file.name for file in out.glob("*.safetensors"))
    count = len(files)
    assert count > 3
    assert files == [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == steps[-1][0] == steps[-1][1]
    assert len(steps) == len(index["weight_map"])
    assert (out / "README.md").read_text() == "# Merged\n"
    model, information = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not information["missing_keys"]
    assert not information["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    merged = open_checkpoint(str(out))
    assert torch.equal(model.lm_head.weight, merged.read("lm_head.weight"))
    assert len(AutoTokenizer.from_pretrained(out)) == 96
    assert (out.stat().st_mode & 0o777) == (tmp_path / "deep").stat().st_mode & 0o777
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_tied_models_stay_tied(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    out = tmp_path / "out"
    merge_to_disk(reference.recipe("tied_ties"), out, seed=0)
    assert "lm_head.weight" not in load_file(out / "model.safetensors")
    model, information = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not information["missing_keys"]
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_head_that_differs_from_the_embedding_counts_whatever_the_config_says(
    tmp_path: Path,
) -> None:
    """As for transformers, which ties only what is equal where both are in the files."""
    source = tmp_path / "said_to_be_tied"
    shutil.copytree("models/llama_a", source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    data = {"merge_method": "passthrough", "models": [{"model": str(source)}]}
    merge_to_disk(parse_recipe(data), tmp_path / "out", seed=0)
    merged, stored = (load_file(path / "model.safetensors") for path in (tmp_path / "out", source))
    assert torch.equal(merged["lm_head.weight"], stored["lm_head.weight"])
    assert not json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"]

    save_file(
        {**stored, "lm_head.weight": stored["model.embed_tokens.weight"].clone()},
        source / "model.safetensors",
    )
    merge_to_disk(parse_recipe(data), tmp_path / "tied", seed=0)
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    assert json.loads((tmp_path / "tied" / "config.json").read_text())["tie_word_embeddings"]


@pytest.mark.parametrize(
    ("method", "packed"), [("bitsandbytes", torch.uint8), ("fp8", torch.float8_e4m3fn)]
)
def test_quantized_models_are_refused(method: str, packed: torch.dtype, tmp_path: Path) -> None:
    source = tmp_path / "quantized"
    shutil.copytree("models/llama_a", source)
    tensors = load_file(source / "model.safetensors")
    narrow = {name: x.to(packed) if "proj" in name else x for name, x in tensors.items()}
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method}
    (source / "config.json").write_text(json.dumps(config))
    data = {"merge_method": "passthrough", "models": [{"model": str(source)}]}
    merge_to_disk(parse_recipe(data), tmp_path / "stale", seed=0)  # no packed tensor in it
    save_file(narrow, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"its weights are quantized \({method}\)"):
        merge_to_disk(parse_recipe(data), tmp_path / "out", seed=0)


def test_merges_of_float8_tensors_are_wider(tmp_path: Path) -> None:
    sources = []
    for name in ("a", "b"):
        shutil.copytree(f"models/llama_{name}", tmp_path / name)
        file = tmp_path / name / "model.safetensors"
        save_file({k: x.to(torch.float8_e4m3fn) for k, x in load_file(file).items()}, file)
        sources.append(load_file(file))
    models = [{"model": str(tmp_path / n), "parameters": {"weight": 0.5}} for n in ("a", "b")]
    out = tmp_path / "out"
    merge_to_disk(parse_recipe({"merge_method": "linear", "models": models}), out, seed=0)
    for name, tensor in load_file(out / "model.safetensors").items():
        wanted = (sources[0][name].float() + sources[1][name].float()) / 2
        assert torch.equal(tensor, wanted.bfloat16()), name
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_tied_and_untied_models_give_a_head(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    out = tmp_path / "out"
    merge_to_disk(reference.recipe("tied_base_untied_ta"), out, seed=0)
    written = load_file(out / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(model.lm_head.weight, written["lm_head.weight"])
    assert not torch.equal(written["lm_head.weight"], written["model.embed_tokens.weight"])


def test_the_tokenizer_of_the_wanted_model_and_the_generation_config(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for file in Path("models/llama_a").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "generation_config.json").write_text('{"max_length": 17}')
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({**settings, "mine": True}))
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in ("source", "other")]
    (tmp_path / "other").symlink_to(Path("models/llama_b").absolute())
    from evomerge.recipe import parse_recipe

    data = {"merge_method": "linear", "models": models}
    for i, wanted in enumerate(("source", "other", "union", None)):
        recipe = parse_recipe({**data, "tokenizer_source": wanted})
        out = tmp_path / f"out{i}"
        merge_to_disk(recipe, out, seed=0, folder=tmp_path)
        mine = "mine" in json.loads((out / "tokenizer_config.json").read_text())
        assert mine == (wanted != "other")
        assert json.loads((out / "generation_config.json").read_text()) == {"max_length": 17}


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_goal_that_holds_something_is_refused(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        (out / "precious").write_text("x")
    else:
        out.write_text("x")
    with pytest.raises(CheckpointError, match="out: "):
        merge_to_disk(reference.simple("ties"), out, seed=0)
    assert out.is_file() or [path.name for path in out.iterdir()] == ["precious"]


def test_an_empty_goal_is_filled(tmp_path: Path) -> None:
    merge_to_disk(reference.simple("ties"), tmp_path, seed=0)
    assert (tmp_path / "model.safetensors").is_file()


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_to_disk(reference.simple("ties"), tmp_path / "out", seed=0, progress=stop)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from evomerge.engine import merge_to_disk
from tests.engine.reference import simple

def wait(done, total):
    if done > total / 2:
        Path(sys.argv[1] + "-half").touch()
        time.sleep(60)

merge_to_disk(simple("ties"), Path(sys.argv[1]), seed=0, progress=wait)
"""


def test_a_kill_in_the_middle_leaves_no_goal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(reference.GOLDEN.parents[1])}
    with subprocess.Popen([sys.executable, "-c", KILLED, str(out)], env=environment) as process:
        deadline = time.monotonic() + 50
        while not Path(f"{out}-half").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    merge_to_disk(reference.simple("ties"), out, seed=0)
    assert (out / "config.json").is_file()


def small_models(folder: Path, count: int, size: int, dtype: torch.dtype) -> None:
    """Write a base and two variants of `count` equal tensors."""
    for i, name in enumerate(("base", "a", "b")):
        generator = torch.Generator().manual_seed(i)
        tensors = {
            f"model.layers.{k}.w": torch.empty(size // 512, 512)
            .uniform_(-1, 1, generator=generator)
            .to(dtype)
            for k in range(count)
        }
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(f'{{"num_hidden_layers": {count}}}')
        save_file(tensors, folder / name / "model.safetensors")


MEASURED = """
import sys
from pathlib import Path
import torch
from evomerge.engine import merge_to_disk
from evomerge.engine.native import Native, magnitudes
from evomerge.recipe import parse_recipe

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))

models = [{"model": m, "parameters": {"weight": 0.5, "density": 0.4}} for m in ("a", "b")]
data = {"merge_method": "ties", "base_model": "base", "models": models, **eval(sys.argv[2])}
# The loops are compiled and LLVM is loaded before the peak begins anew.
magnitudes.largest(Native(), torch.ones(9))
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
merge_to_disk(
    parse_recipe(data), Path("out"), seed=0, folder=Path(sys.argv[1]), shard_bytes=float(1 << 24)
)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("stored", "changes"),
    [(torch.bfloat16, {}), (torch.float32, {"dtype": "bfloat16", "out_dtype": "float32"})],
)
def test_memory_stays_far_below_the_checkpoint(
    tmp_path: Path, stored: torch.dtype, changes: dict[str, str]
) -> None:
    largest, sources, shard = 1 << 22, 3, 1 << 24
    small_models(tmp_path, 20, largest // stored.itemsize, stored)
    one = (tmp_path / "a" / "model.safetensors").stat().st_size
    # The libraries are loaded, so 30 MB must do for what is 500 MB with them.
    limit = largest * (sources + 3) + shard + 30_000_000
    assert one > limit
    environment = {
        **os.environ,
        "PYTHONPATH": str(reference.GOLDEN.parents[1]),
        "OMP_NUM_THREADS": "1",
        "EVOMERGE_COMPILE": "always",
        "EVOMERGE_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-c", MEASURED, str(tmp_path), repr(changes)]
    for _ in range(2):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    written = sum(file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors"))
    shutil.rmtree(tmp_path)
    assert written > one * 0.99
    assert int(done.stdout) < limit


def test_a_source_cut_short_meanwhile_is_told(tmp_path: Path) -> None:
    for name in ("llama_base", "llama_a", "llama_b"):
        shutil.copytree(Path("models") / name, tmp_path / "models" / name)
    recipe = reference.simple("ties")
    opened = {name: open_checkpoint(str(tmp_path / name)) for name in recipe.model_names()}
    file = next((tmp_path / "models" / "llama_b").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:50_000])
    with pytest.raises(CheckpointError, match="llama_b.*cut short"):
        merge_to_disk(recipe, tmp_path / "out", seed=0, checkpoints=opened)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_an_error_of_the_writing_thread_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evomerge.checkpoints import ShardedWriter

    write = ShardedWriter.write
    count = 0

    def failing(self: ShardedWriter, name: str, tensor: torch.Tensor) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise CheckpointError("the disk is gone")
        write(self, name, tensor)

    monkeypatch.setattr(ShardedWriter, "write", failing)
    with pytest.raises(CheckpointError, match="the disk is gone"):
        merge_to_disk(reference.simple("ties"), tmp_path / "out", seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_source_leaves_nothing(tmp_path: Path) -> None:
    small_models(tmp_path, 3, 2048, torch.float32)
    tensors = load_file(tmp_path / "b" / "model.safetensors")
    tensors["model.layers.2.w"][1, 3] = float("nan")
    save_file(tensors, tmp_path / "b" / "model.safetensors")
    from evomerge.recipe import parse_recipe

    models = [{"model": name, "parameters": {"weight": 0.5}} for name in ("a", "b")]
    recipe = parse_recipe({"merge_method": "ties", "base_model": "base", "models": models})
    with pytest.raises(EvaluationError, match="'model.layers.2.w' of b"):
        merge_to_disk(recipe, tmp_path / "out", seed=0, folder=tmp_path)
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "base"]


@pytest.mark.parametrize("device", ["cuda", "meta", "toaster"])
def test_a_device_that_is_not_there(tmp_path: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(PrerequisiteError, match=f"device '{device}' is not there.*'cpu'"):
        merge_to_disk(reference.simple("ties"), tmp_path / "out", seed=0, device=device)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_streaming_through_a_gpu(tmp_path: Path) -> None:
    recipe = reference.simple("task_arithmetic", out_dtype="float32")
    for device in ("cpu", "cuda"):
        merge_to_disk(recipe, tmp_path / device, seed=0, device=device)
    here, there = (load_file(tmp_path / x / "model.safetensors") for x in ("cpu", "cuda"))
    assert here.keys() == there.keys()
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, rtol=0, atol=2e-6)
