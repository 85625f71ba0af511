"""LoRA inputs in the engine: merged to disk and in memory alike, without a cache folder."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from evomerge.engine import Bank, materialize, merge_to_disk, plan_merge
from tests.engine import reference
from tests.engine.test_same_bits import goal, same


def test_needs_no_cache_folder(tmp_path: Path) -> None:
    recipe = reference.recipe("lora_no_cache")
    merge_to_disk(recipe, tmp_path / "out", seed=0)
    merged = load_file(tmp_path / "out" / "model.safetensors")
    wanted = reference.expected("lora_linear")
    assert wanted is not None
    assert merged.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(merged[name], tensor, atol=2e-6, rtol=0), name
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    live = goal(plan)
    materialize(plan, Bank(checkpoints), live, seed=0)
    assert same(live, merged)
