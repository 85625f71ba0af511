"""Any architecture that transformers knows: merged, sliced, and loaded again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from evomerge.checkpoints import fit_towers, open_checkpoint
from evomerge.engine import merge_to_disk
from evomerge.errors import EvomergeError, RecipeError
from evomerge.recipe import parse_recipe
from tests.engine.architectures import CAUSAL, ENCODER_DECODER, VISION, load, made_on_demand

pytestmark = pytest.mark.filterwarnings("ignore")  # those of transformers' model classes

EVERY = (*CAUSAL, *ENCODER_DECODER, *VISION)
PER_LAYER = ("layer_types", "layers_block_type", "no_rope_layers", "attention_layers")
NUMBERS = ("mlp_only_layers", "moe_layers", "full_attn_idxs")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give the paths of three models of an architecture, made when they are asked for."""
    return made_on_demand(tmp_path_factory.mktemp("architectures"), 3)


def weighted(*paths: str, **more: Any) -> list[dict[str, Any]]:
    return [{"model": path, "parameters": {"weight": 0.5, **more}} for path in paths]


def passthrough(path: str, *ranges: tuple[int, int]) -> dict[str, Any]:
    slices = [{"sources": [{"model": path, "layer_range": list(span)}]} for span in ranges]
    return {"merge_method": "passthrough", "slices": slices}


def merge(data: dict[str, Any], out: Path) -> dict[str, torch.Tensor]:
    merge_to_disk(parse_recipe(data), out, seed=0)
    return load_file(out / "model.safetensors")


def text_config(path: str | Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((Path(path) / "config.json").read_text())
    return {**config, **config.get("text_config", {})}


@pytest.mark.parametrize("name", EVERY)
def test_merged_models_load(name: str, models: Any, tmp_path: Path) -> None:
    base, a, b = models(name)
    linear = merge({"merge_method": "linear", "models": weighted(a, b)}, tmp_path / "linear")
    stored = [load_file(Path(path) / "model.safetensors") for path in (a, b)]
    assert linear.keys() == stored[0].keys()
    for key, tensor in linear.items():
        assert torch.allclose(tensor, (stored[0][key] + stored[1][key]) / 2, atol=1e-6), key
    data = {"merge_method": "ties", "base_model": base, "models": weighted(a, b, density=0.5)}
    merge(data, tmp_path / "ties")
    load(name, tmp_path / "ties")


@pytest.mark.parametrize("name", [*CAUSAL, *VISION])
@pytest.mark.parametrize(
    "ranges", [((0, 1), (2, 4)), ((0, 2), (0, 4))], ids=["dropped", "repeated"]
)
def test_sliced_models_load(
    name: str, ranges: tuple[tuple[int, int], ...], models: Any, tmp_path: Path
) -> None:
    source = models(name)[1]
    if name == "deepseek_v3" and len(ranges) == 2 and ranges[1][0] == 0:
        ranges = ((0, 2), (1, 4))  # the dense layers stay first
    merged = merge(passthrough(source, *ranges), tmp_path / "out")
    load(name, tmp_path / "out")
    origins = [i for span in ranges for i in range(*span)]
    stack = open_checkpoint(source).layers
    assert open_checkpoint(str(tmp_path / "out")).layers.count == len(origins)
    stored = load_file(Path(source) / "model.safetensors")
    for key, tensor in merged.items():
        split = stack.split(key)
        origin = key if split is None else stack.join(origins[split[0]], split[1])
        assert torch.equal(tensor, stored[origin]), key
    before, after = text_config(source), text_config(tmp_path / "out")
    for key in PER_LAYER:
        if before.get(key):
            assert after[key] == [before[key][i] for i in origins], key
    for key in NUMBERS:
        if before.get(key):
            assert after[key] == [i for i, k in enumerate(origins) if k in before[key]], key


def test_rules_that_older_configs_leave_out_are_written_down(models: Any, tmp_path: Path) -> None:
    """Without `layer_types`, Gemma 2's attention alternates by the layers' numbers."""
    source = Path(models("gemma2")[0])
    old = tmp_path / "old"
    old.mkdir()
    (old / "model.safetensors").symlink_to(source / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    kinds = config.pop("layer_types")
    (old / "config.json").write_text(json.dumps(config))
    merge(passthrough(str(old), (1, 3), (1, 4)), tmp_path / "out")
    assert text_config(tmp_path / "out")["layer_types"] == [kinds[i] for i in (1, 2, 1, 2, 3)]


def _with_config(source: str, goal: Path, change: Callable[[dict[str, Any]], Any]) -> str:
    """Copy a model and change its config."""
    goal.mkdir()
    (goal / "model.safetensors").symlink_to(Path(source) / "model.safetensors")
    config = json.loads((Path(source) / "config.json").read_text())
    change(config)
    (goal / "config.json").write_text(json.dumps(config))
    return str(goal)


def test_a_letter_for_each_layer_follows_the_slices(models: Any, tmp_path: Path) -> None:
    def older(config: dict[str, Any]) -> None:
        del config["layers_block_type"]
        config |= {"hybrid_override_pattern": "ME*-", "num_hidden_layers": 4}

    source = _with_config(models("nemotron_h")[0], tmp_path / "older", older)
    merge(passthrough(source, (0, 2), (3, 4), (0, 3)), tmp_path / "out")
    config = text_config(tmp_path / "out")
    assert config["hybrid_override_pattern"] == "ME-ME*"
    assert config["num_hidden_layers"] == 6
    load("nemotron_h", tmp_path / "out")


def test_a_number_of_layers_that_the_config_leaves_to_a_default_is_written(
    models: Any, tmp_path: Path
) -> None:
    """Configs of Llava name the kind of language model, and count no layers."""
    source = _with_config(
        models("llava")[0],
        tmp_path / "short",
        lambda config: config["text_config"].pop("num_hidden_layers"),
    )
    merge(passthrough(source, (0, 2), (3, 4)), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["text_config"]["num_hidden_layers"] == 3
    load("llava", tmp_path / "out")


def test_the_last_layer_with_experts_follows_the_slices(models: Any, tmp_path: Path) -> None:
    source = models("ernie4_5_moe")[0]
    assert text_config(source)["moe_layer_end_index"] == 3
    merge(passthrough(source, (0, 4), (1, 4)), tmp_path / "out")
    assert text_config(tmp_path / "out")["moe_layer_end_index"] == 6
    dense = _with_config(
        source, tmp_path / "dense", lambda config: config.update(moe_layer_end_index=2)
    )
    with pytest.raises(RecipeError, match="last layer with experts .moe_layer_end_index: 2"):
        merge(passthrough(dense, (0, 4), (1, 4)), tmp_path / "mixed")


@pytest.mark.parametrize("method", ["linear", "slerp", "passthrough"])
def test_the_bias_of_a_tied_head_is_merged(method: str, models: Any, tmp_path: Path) -> None:
    a, b, _ = models("ctrl")
    data: dict[str, Any] = {"merge_method": method, "models": weighted(a, b)}
    if method == "slerp":
        data |= {"base_model": a, "parameters": {"t": 0.5}}
    if method == "passthrough":
        data = passthrough(a, (0, 4), (2, 4))
    merged = merge(data, tmp_path / "out")
    stored = [load_file(Path(path) / "model.safetensors")["lm_head.bias"] for path in (a, b)]
    if method == "linear":
        assert torch.allclose(merged["lm_head.bias"], (stored[0] + stored[1]) / 2, atol=1e-6)
    if method == "passthrough":
        assert torch.equal(merged["lm_head.bias"], stored[0])
    assert "lm_head.weight" not in merged
    load("ctrl", tmp_path / "out")


def test_slices_of_a_decoder_whose_config_has_an_encoder_are_refused(tmp_path: Path) -> None:
    from transformers import BartConfig, BartForCausalLM

    config = BartConfig(
        d_model=8, vocab_size=16, decoder_layers=2, decoder_attention_heads=1, decoder_ffn_dim=8
    )
    BartForCausalLM(config).save_pretrained(tmp_path / "bart")
    source = str(tmp_path / "bart")
    with pytest.raises(RecipeError, match="an encoder and a decoder; merge such models whole"):
        merge(passthrough(source, (0, 1)), tmp_path / "out")
    merge(passthrough(source, (0, 2)), tmp_path / "whole")


def test_layers_of_two_models_bring_their_kinds(models: Any, tmp_path: Path) -> None:
    one = Path(models("qwen3_moe")[0])
    other = Path(models("qwen3_moe_steps")[0])
    data = passthrough(str(one), (0, 2))
    data["slices"] += passthrough(str(other), (2, 4))["slices"]
    merge(data, tmp_path / "out")
    config = text_config(tmp_path / "out")
    assert config["mlp_only_layers"] == [1, 2]
    assert config["decoder_sparse_step"] == 1
    load("qwen3_moe", tmp_path / "out")


def test_dense_layers_that_no_longer_come_first_are_refused(models: Any, tmp_path: Path) -> None:
    source = models("deepseek_v3")[0]
    with pytest.raises(RecipeError, match="first layers .*first_k_dense_replace: 2"):
        merge(passthrough(source, (0, 4), (0, 4)), tmp_path / "out")
    merge(passthrough(source, (1, 4)), tmp_path / "one")
    assert text_config(tmp_path / "one")["first_k_dense_replace"] == 1


def test_kinds_that_only_the_code_knows_are_refused(tmp_path: Path) -> None:
    from transformers import JambaConfig

    config = JambaConfig(num_hidden_layers=4, attn_layer_period=2, attn_layer_offset=1)
    config.save_pretrained(tmp_path / "jamba")
    from safetensors.torch import save_file

    tensors = {f"model.layers.{i}.w": torch.ones(2) for i in range(4)}
    save_file(tensors, tmp_path / "jamba" / "model.safetensors")
    source = str(tmp_path / "jamba")
    message = "layer 1 of the merged model would be 'full_attention' .*comes from layer 2, which"
    with pytest.raises(RecipeError, match=message):
        merge(passthrough(source, (0, 1), (2, 4)), tmp_path / "out")
    merge(passthrough(source, (0, 2), (0, 4)), tmp_path / "out")
    assert text_config(tmp_path / "out")["num_hidden_layers"] == 6


@pytest.mark.parametrize("name", ENCODER_DECODER)
def test_slices_of_two_stacks_are_refused(name: str, models: Any, tmp_path: Path) -> None:
    source = models(name)[0]
    with pytest.raises(RecipeError, match="has two, an encoder and a decoder; merge such models"):
        merge(passthrough(source, (0, 2)), tmp_path / "out")
    merge(passthrough(source, (0, 3)), tmp_path / "whole")
    load(name, tmp_path / "whole")


@pytest.mark.parametrize(("name", "tower"), [("llava", "llama"), ("qwen2_vl", "qwen2")])
@pytest.mark.parametrize("method", ["ties", "slerp"])
def test_a_language_model_is_merged_into_the_language_tower(
    name: str, tower: str, method: str, models: Any, tmp_path: Path
) -> None:
    base, language = models(name)[0], models(tower)[1]
    data: dict[str, Any] = {"merge_method": method, "base_model": base}
    if method == "ties":
        data["models"] = weighted(language, density=1.0)
        data["parameters"] = {"normalize": False}
    else:
        data |= {"models": [{"model": base}, {"model": language}], "parameters": {"t": 1}}
    merged = merge(data, tmp_path / "out")
    load(name, tmp_path / "out")
    stored = load_file(Path(base) / "model.safetensors")
    text = load_file(Path(language) / "model.safetensors")
    assert merged.keys() == stored.keys()
    changed = [key for key in merged if not torch.equal(merged[key], stored[key])]
    assert len(changed) == len(text)
    assert not [key for key in changed if "visual" in key or "vision" in key or "projector" in key]
    own = next(key for key in text if key.endswith("layers.2.mlp.up_proj.weight"))
    there = next(key for key in merged if key.endswith("model.layers.2.mlp.up_proj.weight"))
    weight = 1.0 if method == "slerp" else 0.5
    wanted = stored[there] + weight * (text[own] - stored[there])
    assert torch.allclose(merged[there], wanted, atol=1e-6)


def test_experts_that_files_have_one_by_one_are_merged_into_a_tower_that_has_them_stacked(
    models: Any, tmp_path: Path
) -> None:
    base, language = models("qwen3_vl_moe")[0], models("qwen3_moe")[1]
    data = {"merge_method": "slerp", "base_model": base, "parameters": {"t": 1}}
    data["models"] = [{"model": base}, {"model": language}]
    merged = merge(data, tmp_path / "out")
    stored = load_file(Path(base) / "model.safetensors")
    assert {key: each.shape for key, each in merged.items()} == {
        key: each.shape for key, each in stored.items()
    }
    wanted = transformers.AutoModelForCausalLM.from_pretrained(language).state_dict()
    found = load("qwen3_vl_moe", tmp_path / "out").state_dict()
    for key, tensor in wanted.items():
        own = key.replace("model.", "model.language_model.", 1)
        assert torch.allclose(found[own], tensor, atol=1e-6), key
    task = {"merge_method": "linear", "base_model": base, "models": weighted(base, language)}
    half = merge(task, tmp_path / "half")
    for key, tensor in half.items():
        assert torch.allclose(tensor, (stored[key] + merged[key]) / 2, atol=1e-6), key


def test_a_part_of_a_vision_language_model_is_chosen_by_filters(
    models: Any, tmp_path: Path
) -> None:
    base, a, _ = models("llava")
    weight = [{"filter": "language_model", "value": 1}, {"value": 0}]
    data = {
        "merge_method": "task_arithmetic",
        "base_model": base,
        "models": [{"model": a, "parameters": {"weight": weight}}],
    }
    merged = merge(data, tmp_path / "out")
    stored = load_file(Path(base) / "model.safetensors")
    for key, tensor in merged.items():
        assert torch.equal(tensor, stored[key]) != key.startswith("language_model"), key


def test_what_does_not_fit_a_tower_stays_as_it_is(models: Any, tmp_path: Path) -> None:
    base, language = models("llava")[0], models("gpt_neox")[0]
    opened = {name: open_checkpoint(name) for name in (base, language)}
    assert fit_towers(opened) == opened
    with pytest.raises(EvomergeError, match="same tensors with the same shapes"):
        merge({"merge_method": "linear", "models": weighted(base, language)}, tmp_path / "out")
