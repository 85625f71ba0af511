"""Tiny models of many architectures, made by transformers from configs."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

__all__ = ["CAUSAL", "ENCODER_DECODER", "VISION", "load", "made_on_demand", "make"]

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
COMMON: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "vocab_size": 32,
    **IDS,
}
LAYERS = {"num_hidden_layers": 4}
SIZES: dict[str, Any] = {**COMMON, **LAYERS, "num_key_value_heads": 1}
HEADS: dict[str, Any] = {**SIZES, "head_dim": 8}
EXPERTS: dict[str, Any] = {
    **HEADS,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 8,
}
VIT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
QWEN_IMAGES = {
    "image_token_id": 5,
    "video_token_id": 6,
    "vision_start_token_id": 7,
    "vision_end_token_id": 8,
}

CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SIZES),
    "qwen2": (
        "Qwen2",
        {**SIZES, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    ),
    "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "mlp_only_layers": [1]}),
    "qwen3_moe_steps": ("Qwen3Moe", {**EXPERTS, "decoder_sparse_step": 2}),
    "qwen3_next": (
        "Qwen3Next",
        {
            **EXPERTS,
            "shared_expert_intermediate_size": 8,
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 4,
            "linear_value_head_dim": 4,
        },
    ),
    "ernie4_5_moe": (
        "Ernie4_5_Moe",
        {
            **SIZES,
            "moe_num_experts": 2,
            "moe_k": 1,
            "moe_intermediate_size": 8,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 0,
        },
    ),
    "mixtral": ("Mixtral", {**SIZES, "num_local_experts": 2}),
    "gpt_oss": ("GptOss", {**HEADS, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "deepseek_v3": (
        "DeepseekV3",
        {
            **SIZES,
            "num_key_value_heads": 2,
            "n_routed_experts": 2,
            "num_experts_per_tok": 1,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 8,
            "q_lora_rank": 4,
            "kv_lora_rank": 4,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "first_k_dense_replace": 2,
        },
    ),
    "llama4_text": (
        "Llama4Text",
        {
            **HEADS,
            "intermediate_size_mlp": 24,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 2,
            "no_rope_layer_interval": 2,
        },
    ),
    "gemma2": ("Gemma2", HEADS),
    "gemma3_text": ("Gemma3Text", {**HEADS, "sliding_window_pattern": 2}),
    "smollm3": ("SmolLM3", {**SIZES, "no_rope_layer_interval": 2}),
    "lfm2": ("Lfm2", {**SIZES, "full_attn_idxs": [1, 3], "block_auto_adjust_ff_dim": False}),
    "gpt_neox": ("GPTNeoX", {**COMMON, **LAYERS}),
    "gpt_neo": (
        "GPTNeo",
        {
            "hidden_size": 16,
            "num_layers": 4,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 2]],
            "vocab_size": 32,
            "max_position_embeddings": 16,
            "window_size": 8,
            **IDS,
        },
    ),
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 4, "n_head": 2, "vocab_size": 32, **IDS}),
    "opt": ("OPT", {**COMMON, **LAYERS, "ffn_dim": 24, "word_embed_proj_dim": 16}),
    "bloom": ("Bloom", {"hidden_size": 16, "n_head": 2, "n_layer": 4, "vocab_size": 32, **IDS}),
    "ctrl": ("CTRL", {"n_embd": 16, "dff": 24, "n_layer": 4, "n_head": 2, "vocab_size": 32, **IDS}),
    "falcon_h1": (
        "FalconH1",
        {
            **HEADS,
            "mamba_d_ssm": 32,
            "mamba_d_state": 4,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_chunk_size": 8,
        },
    ),
    "nemotron_h": (
        "NemotronH",
        {
            **{key: value for key, value in HEADS.items() if key != "num_hidden_layers"},
            "layers_block_type": ["mamba", "moe", "attention", "mlp"],
            "ssm_state_size": 4,
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "n_groups": 1,
            "chunk_size": 8,
            "n_routed_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 8,
            "moe_shared_expert_intermediate_size": 8,
        },
    ),
    "mamba": ("Mamba", {**LAYERS, "hidden_size": 16, "vocab_size": 32, "state_size": 4, **IDS}),
}
ENCODER_DECODER: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": (
        "T5",
        {
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 24,
            "num_layers": 3,
            "num_decoder_layers": 3,
            "num_heads": 2,
            "vocab_size": 32,
            "decoder_start_token_id": 0,
            "pad_token_id": 0,
            "eos_token_id": 2,
        },
    ),
    "led": (
        "LED",
        {
            "d_model": 16,
            "encoder_layers": 3,
            "decoder_layers": 3,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "attention_window": [4, 4, 4],
            "max_encoder_position_embeddings": 16,
            "max_decoder_position_embeddings": 16,
            "vocab_size": 32,
            "decoder_start_token_id": 2,
            **IDS,
        },
    ),
}
VISION: dict[str, tuple[str, dict[str, Any]]] = {
    "llava": (
        "Llava",
        {
            "vision_config": {"model_type": "clip_vision_model", **VIT},
            "text_config": {"model_type": "llama", **SIZES},
            "image_token_index": 5,
        },
    ),
    "qwen2_vl": (
        "Qwen2VL",
        {
            "vision_config": {
                "depth": 4,
                "embed_dim": 16,
                "hidden_size": 16,
                "num_heads": 2,
                "patch_size": 4,
                "mlp_ratio": 2,
            },
            "text_config": {**SIZES, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
            **QWEN_IMAGES,
        },
    ),
    "qwen3_vl_moe": (
        "Qwen3VLMoe",
        {
            "vision_config": {
                "depth": 2,
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_heads": 2,
                "out_hidden_size": 16,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            "text_config": {
                **EXPERTS,
                "num_local_experts": 2,
                "mlp_only_layers": [1],
                "rope_scaling": {"rope_type": "default", "mrope_section": [1, 1, 2]},
            },
            **QWEN_IMAGES,
        },
    ),
    "gemma3": (
        "Gemma3",
        {
            "vision_config": {**VIT, "patch_size": 4},
            "text_config": HEADS,
            "mm_tokens_per_image": 4,
            "image_token_index": 5,
            "boi_token_index": 6,
            "eoi_token_index": 7,
        },
    ),
}
KINDS: tuple[tuple[dict[str, Any], str], ...] = (
    (CAUSAL, "AutoModelForCausalLM"),
    (ENCODER_DECODER, "AutoModelForSeq2SeqLM"),
    (VISION, "AutoModelForImageTextToText"),
)


def _class(name: str) -> Any:
    return getattr(transformers, next(kind for known, kind in KINDS if name in known))


def made_on_demand(folder: Path, count: int) -> Callable[[str], tuple[str, ...]]:
    """Return what gives the paths of some models of an architecture, made when first asked for."""

    @functools.cache
    def paths(name: str) -> tuple[str, ...]:
        return tuple(make(name, folder, seed) for seed in range(count))

    return paths


def make(name: str, folder: Path, seed: int) -> str:
    """Write a random model of an architecture; return its path."""
    every = {**CAUSAL, **ENCODER_DECODER, **VISION}
    prefix, settings = every[name]
    config: Callable[..., Any] = getattr(transformers, f"{prefix}Config")
    torch.manual_seed(seed)
    model = _class(name).from_config(config(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    path = folder / f"{name}_{seed}"
    model.save_pretrained(path)
    return str(path)


def load(name: str, path: Path) -> Any:
    """Load a model, with no key missing or too many, and run it once."""
    model, information = _class(name).from_pretrained(path, output_loading_info=True)
    assert not {key: value for key, value in information.items() if value}
    ids = torch.tensor([[1, 3, 9, 4]])
    more = {"decoder_input_ids": ids} if name in ENCODER_DECODER else {}
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, **more).logits
    assert bool(torch.isfinite(logits).all())
    return model
