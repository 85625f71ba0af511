"""Planning: structure, numbers, configs, and what is refused."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from evomerge.checkpoints import Checkpoint, open_checkpoint
from evomerge.engine import Bank, materialize, merge_to_disk, plan_merge
from evomerge.errors import CheckpointError, EvaluationError, RecipeError
from evomerge.recipe import parse_recipe
from tests.engine import reference


def make(folder: Path, shapes: dict[str, tuple[int, ...]], **config: Any) -> Checkpoint:
    """Write a checkpoint of random tensors."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: torch.randn(shape) for name, shape in shapes.items()}, folder / "m.safetensors"
    )
    return open_checkpoint(str(folder))


def linear(*names: str, **more: Any) -> dict[str, Any]:
    models = [{"model": name, "parameters": {"weight": 1}} for name in names]
    return {"merge_method": "linear", "models": models, **more}


def plan_of(data: dict[str, Any]) -> Any:
    recipe = parse_recipe(data)
    return plan_merge(recipe, reference.checkpoints(recipe))


def test_layers_of_any_naming_follow_the_slices(tmp_path: Path) -> None:
    names = [
        f"tower.blocks.{i}.{part}.weight" for i in range(3) for part in ("mix", "experts.0.up")
    ]
    shapes = dict.fromkeys(
        [*names, "tower.wte.weight", "tower.final.weight", "out_head.head.weight"]
    )
    checkpoint = make(
        tmp_path / "a",
        dict.fromkeys(shapes, (2, 2)),
        text_config={
            "num_hidden_layers": 3,
            "layer_types": ["x", "y", "z"],
            "sizes": [1, 2, 3],
            "dtype": "float32",
        },
        vision_config={"num_hidden_layers": 3},
    )
    source = {"model": "a", "layer_range": [1, 3]}
    data = {"merge_method": "passthrough", "slices": [{"sources": [source]}] * 2}
    plan = plan_merge(parse_recipe({**data, "dtype": "bfloat16"}), {"a": checkpoint})
    assert [tensor.name for tensor in plan.outputs if "mix" in tensor.name] == [
        f"tower.blocks.{i}.mix.weight" for i in range(4)
    ]
    inputs = {tensor.name: tensor.inputs[0][1] for tensor in plan.outputs}
    assert inputs["tower.blocks.2.experts.0.up.weight"] == "tower.blocks.1.experts.0.up.weight"
    assert plan.config["text_config"] == {
        "num_hidden_layers": 4,
        "layer_types": ["y", "z", "y", "z"],
        "sizes": [1, 2, 3],
        "dtype": "bfloat16",
    }
    assert plan.config["vision_config"] == {"num_hidden_layers": 3}
    assert plan.num_parameters == 4 * (8 + 3)
    assert plan.outputs[0].name == "tower.wte.weight"


def test_layers_beyond_the_count_move_along(tmp_path: Path) -> None:
    shapes = {f"model.layers.{i}.w": (2,) for i in range(3)}
    checkpoint = make(tmp_path / "a", shapes, num_hidden_layers=2)
    source = {"model": "a", "layer_range": [0, 2]}
    data = {"merge_method": "passthrough", "slices": [{"sources": [source]}] * 2}
    plan = plan_merge(parse_recipe(data), {"a": checkpoint})
    assert {t.name: t.inputs[0][1] for t in plan.outputs}["model.layers.4.w"] == "model.layers.2.w"
    assert len(plan.outputs) == 5


def test_different_tensors_give_one_message(tmp_path: Path) -> None:
    shapes = {"model.embed.weight": (4, 2), "model.layers.0.w": (2, 2), "model.layers.0.v": (2,)}
    make(tmp_path / "a", shapes, num_hidden_layers=1)
    other = {"model.embed.weight": (4, 2), "model.layers.0.w": (2, 3), "model.norm.weight": (2,)}
    make(tmp_path / "b", other, num_hidden_layers=1)
    recipe = parse_recipe(linear("a", "b"))
    with pytest.raises(CheckpointError) as error:
        merge_to_disk(recipe, tmp_path / "out", seed=0, folder=tmp_path)
    lines = str(error.value).splitlines()
    assert "these 3 differ" in lines[0]
    text = str(error.value).replace(str(tmp_path), "")
    assert "model.layers.0.w: /a [2, 2], /b [2, 3]" in text
    assert "model.layers.0.v: /a [2], /b has none" in text
    assert "model.norm.weight: /a has none, /b [2]" in text
    assert not (tmp_path / "out").exists()


def test_stacked_models_must_fit_each_other(tmp_path: Path) -> None:
    checkpoints = {
        name: make(tmp_path / name, {"model.layers.0.w": (size,)}, num_hidden_layers=1)
        for name, size in (("a", 2), ("b", 3))
    }
    slices = [{"sources": [{"model": name}]} for name in ("a", "b")]
    recipe = parse_recipe({"merge_method": "passthrough", "slices": slices})
    with pytest.raises(CheckpointError, match=r"model.layers.1.w: .*b \[3\], .*a \[2\]"):
        plan_merge(recipe, checkpoints)


def test_precedence_and_defaults() -> None:
    data = linear("models/llama_a", "models/llama_b", parameters={"normalize": False})
    data["models"][0]["parameters"] = {"weight": [{"filter": "q_proj", "value": [0, 3]}]}
    data["parameters"]["weight"] = 0.25
    plan = plan_of(data)
    weights = {tensor.name: tensor.settings.numbers("weight") for tensor in plan.outputs}
    assert weights["model.layers.2.self_attn.q_proj.weight"] == (2.0, 1.0)
    assert weights["model.norm.weight"] == (0.25, 1.0)
    assert not plan.outputs[0].settings.flag("normalize")
    assert plan_of(linear("models/llama_a")).outputs[0].settings.flag("normalize")


@pytest.mark.parametrize(
    ("level", "name", "wanted"),
    [
        ("model", "weight", [0.25, 0.75, 0.75]),
        ("slice", "weight", [0.25, 0.75, 0.75]),
        ("top", "weight", [0.25, 0.75, 0.75]),
        ("slice", "lambda", [0.75, 0.25, 0.75]),
        ("top", "lambda", [0.75, 0.25, 0.75]),
    ],
)
def test_filters_on_what_each_model_has_see_the_names_in_the_model(
    level: str, name: str, wanted: list[float]
) -> None:
    # What mergekit 0.1.5 was seen to do, wherever the filter stands.
    filters = {name: [{"filter": "layers.1.", "value": 0.25}, {"value": 0.75}]}
    base, other = (
        {"model": f"models/llama_{x}", "layer_range": [1, 4], "parameters": {}}
        for x in ("base", "a")
    )
    part: dict[str, Any] = {"sources": [base, other], "parameters": {}}
    data = {
        "merge_method": "task_arithmetic",
        "base_model": "models/llama_base",
        "slices": [part],
        "parameters": {"weight": 1.0},
    }
    {"model": other, "slice": part, "top": data}[level]["parameters"] |= filters
    settings = {tensor.name: tensor.settings for tensor in plan_of(data).outputs}
    found = [settings[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in range(3)]
    assert [
        each.numbers(name)[0] if name == "weight" else each.number(name) for each in found
    ] == wanted


def test_a_filter_without_match_is_refused_with_the_tensor() -> None:
    data = linear("models/llama_a")
    data["models"][0]["parameters"]["weight"] = [{"filter": "mlp", "value": 1}]
    with pytest.raises(
        RecipeError, match=r"'weight'.*'model.embed_tokens.weight' of models/llama_a"
    ):
        plan_of(data)


def test_dtypes() -> None:
    names = ("models/llama_a", "models/llama_a_bf16")
    assert plan_of(linear(names[1])).out_dtype == "bfloat16"
    assert plan_of(linear(*names)).out_dtype == "float32"
    plan = plan_of(linear(*names, dtype="bfloat16", out_dtype="float16"))
    assert (plan.compute_dtype, plan.out_dtype) == ("bfloat16", "float16")
    assert plan.config["dtype"] == "float16"
    assert plan_of(linear(names[0], dtype="float64")).compute_dtype is None


def test_sources_with_different_ranges_need_the_base_listed() -> None:
    sources = [
        {"model": f"models/llama_{x}", "layer_range": span, "parameters": {"weight": 1}}
        for x, span in (("a", [0, 2]), ("b", [1, 3]))
    ]
    data = {
        "merge_method": "task_arithmetic",
        "base_model": "models/llama_base",
        "slices": [{"sources": sources}],
    }
    with pytest.raises(RecipeError, match="list base_model 'models/llama_base'"):
        plan_of(data)
    sources[1]["layer_range"] = [0, 2]
    inputs = {t.name: t.inputs for t in plan_of(data).outputs}["model.layers.1.mlp.up_proj.weight"]
    assert [model for model, _ in inputs] == [f"models/llama_{x}" for x in ("base", "a", "b")]


def test_rows_stay_as_they_stand_without_a_tokenizer_key(tmp_path: Path) -> None:
    names = ("models/llama2_base", "models/llama2_vb")
    with pytest.raises(CheckpointError, match=r"tokenizer: \{source: union\}"):
        plan_of(linear(*names))
    other = tmp_path / "other"
    shutil.copytree(names[0], other)
    shutil.copyfile(f"{names[1]}/tokenizer.json", other / "tokenizer.json")
    plan = plan_of(linear(names[0], str(other)))
    assert plan.tokenizer.folder == Path(names[0])
    assert all(tensor.rows is None for tensor in plan.outputs)


def test_a_head_of_another_tower_stays_in_a_tied_model(tmp_path: Path) -> None:
    shapes = {
        "model.embed_tokens.weight": (4, 2),
        "model.layers.0.w.weight": (2, 2),
        "vision.head.weight": (3, 2),
        "vision.layers.0.attn.output.weight": (2, 2),
    }
    config = {"num_hidden_layers": 1, "tie_word_embeddings": True}
    opened = {x: make(tmp_path / x, shapes, **config) for x in ("a", "b")}
    for method in ("linear", "passthrough"):
        data = {**linear(*opened), "merge_method": method}
        if method == "passthrough":
            data["models"] = data["models"][:1]
        plan = plan_merge(parse_recipe(data), opened)
        assert {tensor.name for tensor in plan.outputs} == shapes.keys()
        assert plan.config["tie_word_embeddings"]


def test_nan_in_a_source_names_tensor_and_model(tmp_path: Path) -> None:
    broken = open_checkpoint("models/llama_b")
    tensors = {name: broken.read(name) for name in broken.tensors}
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(broken.config)))
    save_file(tensors, folder / "model.safetensors")
    for method in ("linear", "task_arithmetic", "ties", "dare_ties", "slerp"):
        data = reference.simple("ties").to_dict()
        data["merge_method"] = method
        data["models"][1]["model"] = str(folder)
        data["parameters"] = {"t": 0.5, "weight": 1}
        if method == "slerp":
            del data["models"][0]
        recipe = parse_recipe(data)
        checkpoints = reference.checkpoints(recipe)
        plan = plan_merge(recipe, checkpoints)
        out = {tensor.name: torch.empty(tensor.shape) for tensor in plan.outputs}
        message = r"'model.layers.1.mlp.up_proj.weight' of .*broken has 1 values that are NaN"
        with pytest.raises(EvaluationError, match=message):
            materialize(plan, Bank(checkpoints), out, seed=0)
        with pytest.raises(EvaluationError, match=message):
            merge_to_disk(recipe, tmp_path / "out", seed=0)
        assert not (tmp_path / "out").exists()


def test_overflow_names_the_tensor() -> None:
    data = linear("models/llama_a", parameters={"normalize": False}, out_dtype="float16")
    data["models"][0]["parameters"]["weight"] = 1e9
    recipe = parse_recipe(data)
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    out = {tensor.name: torch.empty(tensor.shape) for tensor in plan.outputs}
    with pytest.raises(
        EvaluationError, match=r"'model.embed_tokens.weight' .* float16 cannot hold"
    ):
        materialize(plan, Bank(checkpoints), out, seed=0)


def test_a_live_model_of_another_shape_is_refused() -> None:
    recipe = reference.simple("ties")
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    out = {tensor.name: torch.empty(tensor.shape) for tensor in plan.outputs}
    out["model.norm.weight"] = torch.empty(3)
    del out["lm_head.weight"]
    with pytest.raises(
        CheckpointError, match=r"(?s)lm_head.*has none.*norm.weight: \[3\] for \[32\]"
    ):
        materialize(plan, Bank(checkpoints), out, seed=0)


def test_bank_tells_its_size_and_what_it_lacks() -> None:
    recipe = reference.simple("ties")
    checkpoints = reference.checkpoints(recipe)
    bank = Bank(checkpoints, "cpu")
    assert bank.nbytes == 3 * checkpoints["models/llama_a"].num_bytes
    with pytest.raises(CheckpointError, match="no tensor 'x' of models/llama_a"):
        bank.tensor("models/llama_a", "x")
    with pytest.raises(CheckpointError, match="no open checkpoint for models/llama_b"):
        plan_merge(recipe, {name: checkpoints[name] for name in list(checkpoints)[:2]})


def test_planning_a_candidate_is_cheap() -> None:
    recipe = reference.simple("ties")
    data = recipe.to_dict()
    data["models"][0]["parameters"]["weight"] = [0.1, 0.2, 0.3, 0.4]
    checkpoints = reference.checkpoints(recipe)
    plan_merge(recipe, checkpoints)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        plan_merge(parse_recipe(data), checkpoints)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.01
