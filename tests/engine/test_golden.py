"""Every recipe of `tests/golden`, compared with what mergekit 0.1.5 made of it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from evomerge.checkpoints import open_checkpoint
from evomerge.engine import MergePlan, merge_to_disk
from evomerge.errors import EvomergeError
from evomerge.methods import METHODS
from evomerge.recipe import parse_recipe
from tests.engine import reference

# 2e-6, less what the references lost when they were stored
TOLERANCE = 2e-6 - reference.STEP / 2
DIGITS = {"float32": 23, "float16": 10, "bfloat16": 7}

# The reference refuses these, and they work here.
WORKS_HERE = (
    "lora_no_cache",
    "neox_passthrough",
    "neox_slerp_filters",
    "neox_ties",
    "qwen2_passthrough",
    "tok_tokens",
)

# The reference writes something useless for these, and they are refused here.
REFUSED_HERE = {
    "chat_bad_name": "no known template",
    "fail_linear_zero_weights": "sum of the weights, which is 0",
    "tok_none_mismatch_truncate": r"tokenizer: \{source: union\}[^§]*short64 \[64, 32\]",
    "passthrough_reversed_range": r"layer_range \[2, 0\]",
}

# The reference refuses these too.
REFUSED = {
    "della_eps_out_of_range": r"density - epsilon to density \+ epsilon.*0\.9 \+ 0\.2",
    "fail_arch_mix": "same number of layers",
    "fail_layers_differ": "same number of layers: models/llama_a 4, models/llama2_b 2",
    "fail_missing_model": "models/nosuch: no such folder",
    "fail_missing_weight": r"yml:2: models: linear needs the parameter 'weight' .*models/llama_b",
    "fail_model_stock_1": "model_stock takes at least 3 models",
    "fail_models_and_slices": "exactly one of models, slices and modules, got models and slices",
    "fail_passthrough_2": "passthrough takes exactly 1",
    "fail_range_too_long": r"layer_range \[2, 7\] of models/llama_a: the model has 4 layers",
    "fail_slerp_3": "slerp takes exactly 2",
    "fail_slerp_no_base": "slerp needs a base model",
    "fail_ties_no_base": "ties needs a base model",
    "fail_unknown_method": "unknown merge method 'blorp'; did you mean 'slerp'",
    "tok_none_mismatch": r"lm_head.weight: models/llama2_base \[96, 32\], .*short64 \[64, 32\]",
}

# Density 1 draws nothing.
DETERMINISTIC = ("dare_ties_d1", "della_d1")

RANDOM = tuple(
    case
    for case in reference.CASES
    if case.startswith(("dare_", "della_"))
    and case not in REFUSED
    and reference.recipe_data(case)["merge_method"] in METHODS
)
COMPARED = tuple(
    case
    for case in reference.CASES
    if case not in WORKS_HERE
    and case not in REFUSED_HERE
    and case not in REFUSED
    and (case not in RANDOM or case in DETERMINISTIC)
)


def merge(case: str, out: Path) -> tuple[MergePlan, dict[str, torch.Tensor]]:
    plan = merge_to_disk(reference.recipe(case), out, seed=1)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(out.glob("*.safetensors")):
        tensors |= load_file(file)
    return plan, tensors


@pytest.mark.parametrize("case", COMPARED)
def test_equals_the_reference(case: str, tmp_path: Path) -> None:
    plan, merged = merge(case, tmp_path / "out")
    wanted = reference.expected(case)
    information = reference.meta(case)
    if wanted is not None:
        assert set(merged) == set(wanted)
        wanted = in_our_order(case, tmp_path / "out", wanted)
        for name, tensor in wanted.items():
            assert_close(plan, name, merged[name], tensor)
    else:
        plain = ("plain linear merge", "expected-refusal case that merged", "equal to case slerp_t")
        assert any(text in information["tensors_dropped"] for text in plain)
        assert len(merged) == information["tensors"]
    config = json.loads((tmp_path / "out/config.json").read_text())
    # A head of its own is not tied: the reference leaves the flag of a tied base.
    tied = information["config"]["tie_word_embeddings"] and not any("lm_head" in n for n in merged)
    assert {key: config[key] for key in information["config"]} == {
        **information["config"],
        "tie_word_embeddings": tied,
    }


def in_our_order(case: str, out: Path, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return reference tensors with the rows of tokens where our tokenizer has them.

    There, the ids of added tokens vary from run to run.
    """
    file = reference.GOLDEN / "cases" / case / "merged/tokenizer.json"
    if not case.startswith("tok_"):
        return wanted
    theirs = Tokenizer.from_file(str(file)).get_vocab()
    ours = Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab()
    assert theirs.keys() == ours.keys()
    ordered = dict(wanted)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        ordered[name] = wanted[name].clone()
        ordered[name][list(ours.values())] = wanted[name][[theirs[token] for token in ours]]
    return ordered


def assert_close(plan: MergePlan, name: str, merged: torch.Tensor, wanted: torch.Tensor) -> None:
    assert merged.shape == wanted.shape
    output = next(tensor for tensor in plan.outputs if tensor.name == name)
    if output.settings is None:  # an integer buffer, which the reference turns into floats
        assert torch.equal(merged.to(wanted.dtype), wanted)
        return
    assert merged.dtype == wanted.dtype
    difference = (merged.double() - wanted.double()).abs()
    digits = min(DIGITS[plan.out_dtype], DIGITS[plan.compute_dtype or "float32"])
    if digits == DIGITS["float32"]:
        assert difference.max() <= TOLERANCE, name
        return
    # The last place of the largest number that takes part, a task vector included. Where `dtype` is
    # the narrow one, the reference rounds after each of its steps, and two units are its own error.
    sources = [open_checkpoint(model).read(source).double() for model, source in output.inputs]
    largest = wanted.double().abs()
    for source in sources:
        largest = largest.maximum(source.abs()).maximum((source - sources[0]).abs())
    unit = torch.exp2(torch.floor(torch.log2(largest.clamp(min=1e-30))) - digits)
    assert bool((difference <= (2 if plan.compute_dtype else 1) * unit).all()), name


def test_one_rounding_is_nearer_than_the_reference(tmp_path: Path) -> None:
    _, merged = merge("dtype_ta_bf16", tmp_path / "out")
    wanted = reference.expected("dtype_ta_bf16")
    assert wanted is not None
    base, a, b = (open_checkpoint(f"models/llama_{name}") for name in ("base", "a", "b"))
    for name, tensor in merged.items():
        x, y, z = (source.read(name).bfloat16().double() for source in (base, a, b))
        exact = x + 0.6 * (y - x) + 0.5 * (z - x)
        own, theirs = tensor.double() - exact, wanted[name].double() - exact
        half = torch.exp2(torch.floor(torch.log2(exact.abs().clamp(min=1e-30))) - 8)
        assert bool((own.abs() <= half * 1.01 + 1e-7).all()), name
        assert own.abs().mean() <= theirs.abs().mean()


def test_unknown_harmless_key_changes_nothing(tmp_path: Path) -> None:
    data = reference.recipe_data("slerp_embed_slerp_key")
    del data["parameters"]["embed_slerp"]
    merge_to_disk(parse_recipe(data), tmp_path / "plain", seed=0)
    _, merged = merge("slerp_embed_slerp_key", tmp_path / "out")
    plain = load_file(tmp_path / "plain/model.safetensors")
    assert all(torch.equal(merged[name], tensor) for name, tensor in plain.items())


def test_passthrough_copies(tmp_path: Path) -> None:
    _, merged = merge("passthrough_model", tmp_path / "out")
    source = load_file("models/llama_a/model.safetensors")
    assert all(torch.equal(merged[name], tensor) for name, tensor in source.items())


@pytest.mark.parametrize("case", WORKS_HERE)
def test_works_where_the_reference_fails(case: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    plan, merged = merge(case, tmp_path / "out")
    model, information = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not information["missing_keys"]
    assert not information["unexpected_keys"]
    assert model.config.num_hidden_layers == plan.config["num_hidden_layers"]
    if case == "qwen2_passthrough":
        assert len(plan.config["layer_types"]) == 3
        source = open_checkpoint("models/qwen2_b").read("model.layers.1.mlp.up_proj.weight")
        assert torch.equal(merged["model.layers.2.mlp.up_proj.weight"], source)


@pytest.mark.parametrize("case", [*REFUSED, *REFUSED_HERE])
def test_refused_with_one_message(case: str, tmp_path: Path) -> None:
    message = {**REFUSED, **REFUSED_HERE}[case]
    with pytest.raises(EvomergeError, match=message):
        merge(case, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", [case for case in RANDOM if case not in DETERMINISTIC])
def test_random_methods_agree_in_distribution(case: str, tmp_path: Path) -> None:
    _, merged = merge(case, tmp_path / "out")
    base = open_checkpoint("models/llama_base")
    data = reference.recipe_data(case)
    data["merge_method"] = "task_arithmetic"
    data.pop("parameters", None)
    merge_to_disk(parse_recipe(data), tmp_path / "full", seed=1)
    full = load_file(tmp_path / "full/model.safetensors")
    for name, wanted in reference.meta(case)["stats"].items():
        count = wanted["numel"]
        if count < 500:
            continue
        delta = merged[name] - base.read(name)
        untrimmed = full[name] - base.read(name)
        share = float((delta != 0).double().mean())
        # Both shares are means of `count` draws.
        assert abs(share - wanted["nonzero"]) < 4.5 * (2 * 0.25 / count) ** 0.5, name
        # The L1 norm of what is kept is a sum of `count` draws: its relative standard error, times
        # the square root of 2 because the reference drew too, times 5.
        density = data["models"][0]["parameters"]["density"]
        weight = float(untrimmed.norm(2) / untrimmed.norm(1))
        spread = 5 * (2 * (1 - density) / density) ** 0.5 * weight
        for norm, key in ((1, "l1_ratio"), (2, "l2_ratio")):
            ratio = float(delta.norm(norm) / untrimmed.norm(norm))
            error = 1e-5 if wanted[key] == 1.0 else spread
            assert ratio == pytest.approx(wanted[key], rel=error), (name, key)
        if "scale_median" in wanted:
            kept = delta != 0
            factors = (delta[kept] / untrimmed[kept]).double()
            assert float(factors.median()) == pytest.approx(wanted["scale_median"], rel=spread)
            big = untrimmed[kept].abs() > 0.01
            assert float(factors[big].std()) < 1e-4
            order = untrimmed.flatten().abs().argsort()
            for quarter in kept.flatten()[order].chunk(4):
                error = 4.5 * (0.3 * 0.7 * 4 / count) ** 0.5
                assert abs(float(quarter.double().mean()) - 0.3) < error


@pytest.mark.parametrize("case", ["chat_chatml", "chat_custom", "chat_no_tokenizer_key"])
def test_chat_template(case: str, tmp_path: Path) -> None:
    merge(case, tmp_path / "out")
    wanted = (reference.GOLDEN / "cases" / case / "merged/chat_template.jinja").read_text()
    assert (tmp_path / "out/chat_template.jinja").read_text().strip() == wanted.strip()


def test_every_case_is_accounted_for() -> None:
    tables = [COMPARED, WORKS_HERE, tuple(REFUSED_HERE), tuple(REFUSED)]
    tables.append(tuple(case for case in RANDOM if case not in DETERMINISTIC))
    listed = [case for table in tables for case in table]
    assert sorted(listed) == sorted(reference.CASES)
    assert len(reference.CASES) == 137
