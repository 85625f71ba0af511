"""The live model: names, dtypes, memory, and what plain transformers computes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from evomerge.errors import EvaluationError
from evomerge.evaluation import (
    EvaluationSettings,
    Evaluator,
    LiveModel,
    TaskSet,
    TaskSettings,
)
from tests.evaluation.conftest import make_checkpoint, make_tokenizer


def config_of(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "config.json").read_text())


def build(checkpoint: Path, **keys: object) -> LiveModel:
    live = LiveModel(config_of(checkpoint), checkpoint, settings=EvaluationSettings(**keys))
    weights = load_file(checkpoint / "model.safetensors")
    live.check_names(weights)
    named = live.parameters_by_name()
    for name, tensor in weights.items():
        named[name].copy_(tensor)
    return live


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_from_pretrained(tmp_path, dtype, tied):
    checkpoint = make_checkpoint(tmp_path, seed=3, tie_word_embeddings=tied)
    live = build(checkpoint, dtype=dtype)
    reference = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
    tokens = torch.arange(4, 44).reshape(2, 20)
    with torch.inference_mode():
        ours, theirs = live.model(tokens).logits, reference(tokens).logits
    assert ours.dtype == getattr(torch, dtype)
    assert torch.equal(ours, theirs)
    assert not live.model.training
    assert not any(parameter.requires_grad for parameter in live.model.parameters())


def test_a_tied_head_needs_no_tensor_of_its_own(tmp_path):
    tied = build(make_checkpoint(tmp_path / "tied", seed=1))
    named = tied.parameters_by_name()
    assert named["lm_head.weight"].data_ptr() == named["model.embed_tokens.weight"].data_ptr()
    free = build(make_checkpoint(tmp_path / "free", seed=1, tie_word_embeddings=False))
    names = [name for name in free.parameters_by_name() if name != "lm_head.weight"]
    with pytest.raises(EvaluationError, match=r"needs the tensor 'lm_head\.weight'"):
        free.check_names(names)
    with pytest.raises(EvaluationError, match=r"has no tensor 'model\.layers\.9'"):
        free.check_names([*free.parameters_by_name(), "model.layers.9"])


def test_dtype_is_float32_on_a_cpu_unless_asked_for(checkpoint_a):
    config = {**config_of(checkpoint_a), "dtype": "bfloat16"}
    live = LiveModel(config, checkpoint_a, settings=EvaluationSettings())
    assert live.dtype == torch.float32
    live = LiveModel(config, checkpoint_a, settings=EvaluationSettings(dtype="float16"))
    assert {tensor.dtype for tensor in live.parameters_by_name().values()} == {torch.float16}


def test_the_generation_config_counts(checkpoint_a):
    live = LiveModel(
        config_of(checkpoint_a),
        checkpoint_a,
        settings=EvaluationSettings(),
        generation_config={"eos_token_id": [2, 7]},
    )
    assert live.model.generation_config.eos_token_id == [2, 7]


def test_experts_have_the_names_of_the_checkpoint(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        initializer_range=0.4,
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    live = build(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(live.parameters_by_name()) == set(file.keys())
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.arange(4, 44).reshape(2, 20)
    with torch.inference_mode():
        assert torch.equal(live.model(tokens).logits, reference(tokens).logits)


def test_prerequisites_are_named(checkpoint_a, tmp_path):
    settings = EvaluationSettings()
    with pytest.raises(EvaluationError, match="model_type 'nosuch'"):
        LiveModel({"model_type": "nosuch"}, checkpoint_a, settings=settings)
    with pytest.raises(EvaluationError, match="no such folder; a tokenizer is needed"):
        LiveModel(config_of(checkpoint_a), tmp_path / "no", settings=settings)
    with pytest.raises(EvaluationError, match="the tokenizer cannot be loaded"):
        LiveModel(config_of(checkpoint_a), tmp_path, settings=settings)


@pytest.mark.parametrize("batch_size", ["auto", 64])
def test_out_of_memory_is_answered_by_a_smaller_batch(checkpoint_a, task_dir, batch_size):
    keys = {"task_dirs": [str(task_dir)], "search_items": 20, "holdout_items": 30}
    settings = EvaluationSettings(batch_size=batch_size, **keys)
    tasks = [TaskSettings(name="choice", metric="acc")]
    live = build(checkpoint_a, batch_size=batch_size, **keys)
    evaluator = Evaluator(TaskSet.load(tasks, settings, seed=0), live)
    expected = evaluator.score("search")

    def full(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = live.model.register_forward_pre_hook(full)
    assert evaluator.score("search") == expected
    assert live.batch_size == 16
    hook.remove()

    def always_full(_module: object, _inputs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    live.model.register_forward_pre_hook(always_full)
    with pytest.raises(EvaluationError, match="ran out of memory with batches of 1;"):
        evaluator.score("search")


def test_what_lm_eval_asserts_is_an_evaluation_error(checkpoint_a, task_dir):
    keys = {"task_dirs": [str(task_dir)], "max_length": 4, "search_items": 2, "holdout_items": 2}
    live = build(checkpoint_a, **keys)
    tasks = [TaskSettings(name="gen", metric="exact_match")]
    evaluator = Evaluator(TaskSet.load(tasks, EvaluationSettings(**keys), seed=0), live)
    with pytest.raises(EvaluationError, match="scoring failed: AssertionError"):
        evaluator.score("search")
