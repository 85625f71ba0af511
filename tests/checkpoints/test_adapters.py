"""Models with LoRA adapters, compared with numbers worked out here and with peft."""

import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.checkpoints import Checkpoint, locate, open_checkpoint
from evomerge.errors import CheckpointError

MODELS = Path(__file__).parents[1] / "golden" / "models"
Q = "model.layers.0.self_attn.q_proj"
P = "base_model.model."

Tensors = dict[str, torch.Tensor]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def base(folder: Path, dtype: torch.dtype = torch.float32, **config: Any) -> Tensors:
    tensors = {
        "model.embed_tokens.weight": random(7, 4),
        f"{Q}.weight": random(6, 4),
        f"{Q}.bias": random(6),
        "model.norm.weight": random(4),
    }
    if not config.get("tie_word_embeddings"):
        tensors["lm_head.weight"] = random(7, 4, seed=5)
    return write(
        folder,
        {name: tensor.to(dtype) for name, tensor in tensors.items()},
        {"num_hidden_layers": 1, "vocab_size": 7, **config},
        "model.safetensors",
        "config.json",
    )


def write(folder: Path, tensors: Tensors, config: dict[str, Any], *names: str) -> Tensors:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / names[0])
    (folder / names[1]).write_text(json.dumps(config))
    return tensors


def adapter(folder: Path, tensors: Tensors, **config: Any) -> None:
    data = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, **config}
    write(folder, tensors, data, "adapter_model.safetensors", "adapter_config.json")


def pair(target: str = Q, outputs: int = 6, inputs: int = 4, rank: int = 2) -> Tensors:
    return {
        f"{P}{target}.lora_A.weight": random(rank, inputs),
        f"{P}{target}.lora_B.weight": random(outputs, rank),
    }


def product(tensors: Tensors) -> torch.Tensor:
    a, b = (tensors[name].double() for name in sorted(tensors) if "lora_" in name)
    return b @ a


def opened(tmp_path: Path) -> Checkpoint:
    return open_checkpoint(f"{tmp_path / 'base'}+{tmp_path / 'lora'}")


def test_scaling(tmp_path: Path) -> None:
    weights = base(tmp_path / "base")
    thin = pair()
    for config, scale in (
        ({}, 6 / 2),
        ({"r": 64}, 6 / 2),  # the rank is that of the tensors
        ({"use_rslora": True}, 6 / math.sqrt(2)),
        ({"alpha_pattern": {"q_proj": 5}}, 5 / 2),
        ({"alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 5}}, 5 / 2),
        ({"alpha_pattern": {"proj": 5}}, 6 / 2),
        ({"lora_alpha": 0}, 0),
    ):
        adapter(tmp_path / "lora", thin, **config)
        model = opened(tmp_path)
        wanted = weights[f"{Q}.weight"].double() + scale * product(thin)
        assert torch.equal(model.read(f"{Q}.weight"), wanted.float()), config
        for name in set(weights) - {f"{Q}.weight"}:
            assert torch.equal(model.read(name), weights[name])
        for name in weights:
            model.fetch(name)
            assert torch.equal(model.mapped(name), model.read(name))
        assert model.tensors.keys() == weights.keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_rounding_to_the_type_of_the_base(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = base(tmp_path / "base", dtype)
    thin = pair()
    adapter(tmp_path / "lora", thin)
    merged = opened(tmp_path).read(f"{Q}.weight")
    wanted = (weights[f"{Q}.weight"].double() + 3 * product(thin)).float().to(dtype)
    assert merged.dtype == dtype
    assert torch.equal(merged, wanted)


def test_large_weights_are_changed_in_parts(tmp_path: Path, monkeypatch: Any) -> None:
    base(tmp_path / "base")
    adapter(tmp_path / "lora", pair(), use_dora=False)
    whole = opened(tmp_path).read(f"{Q}.weight")
    monkeypatch.setattr("evomerge.checkpoints.lora._ROWS", 8)
    assert torch.equal(opened(tmp_path).read(f"{Q}.weight"), whole)


def test_dora_gives_every_output_its_length(tmp_path: Path) -> None:
    base(tmp_path / "base")
    lengths = torch.arange(1.0, 7.0)
    stored = {**pair(), f"{P}{Q}.lora_magnitude_vector": lengths}
    adapter(tmp_path / "lora", stored, use_dora=True)
    merged = opened(tmp_path).read(f"{Q}.weight")
    assert torch.allclose(merged.norm(dim=1), lengths, atol=1e-6)


def test_biases_saved_modules_and_token_rows(tmp_path: Path) -> None:
    weights = base(tmp_path / "base")
    stored = {
        **pair(),
        f"{P}{Q}.lora_B.bias": torch.arange(6.0),
        f"{P}lm_head.modules_to_save.weight": torch.ones(7, 4),
        f"{P}model.norm.weight": torch.full((4,), 2.0),
        f"{P}model.embed_tokens.token_adapter.trainable_tokens_delta": torch.zeros(2, 4),
    }
    adapter(tmp_path / "lora", stored, trainable_token_indices={"embed_tokens": [5, 1]})
    model = opened(tmp_path)
    assert torch.allclose(model.read(f"{Q}.bias"), weights[f"{Q}.bias"] + 3 * torch.arange(6.0))
    assert torch.equal(model.read("lm_head.weight"), torch.ones(7, 4))
    assert torch.equal(model.read("model.norm.weight"), torch.full((4,), 2.0))
    embedding = weights["model.embed_tokens.weight"].clone()
    embedding[[1, 5]] = 0
    assert torch.equal(model.read("model.embed_tokens.weight"), embedding)


def test_a_longer_vocabulary_changes_the_config(tmp_path: Path) -> None:
    base(tmp_path / "base", tie_word_embeddings=True)
    adapter(tmp_path / "lora", {f"{P}model.embed_tokens.weight": torch.ones(9, 4)})
    model = opened(tmp_path)
    assert model.config["vocab_size"] == 9
    assert model.tensors["model.embed_tokens.weight"].shape == (9, 4)
    assert model.read("model.embed_tokens.weight").shape == (9, 4)
    assert model.num_parameters == open_checkpoint(str(tmp_path / "base")).num_parameters + 8
    assert model.tied


@pytest.mark.parametrize("part", ["embed_tokens", "lm_head"])
def test_a_change_of_one_of_a_tied_pair_unties_them(tmp_path: Path, part: str) -> None:
    weights = base(tmp_path / "base", tie_word_embeddings=True)
    embedding = weights["model.embed_tokens.weight"]
    if part == "lm_head":
        thin = pair("lm_head", 7)
        changed, kept = "lm_head.weight", "model.embed_tokens.weight"
    else:
        thin = {
            f"{P}model.embed_tokens.lora_embedding_A": random(2, 7),
            f"{P}model.embed_tokens.lora_embedding_B": random(4, 2),
        }
        changed, kept = "model.embed_tokens.weight", "lm_head.weight"
    adapter(tmp_path / "lora", thin)
    model = opened(tmp_path)
    assert not model.tied
    assert not model.config["tie_word_embeddings"]
    assert torch.equal(model.read(kept), embedding)
    delta = product(thin) if part == "lm_head" else product(thin).T
    assert torch.equal(model.read(changed), (embedding.double() + 3 * delta).float())


def test_names_that_a_checkpoint_writes_otherwise(tmp_path: Path) -> None:
    names = [
        f"{tower}.layers.{i}.self_attn.q_proj"
        for tower in ("language_model.model", "vision_tower.encoder")
        for i in (0, 1)
    ]
    tensors = {f"{name}.weight": random(6, 4) for name in names}
    config = {"text_config": {"num_hidden_layers": 2}}
    write(tmp_path / "base", tensors, config, "model.safetensors", "config.json")
    adapter(tmp_path / "lora", pair("model.language_model.layers.1.self_attn.q_proj"))
    model = opened(tmp_path)
    assert model.changed == ("language_model.model.layers.1.self_attn.q_proj.weight",)
    adapter(tmp_path / "lora", pair("model.layers.1.self_attn.q_proj"))
    assert opened(tmp_path).changed == ("language_model.model.layers.1.self_attn.q_proj.weight",)
    adapter(tmp_path / "lora", pair("layers.1.self_attn.q_proj"))
    with pytest.raises(CheckpointError, match=r"layers.1.self_attn.q_proj.weight: .* no such"):
        opened(tmp_path)


def test_fingerprints_follow_base_adapter_and_scaling(tmp_path: Path) -> None:
    base(tmp_path / "base")
    adapter(tmp_path / "lora", pair())
    first = opened(tmp_path)
    assert pickle.loads(pickle.dumps(first)).fingerprint() == first.fingerprint()  # noqa: S301
    copied = shutil.copytree(tmp_path / "lora", tmp_path / "copied")
    moved = open_checkpoint(f"{tmp_path / 'base'}+{copied}")
    assert moved.fingerprint() == first.fingerprint()
    found = {first.fingerprint(), first.base.fingerprint()}  # type: ignore[attr-defined]
    adapter(tmp_path / "lora", pair(), lora_alpha=7)
    found.add(opened(tmp_path).fingerprint())
    adapter(tmp_path / "lora", {name: tensor + 1 for name, tensor in pair().items()})
    found.add(opened(tmp_path).fingerprint())
    base(tmp_path / "base", torch.float16)
    found.add(opened(tmp_path).fingerprint())
    assert len(found) == 5


def test_adapters_on_adapters_and_plus_signs_in_names(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b").mkdir()
    weights = base(tmp_path / "a+b" / "c+d")
    adapter(tmp_path / "x+y", pair())
    beside = tmp_path / "a+b"
    assert locate("c+d+../x+y", beside) == f"{beside}/c+d+{beside}/../x+y"
    assert locate("org/model@main+org/lora", beside) == "org/model@main+org/lora"
    model = open_checkpoint("a+b/c+d+x+y+x+y")
    wanted = weights[f"{Q}.weight"].double() + 3 * product(pair())
    wanted = wanted.float().double() + 3 * product(pair())
    assert torch.equal(model.read(f"{Q}.weight"), wanted.float())


@pytest.mark.parametrize(
    ("stored", "config", "message"),
    [
        (pair(), {"peft_type": "LOHA"}, "of type LOHA, expected LORA"),
        (pair(), {"layer_replication": [[0, 1]]}, "with layer_replication, which"),
        (
            pair("model.layers.0.experts"),
            {"target_parameters": ["experts.up"]},
            r"(?s)does not fit.*experts: A \[2, 4\] and B \[6, 2\] fit none of up$",
        ),
        (pair(), {"init_lora_weights": "pissa_niter_4"}, "began with 'pissa_niter_4'"),
        ({f"{P}{Q}.lora_C.weight": random(1)}, {}, "lora_C.weight' is of an unknown kind"),
        ({f"{P}{Q}.lora_A.weight": random(2, 4)}, {}, "no lora_B.weight beside it"),
        (pair(outputs=5), {}, r"(?s)does not fit.*\[6, 4\], the adapter's A is \[2, 4\] and its"),
        (pair(Q.replace("q_", "z_")), {}, r"(?s)does not fit.*z_proj.weight: the model has no"),
        ({f"{P}model.norm.weight": random(5)}, {}, r"norm.weight: \[4\], the adapter's is \[5\]"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, stored: Tensors, config: dict[str, Any], message: str
) -> None:
    base(tmp_path / "base")
    adapter(tmp_path / "lora", stored, **config)
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path)


def test_missing_and_mistaken_parts(tmp_path: Path) -> None:
    base(tmp_path / "base")
    adapter(tmp_path / "lora", pair())
    folder = tmp_path / "lora"
    with pytest.raises(CheckpointError, match=r"lora: this is an adapter and .* MODEL\+"):
        open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match="no adapter: adapter_config.json is missing"):
        open_checkpoint(f"{folder.parent / 'base'}+{folder.parent / 'base'}")
    with pytest.raises(CheckpointError, match="nosuch: no such folder"):
        open_checkpoint(f"{tmp_path / 'base'}+{tmp_path / 'nosuch'}")
    with pytest.raises(CheckpointError, match=r"is written model\+adapter"):
        open_checkpoint(f"{tmp_path / 'base'}+")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"is missing.*\(there is adapter_model.bin: conv"):
        opened(tmp_path)


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    packed = {f"{Q}.weight": torch.zeros(6, 4, dtype=torch.uint8)}
    write(tmp_path / "base", packed, {}, "model.safetensors", "config.json")
    adapter(tmp_path / "lora", pair())
    with pytest.raises(CheckpointError, match="of type uint8, a quantized model"):
        opened(tmp_path)


PEFT_CASES: dict[str, dict[str, Any]] = {
    "rslora": {"target_modules": ["q_proj", "down_proj"], "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 4, "layers.1.self_attn.q_proj": 1},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 5},
    },
    "dora": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "embedding": {"target_modules": ["embed_tokens", "lm_head"]},
    "saved": {"target_modules": ["up_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    "biases": {"target_modules": ["q_proj"], "bias": "all"},
    "own_biases": {"target_modules": ["q_proj"], "bias": "lora_only"},
    "lora_bias": {"target_modules": ["q_proj"], "lora_bias": True},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 9]},
    "everything": {"target_modules": "all-linear"},
    "conv1d": {"target_modules": ["c_attn", "c_proj", "c_fc", "lm_head"]},
    "conv1d_dora": {"target_modules": ["c_attn", "c_proj"], "use_dora": True},
}


def check_merged(folder: Path) -> None:
    """Assert that base and adapter are what peft wrote as their merge, and something changed."""
    wanted = load_file(folder / "merged/model.safetensors")
    found = open_checkpoint(f"{folder / 'base'}+{folder / 'lora'}")
    assert found.tensors.keys() == wanted.keys()
    before = load_file(folder / "base/model.safetensors")
    changed = 0
    for name, tensor in wanted.items():
        assert torch.allclose(found.read(name), tensor, atol=2e-6, rtol=1e-6), name
        changed += not torch.equal(tensor, before[name])
    assert changed == len(found.changed) > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", PEFT_CASES)
@pytest.mark.filterwarnings("ignore")
def test_equals_what_peft_merges(case: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "tie_word_embeddings": False}
    if case.startswith("conv1d"):
        config: Any = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=8, **sizes)
    else:
        sizes |= {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2}
        config = LlamaConfig(num_attention_heads=2, attention_bias=True, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, **PEFT_CASES[case])
    trained = peft.get_peft_model(model, lora)
    for name, parameter in trained.named_parameters():
        if parameter.requires_grad and "lora_" not in name:
            parameter.data += torch.randn_like(parameter)
    trained.save_pretrained(tmp_path / "lora")
    trained.merge_and_unload().save_pretrained(tmp_path / "merged")
    check_merged(tmp_path)


EXPERTS = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 2,
    "vocab_size": 30,
    "num_experts_per_tok": 1,
}
QWEN = {"num_experts": 3, "moe_intermediate_size": 12, "intermediate_size": 20}
BOTH = ["experts.gate_up_proj", "experts.down_proj"]
EXPERT_CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "stacked": ("GptOss", {"num_local_experts": 3, "intermediate_size": 12}, {}),
    "square": ("GptOss", {"num_local_experts": 3, "intermediate_size": 16}, {}),
    "apart": ("Qwen3Moe", QWEN, {"target_modules": ["q_proj"], "use_rslora": True}),
    "square_apart": ("Qwen3Moe", {**QWEN, "moe_intermediate_size": 16}, {}),
    "one": ("Qwen3Moe", QWEN, {"target_parameters": ["1.mlp.experts.down_proj"]}),
    "patterns": (
        "Qwen3Moe",
        QWEN,
        {
            "rank_pattern": {"experts.down_proj": 4},
            "alpha_pattern": {"layers.1.mlp.experts.gate_up_proj": 5},
        },
    ),
    "matrix": ("Qwen3Moe", QWEN, {"target_parameters": ["mlp.gate.weight", *BOTH]}),
    "other_names": ("Mixtral", {"num_local_experts": 3, "intermediate_size": 12}, {}),
    "llama4": (
        "Llama4Text",
        {"num_local_experts": 3, "intermediate_size": 12, "intermediate_size_mlp": 20},
        {},
    ),
}


def test_experts_whose_sizes_leave_their_order_open_are_refused(tmp_path: Path) -> None:
    module = "model.layers.0.mlp.experts"
    tensors = {f"{module}.{name}_proj": random(3, 4, 4) for name in ("gate_up", "down")}
    write(tmp_path / "base", tensors, {}, "model.safetensors", "config.json")
    adapter(tmp_path / "lora", pair(module, 4, 4, 6), target_parameters=[BOTH[1]])
    with pytest.raises(CheckpointError, match="leave open which way round they are added to one"):
        opened(tmp_path)


def test_experts_of_a_quantized_model_are_refused(tmp_path: Path) -> None:
    module = "model.layers.0.mlp.experts"
    packed = {f"{module}.down_proj_blocks": torch.zeros(3, 4, dtype=torch.uint8)}
    config = {"quantization_config": {"quant_method": "mxfp4"}}
    write(tmp_path / "base", packed, config, "model.safetensors", "config.json")
    adapter(tmp_path / "lora", pair(module, 4, 4, 6), target_parameters=[BOTH[1]])
    with pytest.raises(CheckpointError, match=r"base: its weights are quantized \(mxfp4\)"):
        opened(tmp_path)


@pytest.mark.parametrize("case", EXPERT_CASES)
@pytest.mark.filterwarnings("ignore")
def test_experts_equal_what_peft_merges(case: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import transformers

    torch.manual_seed(0)
    prefix, sizes, settings = EXPERT_CASES[case]
    config = getattr(transformers, f"{prefix}Config")(**EXPERTS, **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    targets = {"target_modules": [], "target_parameters": BOTH, **settings}
    lora = peft.LoraConfig(r=2, lora_alpha=3, lora_dropout=0.0, init_lora_weights=False, **targets)
    trained = peft.get_peft_model(model, lora)
    trained.save_pretrained(tmp_path / "lora")
    trained.merge_and_unload().save_pretrained(tmp_path / "merged")
    check_merged(tmp_path)
