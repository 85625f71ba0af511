"""Towers and other parts of a model merged each in its own way, under `modules`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evomerge.checkpoints import open_checkpoint, require_parts, split_parts
from evomerge.engine import Bank, materialize, merge_to_disk, plan_merge
from evomerge.errors import CheckpointError, RecipeError
from evomerge.recipe import parse_recipe
from tests.engine.architectures import load, made_on_demand

pytestmark = pytest.mark.filterwarnings("ignore")  # those of transformers' model classes

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made_on_demand(tmp_path_factory.mktemp("modules"), 2)


def merge(modules: dict[str, Any], out: Path, **more: Any) -> Tensors:
    recipe = parse_recipe({"merge_method": "linear", "modules": modules, **more})
    merge_to_disk(recipe, out, seed=0)
    return load_file(out / "model.safetensors")


def whole(*paths: str, **parameters: Any) -> dict[str, Any]:
    """Return a module of whole models with equal weights."""
    return {
        "models": [{"model": path} for path in paths],
        "parameters": {"weight": 1.0, **parameters},
    }


def stored(path: str) -> Tensors:
    return load_file(Path(path) / "model.safetensors")


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3"])
def test_the_language_tower_by_itself(name: str, models: Any, tmp_path: Path) -> None:
    a, b = models(name)
    modules = {"text_decoder": whole(a, b), "default": whole(b)}
    merged = merge(modules, tmp_path / "out")
    load(name, tmp_path / "out")
    one, other = stored(a), stored(b)
    assert merged.keys() == one.keys()
    layers = open_checkpoint(a).layers
    tower = [key for key in merged if key.startswith(layers.stem) or "lm_head" in key]
    assert len(tower) > layers.count
    for key, tensor in merged.items():
        wanted = (one[key] + other[key]) / 2 if key in tower else other[key]
        assert torch.allclose(tensor, wanted, atol=1e-7), key


def test_modules_by_their_prefixes(models: Any, tmp_path: Path) -> None:
    a, b = models("llava")
    modules = {
        "vision_tower": whole(b),
        "language_model": whole(a, b),
        "multi_modal_projector": {
            "models": [{"model": a, "parameters": {"weight": 0.25}}, {"model": b}],
            "parameters": {"weight": 0.75},
        },
    }
    merged = merge(modules, tmp_path / "out", parameters={"weight": 9.0})
    load("llava", tmp_path / "out")
    one, other = stored(a), stored(b)
    shares = {"vision_tower": 0.0, "language_model": 0.5, "multi_modal_projector": 0.25}
    for key, tensor in merged.items():
        share = next(share for prefix, share in shares.items() if prefix in key)
        wanted = share * one[key] + (1.0 - share) * other[key]
        assert torch.allclose(tensor, wanted, atol=1e-7), key


def test_the_same_in_memory(models: Any, tmp_path: Path) -> None:
    a, b = models("llava")
    modules = {"text_decoder": whole(a, b), "default": whole(b)}
    merged = merge(modules, tmp_path / "out")
    recipe = parse_recipe({"merge_method": "linear", "modules": modules})
    opened = {name: open_checkpoint(name) for name in recipe.model_names()}
    plan = plan_merge(recipe, opened)
    out = {tensor.name: torch.empty(tensor.shape) for tensor in plan.outputs}
    materialize(plan, Bank(opened, "cpu"), out, seed=0)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in out.items())


def test_a_language_model_gives_only_its_tower(models: Any, tmp_path: Path) -> None:
    base, language = models("llava")[0], models("llama")[1]
    modules = {"text_decoder": whole(language), "default": whole(base)}
    merged = merge(modules, tmp_path / "out", base_model=base)
    load("llava", tmp_path / "out")
    one, text = stored(base), stored(language)
    for key, tensor in merged.items():
        own = next((name for name in text if key.endswith(f"language_model.{name}")), None)
        assert torch.equal(tensor, one[key] if own is None else (one[key] + text[own]) / 2), key


def test_layers_of_a_tower(models: Any, tmp_path: Path) -> None:
    a, b = models("llava")
    layers = [{"sources": [{"model": b, "layer_range": span}]} for span in ([0, 1], [2, 4])]
    modules = {"text_decoder": {"slices": layers}, "vision_tower": whole(a), "default": whole(a)}
    merged = merge(modules, tmp_path / "out", parameters={"weight": 1.0})
    loaded = load("llava", tmp_path / "out")
    assert loaded.config.text_config.num_hidden_layers == 3
    one, other = stored(a), stored(b)
    stack = open_checkpoint(a).layers
    key = stack.join(1, "mlp.up_proj.weight")
    assert torch.equal(merged[key], other[stack.join(2, "mlp.up_proj.weight")])
    for name, tensor in merged.items():
        if "vision_tower" in name or "projector" in name:
            assert torch.equal(tensor, one[name])


def test_gradients_run_over_a_modules_own_layers(models: Any, tmp_path: Path) -> None:
    a, b = models("llava")
    rising = {"model": b, "parameters": {"weight": [0.0, 1.0]}}
    falling = {"model": a, "parameters": {"weight": [1.0, 0.0]}}
    modules = {"vision_tower": {"models": [falling, rising]}, "default": whole(a)}
    merged = merge(modules, tmp_path / "out")
    one, other = stored(a), stored(b)
    layers = split_parts(open_checkpoint(a), ("vision_tower", "default"))["vision_tower"].layers
    assert "vision_tower" in layers.prefix
    for name in merged:
        split = layers.split(name)
        if split is not None:
            share = split[0] / (layers.count - 1)
            wanted = (1.0 - share) * one[name] + share * other[name]
            assert torch.allclose(merged[name], wanted, atol=1e-6), name
        else:
            assert torch.equal(merged[name], one[name]), name


def test_encoder_and_decoder(models: Any, tmp_path: Path) -> None:
    a, b = models("t5")
    modules = {"encoder": whole(a), "decoder": whole(b), "default": whole(a, b)}
    merged = merge(modules, tmp_path / "out")
    load("t5", tmp_path / "out")
    one, other = stored(a), stored(b)
    for key, tensor in merged.items():
        mean = (one[key] + other[key]) / 2
        wanted = {"encoder": one[key], "decoder": other[key]}.get(key.split(".")[0], mean)
        assert torch.allclose(tensor, wanted, atol=1e-7), key


def test_what_is_refused(models: Any, tmp_path: Path) -> None:
    a, b = models("llava")
    rest = {"default": whole(a)}
    with pytest.raises(CheckpointError, match="no tensors for the module 'audio'.* here .*vision"):
        merge({"audio": whole(a), **rest}, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"tensors of .* are in no module .*'default'"):
        merge({"text_decoder": whole(a, b)}, tmp_path / "out")
    layers = {"slices": [{"sources": [{"model": a, "layer_range": [0, 1]}]}]}
    with pytest.raises(RecipeError, match="modules.vision_tower: slices choose layers of the lang"):
        merge({"vision_tower": layers, **rest}, tmp_path / "out", parameters={"weight": 1})
    other = models("gpt_neox")[0]
    modules = {"vision_tower": whole(other), **rest}
    with pytest.raises(CheckpointError, match="gpt_neox.* no tensors for the module 'vision_tower"):
        merge(modules, tmp_path / "out", base_model=a)


def test_the_longest_prefix_counts(models: Any) -> None:
    checkpoint = open_checkpoint(models("llava")[0])
    parts = ("language_model", "language_model.model.embed_tokens", "default")
    require_parts(checkpoint, parts)
    found = split_parts(checkpoint, parts)
    assert list(found["language_model.model.embed_tokens"].tensors) == [checkpoint.token_embedding]
    assert checkpoint.token_embedding not in found["language_model"].tensors
    assert sum(len(part.tensors) for part in found.values()) == len(checkpoint.tensors)
