"""What is scored is what is exported: one result, whichever way it is computed."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evomerge.engine import Bank, MergePlan, materialize, merge_to_disk, plan_merge
from evomerge.recipe import Recipe
from tests.engine import reference

METHODS = ("ties", "dare_ties", "dare_linear", "task_arithmetic")


def in_memory(
    recipe: Recipe, dtype: torch.dtype | None = None, seed: int = 3, **options: Any
) -> dict[str, torch.Tensor]:
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    out = goal(plan, dtype)
    materialize(plan, Bank(checkpoints, "cpu", **options), out, seed=seed)
    return out


def goal(plan: MergePlan, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    return {
        tensor.name: torch.full(tensor.shape, 7.0, dtype=dtype or getattr(torch, tensor.dtype))
        for tensor in plan.outputs
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtypes", [{}, {"out_dtype": "bfloat16"}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("method", [*METHODS, "slerp"])
def test_memory_and_disk(method: str, dtypes: dict[str, str], tmp_path: Path) -> None:
    changes: dict[str, Any] = {}
    if method == "slerp":
        models = [{"model": "models/llama_base"}, {"model": "models/llama_a"}]
        changes = {"models": models, "parameters": {"t": [0.2, 0.7]}}
    recipe = reference.simple(method, **dtypes, **changes)
    merge_to_disk(recipe, tmp_path / "out", seed=3)
    written = load_file(tmp_path / "out/model.safetensors")
    assert same(in_memory(recipe), written)
    wide = in_memory(recipe, torch.float32)
    # A live model in another type gets the rounded values.
    assert same(wide, {name: tensor.float() for name, tensor in written.items()})


@pytest.mark.parametrize("method", METHODS)
def test_size_of_blocks_and_second_candidate(method: str) -> None:
    recipe = reference.simple(method)
    wanted = in_memory(recipe)
    for block in (64, 512):
        assert same(in_memory(recipe, block=block), wanted)
    checkpoints = reference.checkpoints(recipe)
    bank = Bank(checkpoints, "cpu")
    other = plan_merge(reference.simple(method, dtype="bfloat16"), checkpoints)
    materialize(other, bank, goal(other), seed=4)
    plan = plan_merge(recipe, checkpoints)
    out = goal(plan)
    materialize(plan, bank, out, seed=3)
    assert same(out, wanted)


def test_large_tensors(tmp_path: Path) -> None:
    """More elements than a block, and thresholds by bins."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    shape = (3, 70_001)
    for name in ("llama_base", "llama_a", "llama_b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text('{"num_hidden_layers": 1}')
        x = torch.randn(shape, generator=generator).bfloat16()
        save_file({"model.layers.0.w": x}, folder / "model.safetensors")
    from evomerge.checkpoints import open_checkpoint

    for method in METHODS:
        recipe = reference.simple(method)
        checkpoints = {
            name: open_checkpoint(str(tmp_path / name.removeprefix("models/")))
            for name in recipe.model_names()
        }
        plan = plan_merge(recipe, checkpoints)
        results = []
        for block in (1 << 12, 1 << 16, 1 << 20):
            out = goal(plan)
            materialize(plan, Bank(checkpoints, "cpu", block=block), out, seed=0)
            results.append(out)
        merge_to_disk(recipe, tmp_path / f"out-{method}", seed=0, checkpoints=checkpoints)
        results.append(load_file(tmp_path / f"out-{method}/model.safetensors"))
        assert all(same(result, results[0]) for result in results)


def test_live_tensors_that_are_not_contiguous_or_need_gradients() -> None:
    recipe = reference.simple("dare_ties")
    wanted = in_memory(recipe)
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    out: dict[str, torch.Tensor] = {}
    for tensor in plan.outputs:
        turned = torch.zeros(tensor.shape[::-1]).permute(*range(len(tensor.shape))[::-1])
        out[tensor.name] = torch.nn.Parameter(turned)
    out["more"] = torch.ones(2)
    materialize(plan, Bank(checkpoints, "cpu"), out, seed=3)
    assert torch.equal(out.pop("more"), torch.ones(2))
    assert same({name: tensor.detach() for name, tensor in out.items()}, wanted)


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
from evomerge.engine import merge_to_disk
from tests.engine.reference import simple
merge_to_disk(simple("dare_ties", out_dtype="bfloat16"), Path(sys.argv[1]), seed=3)
"""


def test_a_new_process_with_another_hash_seed(tmp_path: Path) -> None:
    digests = set()
    root = reference.GOLDEN.parents[1]
    for hash_seed, threads in (("1", "1"), ("99", "2")):
        out = tmp_path / hash_seed
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", SCRIPT, str(out), threads]
        subprocess.run(command, check=True, env=environment, cwd=reference.GOLDEN)
        digests.add(hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest())
    recipe = reference.simple("dare_ties", out_dtype="bfloat16")
    merge_to_disk(recipe, tmp_path / "here", seed=3)
    here = (tmp_path / "here/model.safetensors").read_bytes()
    assert digests == {hashlib.sha256(here).hexdigest()}


def test_another_seed_is_another_merge() -> None:
    recipe = reference.simple("dare_ties")
    assert not same(in_memory(recipe, seed=1), in_memory(recipe, seed=2))
    plain = reference.simple("ties")
    assert same(in_memory(plain, seed=1), in_memory(plain, seed=2))


def test_a_moved_checkpoint_draws_the_same(tmp_path: Path) -> None:
    from evomerge.checkpoints import open_checkpoint

    recipe = reference.simple("dare_ties")
    checkpoints = dict(reference.checkpoints(recipe))
    wanted = in_memory(recipe)
    (tmp_path / "moved").symlink_to(reference.GOLDEN / "models/llama_a")
    checkpoints["models/llama_a"] = open_checkpoint(str(tmp_path / "moved"))
    plan = plan_merge(recipe, checkpoints)
    out = goal(plan)
    materialize(plan, Bank(checkpoints, "cpu"), out, seed=3)
    assert same(out, wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_draws_the_same_masks() -> None:
    recipe = reference.simple("dare_linear", parameters={"rescale": False})
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    results = []
    for device in ("cpu", "cuda"):
        out = {name: tensor.to(device) for name, tensor in goal(plan).items()}
        materialize(plan, Bank(checkpoints, device), out, seed=3)
        results.append({name: tensor.cpu() for name, tensor in out.items()})
    assert same(*results)
