"""Recipes in, and every wrong place named."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.documents import Origin
from evomerge.errors import RecipeError
from evomerge.recipe import load_recipe, parse_recipe, without_effect

GOLDEN = Path(__file__).parents[1] / "golden" / "cases"

TIES = """\
merge_method: ties
base_model: base
models:
  - model: a
    parameters: {weight: 0.5, density: [0.2, 0.8]}
  - model: b
    parameters:
      weight: [{filter: mlp, value: 1}, {value: 0.3}]
parameters: {lambda: 1e-1, normalize: true}
dtype: bfloat16
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yml"
    path.write_text(text)
    return path


def ties(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(TIES), **changes}


def test_what_an_anchor_brings_may_be_there_already(tmp_path: Path) -> None:
    anchored = TIES.replace("parameters: {weight: 0.5,", "parameters: &own {weight: 0.5,").replace(
        "      weight: [{", "      <<: *own\n      weight: [{"
    )
    parameters = load_recipe(write(tmp_path, anchored)).to_dict()["models"][1]["parameters"]
    assert parameters["density"] == [0.2, 0.8]
    assert parameters["weight"][0] == {"filter": "mlp", "value": 1}


def test_round_trip(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, TIES))
    assert parse_recipe(recipe.to_dict()) == recipe
    assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe  # noqa: S301
    assert recipe.to_dict()["models"][1]["parameters"]["weight"][0] == {"filter": "mlp", "value": 1}


@pytest.mark.parametrize(
    "name", ["precedence", "modules_syntax", "slices_ties_gradient_nonzero_range", "tok_tokens"]
)
def test_golden_recipes_round_trip(name: str) -> None:
    data = yaml.safe_load((GOLDEN / name / "config.yml").read_text())
    assert parse_recipe(data).to_dict() == data


def test_model_names_in_order_of_appearance() -> None:
    assert parse_recipe(ties()).model_names() == ("base", "a", "b")
    assert parse_recipe(ties(tokenizer_source="c")).model_names() == ("base", "a", "b", "c")
    assert parse_recipe(ties(tokenizer={"source": "union"})).model_names() == ("base", "a", "b")
    tokens = {"x": {"source": "d"}, "y": {"source": {"kind": "model_token", "model": "e"}}}
    recipe = parse_recipe(ties(tokenizer={"source": "c", "tokens": tokens}))
    assert recipe.model_names() == ("base", "a", "b", "c", "d", "e")
    sources = [{"model": "a", "layer_range": [0, 1]}, {"model": "c", "layer_range": [0, 1]}]
    part = {"sources": sources, "base_model": "c", "parameters": {"t": 0.5}}
    recipe = parse_recipe({"merge_method": "slerp", "slices": [part]})
    assert recipe.model_names() == ("c", "a")
    assert recipe.to_dict()["slices"][0]["sources"][0]["layer_range"] == [0, 1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "merge_method",
            "merge_methd",
            r"1: merge_methd: unknown key .* did you mean 'merge_method'",
        ),
        (
            "ties",
            "tiess",
            "recipe.yml:1: merge_method: unknown merge method 'tiess'; did you mean 'ties'",
        ),
        ("- model: b", "- modle: b", r"recipe.yml:6: models\[1\].modle: unknown key"),
        (
            "density:",
            "densty:",
            r"recipe.yml:5: models\[0\].parameters.densty: ties has no parameter",
        ),
        (
            "weight: 0.5",
            "weight: abc",
            r"yml:5: models\[0\].parameters.weight: weight is a number, got 'abc'",
        ),
        (
            "0.8]",
            "1.8]",
            r"recipe.yml:5: models\[0\].parameters.density\[1\]: density is at most 1",
        ),
        ("0.2,", "-0.2,", r"parameters.density\[0\]: density is at least 0, got -0.2"),
        ("[0.2, 0.8]", "[]", "density is an empty list"),
        ("[0.2, 0.8]", "[0.2, {value: 1}]", "either numbers or {filter, value} entries"),
        (
            "filter: mlp",
            "fliter: mlp",
            r"weight\[0\].fliter: unknown key 'fliter'; did you mean 'filter'",
        ),
        (
            "value: 0.3",
            "filter: x",
            r"recipe.yml:8: models\[1\].parameters.weight\[1\]: the key 'value'",
        ),
        ("value: 0.3", "value: {value: 1}", "filters cannot be nested"),
        ("filter: mlp", "filter: 3", "a filter is a part of a tensor name, got 3"),
        ("true", "2", "normalize is true or false, got 2"),
        ("1e-1", ".inf", "lambda is a finite number"),
        ("bfloat16", "bf16", r"recipe.yml:10: dtype: unknown dtype 'bf16'; .*bfloat16"),
        ("base_model: base\n", "", "ties needs a base model"),
        ("- model: a", "- model: 3", r"models\[0\].model: a text is expected, got 3"),
        ("dtype: bfloat16", "modules: {}", "modules: at least one entry is expected"),
        ("- model: b", "- model: b\n    layer_range: [0, 2]", "layer_range belongs to the sources"),
        ("base_model: base", "base_model: {path: base}", "2: base_model: a text is expected"),
        ("dtype: bfloat16", "tokenizer_source: base\ntokenizer: {source: b}", "not both"),
        (
            "dtype: bfloat16",
            "tokenizer: {pad_to_multiple_of: 0}",
            r"10: tokenizer.pad_to_multiple_of: Input should be greater than or equal to 1, got 0",
        ),
        (
            "dtype: bfloat16",
            "tokenizer: {tokens: {x: {sorce: a}}}",
            r"10: tokenizer.tokens.x.sorce: unknown key 'sorce'; did you mean 'source'",
        ),
        (
            "dtype: bfloat16",
            "tokenizer: {tokens: {x: {force: true}}}",
            "tokenizer.tokens.x: the key 'source' is required",
        ),
        (
            "dtype: bfloat16",
            "tokenizer: {tokens: {x: {source: {kind: zero, model: a}}}}",
            "tokenizer.tokens.x.source: zeros come from no model: leave out model",
        ),
        (
            "dtype: bfloat16",
            "tokenizer: {tokens: {x: {source: {kind: model_token}}}}",
            "tokenizer.tokens.x.source: name the model",
        ),
        (
            "dtype: bfloat16",
            "tokenizer: {tokens: {x: {source: {model: a, token: y, token_id: 1}}}}",
            "give token or token_id, not both",
        ),
        ("base_model: base", "base_model: [base", "recipe.yml:3: not valid YAML"),
        (
            "dtype: bfloat16",
            "dtype: bfloat16\nbase_model: c",
            "recipe.yml:11: not valid YAML: the key 'base_model' is there twice, first in line 2",
        ),
        (
            "weight: 0.5,",
            "weight: 0.5, weight: 1,",
            "recipe.yml:5: .*'weight' is there twice",
        ),
    ],
)
def test_bad_recipes(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TIES
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, TIES.replace(old, new, 1)))


def test_lists_of_another_kind_are_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    for models, message in (
        ("{a: 1}", "recipe.yml:2: models: a list is expected"),
        ("[a]", "models[0]: a mapping is expected, with the keys model, parameters, got 'a'"),
        ("[{model: a, parameters: 3}]", "models[0].parameters: a mapping is expected, got 3"),
    ):
        path.write_text(f"merge_method: linear\nmodels: {models}\n")
        with pytest.raises(RecipeError) as raised:
            load_recipe(path)
        assert str(raised.value).endswith(message)
        assert "\n" not in str(raised.value)


def test_empty_parameters_and_long_names_of_models_and_types() -> None:
    """mergekit writes a model as `{model: {path, revision}, lora: …}` where it writes a recipe."""
    revised = {"model": {"path": "org/b", "revision": "v2"}, "lora": {"path": "c"}}
    recipe = parse_recipe(
        {
            "merge_method": "task_arithmetic",
            "base_model": {"model": {"path": "base", "revision": None}},
            "models": [
                {"model": "base", "parameters": None},
                {"model": revised, "parameters": {"weight": 1}},
            ],
            "parameters": None,
            "dtype": "torch.bfloat16",
            "tokenizer": {
                "source": {"model": {"path": "base"}},
                "tokens": {"x": {"source": {"model": {"path": "d"}}}},
            },
        }
    )
    assert recipe.model_names() == ("base", "org/b@v2+c", "d")
    assert recipe.dtype == "bfloat16"
    assert parse_recipe(recipe.to_dict()) == recipe
    long = {"model": revised | {"override_architecture": "X"}, "parameters": {"weight": 1}}
    with pytest.raises(RecipeError, match=r"models\[0\].model: a text is expected"):
        parse_recipe({"merge_method": "linear", "models": [long]})


def test_all_problems_in_one_message() -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe(ties(dtype="x", out_dtype="y"), Origin("space.yml", "", ("recipe",)))
    valid = "(valid: float32, bfloat16, float16, float64)"
    assert str(error.value).splitlines() == [
        f"space.yml: recipe.dtype: unknown dtype 'x'; {valid}",
        f"space.yml: recipe.out_dtype: unknown dtype 'y'; {valid}",
    ]


@pytest.mark.parametrize("data", [None, [], "ties", 3])
def test_no_mapping(data: Any) -> None:
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        parse_recipe(data)


def slices(*sources: dict[str, Any], method: str = "linear", **more: Any) -> dict[str, Any]:
    return {"merge_method": method, "slices": [{"sources": list(sources)}], **more}


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (([0, 2], [0, 3]), r"slices\[0\]: all sources .* 2 of a \[0, 2\], 3 of b \[0, 3\]"),
        (([2, 2], [0, 1]), r"layer_range \[2, 2\] of a"),
        (([-1, 2], [0, 3]), r"layer_range \[-1, 2\] of a"),
    ],
)
def test_layer_ranges(spans: tuple[list[int], ...], message: str) -> None:
    sources = [
        {"model": model, "layer_range": span, "parameters": {"weight": 1}}
        for model, span in zip("ab", spans, strict=True)
    ]
    with pytest.raises(RecipeError, match=message):
        parse_recipe(slices(*sources))


def test_slerp_in_slices_lists_the_base() -> None:
    data = slices({"model": "a"}, method="slerp", base_model="b", parameters={"t": 0.5})
    with pytest.raises(RecipeError, match="list both as sources"):
        parse_recipe(data)


def test_what_is_wrong_with_the_base_of_a_slice_names_the_slice() -> None:
    sources = [{"model": name, "layer_range": [0, 2]} for name in ("a", "b")]
    data = slices(*sources, method="slerp", base_model="a", parameters={"t": 0.5})
    data["slices"].append({"sources": [sources[1], {**sources[1], "model": "c"}]})
    with pytest.raises(RecipeError, match=r"^<dict>: slices\[1\]: slerp combines base_model 'a'"):
        parse_recipe(data)
    data = slices(*sources, method="ties", base_model="base", parameters={"weight": 1})
    data["slices"].append({"sources": [sources[0], {**sources[1], "layer_range": [1, 3]}]})
    with pytest.raises(RecipeError, match=r"^<dict>: slices\[1\]: the sources have different"):
        parse_recipe(data)


def test_base_of_linear_is_one_more_model() -> None:
    models = [{"model": "a", "parameters": {"weight": 1}}]
    data = {"merge_method": "linear", "base_model": "b", "models": models}
    with pytest.raises(RecipeError, match="for b, as base_model one of its models"):
        parse_recipe(data)
    parse_recipe({**data, "parameters": {"weight": 1}})


def test_parameters_of_other_methods_and_ignored_ones_may_stand() -> None:
    recipe = ties(merge_method="task_arithmetic")
    recipe["parameters"]["int8_mask"] = True
    parse_recipe(recipe)


def test_rescale_norm_is_a_choice() -> None:
    data = ties(merge_method="dare_ties")
    parse_recipe({**data, "parameters": {"rescale_norm": "density"}})
    with pytest.raises(RecipeError, match="unknown rescale_norm 'l3'; .*valid: l1, density"):
        parse_recipe({**data, "parameters": {"rescale_norm": "l3"}})


def test_modules() -> None:
    module = {"models": [{"model": "a", "parameters": {"weight": 1}}]}
    recipe = parse_recipe({"merge_method": "linear", "modules": {"default": module}})
    assert recipe.model_names() == ("a",)
    other = {"slices": [{"sources": [{"model": "b"}], "base_model": "c"}]}
    two = {"merge_method": "linear", "modules": {"x": module, "y": other}}
    with pytest.raises(RecipeError, match=r"y.slices\[0\]: linear needs .*'weight'.* for b"):
        parse_recipe(two)
    recipe = parse_recipe({**two, "parameters": {"weight": 1}})
    assert recipe.model_names() == ("a", "c", "b")
    assert parse_recipe(recipe.to_dict()) == recipe
    both = {**module, "slices": [{"sources": [{"model": "a"}]}]}
    with pytest.raises(RecipeError, match=r"modules.x: a module has exactly one"):
        parse_recipe({"merge_method": "linear", "modules": {"x": both}})


def test_parameters_without_effect_are_told() -> None:
    recipe = parse_recipe(
        {
            "merge_method": "linear",
            "models": [{"model": "a", "parameters": {"weight": 1.0}}],
            "parameters": {"int8_mask": True},
        }
    )
    assert without_effect(recipe) == [
        "int8_mask has no effect: masks take no memory here, so there is nothing to save"
    ]
