"""Merging onto the disk: complete or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evomerge.checkpoints import open_checkpoint
from evomerge.engine import merge_to_disk
from evomerge.errors import CheckpointError
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
