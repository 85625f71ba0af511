"""Slices of architectures whose layers hold other tensors in another place."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from evomerge.engine import merge_to_disk
from evomerge.errors import RecipeError
from evomerge.recipe import parse_recipe
from tests.engine.architectures import COMMON, EXPERTS, HEADS, IDS, LAYERS, SIZES

pytestmark = pytest.mark.filterwarnings("ignore")  # those of transformers' model classes

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "modernbert": ("ModernBert", {**SIZES, "cls_token_id": 1, "sep_token_id": 2}),
    "rwkv": ("Rwkv", {**LAYERS, "hidden_size": 16, "vocab_size": 32, **IDS}),
    "neox_japanese": (
        "GPTNeoXJapanese",
        {**COMMON, **LAYERS, "intermediate_multiple_size": 2},
    ),
    "zamba2": (
        "Zamba2",
        {
            **HEADS,
            "layer_types": ["mamba", "hybrid"] * 2,
            "mamba_d_state": 4,
            "n_mamba_heads": 4,
            "mamba_headdim": 8,
            "num_mem_blocks": 1,
            "mamba_ngroups": 1,
            "chunk_size": 8,
            "adapter_rank": 4,
        },
    ),
    "esm": ("Esm", {**COMMON, **LAYERS, "mask_token_id": 3, "max_position_embeddings": 32}),
    "gemma4": (
        "Gemma4Text",
        {
            **HEADS,
            "global_head_dim": 16,
            "hidden_size_per_layer_input": 0,
            "num_kv_shared_layers": 0,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "glm_moe_dsa": (
        "GlmMoeDsa",
        {
            **EXPERTS,
            "num_key_value_heads": 2,
            "n_routed_experts": 2,
            "n_group": 1,
            "topk_group": 1,
            "q_lora_rank": 4,
            "kv_lora_rank": 4,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "index_head_dim": 8,
            "index_n_heads": 2,
            "indexer_types": ["full", "shared", "full", "shared"],
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
    ),
    "xlstm": (
        "xLSTM",
        {**LAYERS, "hidden_size": 16, "num_blocks": 4, "num_heads": 2, "vocab_size": 32},
    ),
    "prophetnet": (
        "ProphetNet",
        {
            "hidden_size": 16,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_encoder_layers": 4,
            "num_decoder_layers": 4,
            "num_encoder_attention_heads": 2,
            "num_decoder_attention_heads": 2,
            "vocab_size": 32,
            "is_encoder_decoder": False,
        },
    ),
    "llama": ("Llama", SIZES),
    "qwen2": ("Qwen2", SIZES),
}


def make(name: str, folder: Path) -> str:
    prefix, settings = KINDS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(**settings)
    transformers.AutoModel.from_config(config).save_pretrained(folder / name)
    return str(folder / name)


def stack(out: Path, *parts: tuple[str, int, int]) -> None:
    slices = [{"sources": [{"model": path, "layer_range": [a, b]}]} for path, a, b in parts]
    merge_to_disk(parse_recipe({"merge_method": "passthrough", "slices": slices}), out, seed=0)


@pytest.mark.parametrize(
    ("name", "good", "bad", "message"),
    [
        ("modernbert", ((0, 3), (2, 4)), ((0, 4), (0, 4)), r"layer 4 .*needs attn_norm.weight"),
        ("modernbert", ((0, 1), (2, 4)), ((1, 4),), r"layer 0 .*has no room for attn_norm.weight"),
        ("rwkv", ((0, 3), (1, 4)), ((0, 2), (0, 4)), r"layer 2 .*has no room for pre_ln.weight"),
        ("neox_japanese", ((0, 2), (0, 4)), ((0, 3),), r"layer 2 .*needs attention.dense_bias"),
        ("zamba2", ((0, 3), (2, 4)), ((0, 1), (2, 4)), r"layer 3 uses tensors of layer 1, which"),
        ("esm", ((0, 2), (1, 3)), ((0, 3),), r"contact_head.*weight of the shape \[1, 6\]"),
    ],
)
def test_a_layer_must_fit_its_place(
    name: str, good: Any, bad: Any, message: str, tmp_path: Path
) -> None:
    path = make(name, tmp_path)
    with pytest.raises(RecipeError, match=message):
        stack(tmp_path / "bad", *((path, *span) for span in bad))
    assert not (tmp_path / "bad").exists()
    stack(tmp_path / "good", *((path, *span) for span in good))
    _, seen = transformers.AutoModel.from_pretrained(tmp_path / "good", output_loading_info=True)
    assert not any(seen.values())


def test_settings_of_single_layers_follow(tmp_path: Path) -> None:
    path = make("gemma4", tmp_path)
    stack(tmp_path / "out", (path, 1, 3), (path, 1, 4))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["per_layer_config"] == {str(i): {"head_dim": 16} for i in (0, 2, 4)}
    _, seen = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(seen.values())


@pytest.mark.parametrize(
    ("name", "key", "wanted"),
    [
        ("glm_moe_dsa", "indexer_types", ["full", "full", "shared", "full", "shared"]),
        ("xlstm", "num_blocks", 5),
    ],
)
def test_what_a_config_says_of_layers_follows(
    name: str, key: str, wanted: Any, tmp_path: Path
) -> None:
    path = make(name, tmp_path)
    stack(tmp_path / "out", (path, 0, 1), (path, 2, 4), (path, 2, 4))
    assert json.loads((tmp_path / "out" / "config.json").read_text())[key] == wanted
    _, seen = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(seen.values())


def test_a_decoder_whose_config_counts_the_layers_of_both_stacks_is_refused(tmp_path: Path) -> None:
    path = make("prophetnet", tmp_path)
    with pytest.raises(RecipeError, match="has two, an encoder and a decoder"):
        stack(tmp_path / "out", (path, 0, 3))


def test_layers_of_another_architecture_are_refused_if_a_tensor_would_be_lost(
    tmp_path: Path,
) -> None:
    llama, qwen = make("llama", tmp_path), make("qwen2", tmp_path)
    with pytest.raises(RecipeError, match=r"layer 2 .*has no room for self_attn.q_proj.bias"):
        stack(tmp_path / "out", (llama, 0, 2), (qwen, 2, 4))


def test_architectures_that_transformers_does_not_know_are_not_checked(tmp_path: Path) -> None:
    path = Path(make("modernbert", tmp_path))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "model_type": "nobody_knows"}))
    stack(tmp_path / "out", (str(path), 1, 4))
    assert "layers.0.attn_norm.weight" in load_file(tmp_path / "out" / "model.safetensors")
