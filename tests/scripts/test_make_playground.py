"""The playground's script: it still trains, and what is committed is what it makes."""

import subprocess
import sys

import pytest

from tests.conftest import ENVIRONMENT, ROOT

NAMES = ("base", "add", "reverse", "sort")
COMMITTED = ROOT / "search_spaces" / "playground"


def make(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_playground.py", *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )


def test_one_expert_is_retrained_for_a_few_steps(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments = ("--out", tmp_path, "--data", tmp_path / "data", "--only", "add", "--steps", 4)
    make(*arguments)
    expert = AutoModelForCausalLM.from_pretrained(tmp_path / "add")
    base = AutoModelForCausalLM.from_pretrained(COMMITTED / "base").state_dict()
    moved = 0
    for name, tensor in expert.state_dict().items():
        assert torch.isfinite(tensor).all(), name
        moved += not torch.equal(tensor, base[name])
    assert moved > len(base) / 2
    ids = AutoTokenizer.from_pretrained(tmp_path / "add")("12+34=")["input_ids"]
    assert len(ids) == 7
    first = (tmp_path / "add" / "model.safetensors").read_bytes()
    make(*arguments)
    assert (tmp_path / "add" / "model.safetensors").read_bytes() == first


def test_the_task_data_is_what_the_script_writes(tmp_path):
    make("--data-only", "--data", tmp_path)
    for name in ("add", "reverse", "sort"):
        committed = ROOT / "tasks" / "playground" / f"{name}.jsonl"
        assert (tmp_path / f"{name}.jsonl").read_bytes() == committed.read_bytes()


def test_the_committed_weights_are_small():
    sizes = [path.stat().st_size for path in COMMITTED.rglob("*.safetensors")]
    assert len(sizes) == 4
    assert sum(sizes) <= 4 * 10**6


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_checkpoints_load(name):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(
        COMMITTED / name, dtype="auto", output_loading_info=True
    )
    assert model.dtype == torch.bfloat16
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(COMMITTED / name)
    assert tokenizer.is_fast
    assert tokenizer.decode(tokenizer("sort dcba=")["input_ids"], skip_special_tokens=True) == (
        "sort dcba="
    )
