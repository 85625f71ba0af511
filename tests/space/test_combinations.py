"""Names, anchors, filters, logs, integers, choices and signs together."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evomerge.engine import merge_to_disk
from evomerge.space import parse_space
from tests.conftest import ROOT

MODELS = ROOT / "tests" / "golden" / "models"
TASKS = [{"name": "a", "metric": "acc"}]


def space_of(text, **top):
    return parse_space({"recipe": yaml.safe_load(text), "tasks": TASKS, **top})


def merged(recipe, out):
    merge_to_disk(recipe, out, seed=0)
    return load_file(out / "model.safetensors")


def test_one_gradient_by_name_in_models_and_filters():
    space = space_of("""
    merge_method: ties
    base_model: m/base
    models:
      - model: m/math
        parameters:
          weight:
            - {filter: mlp, value: {search: [0, 1], layers: 3, name: heavy}}
            - {value: {search: [0, 2], layers: 2}}
      - model: m/code
        parameters:
          weight:
            - {filter: self_attn, value: {search: [0, 1], layers: 3, name: heavy}}
            - {filter: "*", value: 0.5}
    """)
    names = [d.name for d in space.dimensions]
    assert names == ["heavy[0]", "heavy[1]", "heavy[2]", "math.weight[0]", "math.weight[1]"]
    math, code = space.decode(space.from_unit([0.1, 0.2, 0.3, 0.4, 0.5])).models
    heavy = pytest.approx([0.1, 0.2, 0.3])
    assert math.parameters["weight"] == [
        {"filter": "mlp", "value": heavy},
        {"value": pytest.approx([0.8, 1.0])},
    ]
    assert code.parameters["weight"] == [
        {"filter": "self_attn", "value": heavy},
        {"filter": "*", "value": 0.5},
    ]


def test_yaml_aliases_stand_for_themselves_at_each_place():
    space = space_of("""
    merge_method: linear
    models:
      - {model: m/math, parameters: &own {weight: {search: [0, 1]}}}
      - {model: m/code, parameters: *own}
    """)
    assert [d.name for d in space.dimensions] == ["math.weight", "code.weight"]
    recipe = space.decode(space.from_unit([0.25, 0.75]))
    assert [model.parameters["weight"] for model in recipe.models] == [0.25, 0.75]


def test_logarithms_of_whole_numbers():
    space = space_of("""
    merge_method: karcher
    models: [{model: m/math}, {model: m/code}]
    parameters: {max_iter: {search: [1, 64], int: true, log: true}}
    """)
    values = [space.decode(space.from_unit([u / 100])).parameters["max_iter"] for u in range(101)]
    assert values == sorted(values)
    assert all(type(value) is int for value in values)
    assert (values[0], values[50], values[-1]) == (1, 8, 64)
    (dimension,) = space.dimensions
    assert all(dimension.from_unit(dimension.to_unit(value)) == value for value in range(1, 65))


def test_choices_of_mappings_and_lists():
    space = space_of(
        """
    merge_method: slerp
    base_model: m/base
    models: [{model: m/math}]
    parameters:
      t:
        choice:
          - 0.5
          - [0.0, 1.0]
          - [{filter: mlp, value: 0.2}, {value: {choice: 1}}]
    """.replace("{value: {choice: 1}}", "{value: 0.7}")
    )
    (dimension,) = space.dimensions
    assert dimension.choices == (0.5, "[0.0, 1.0]", "[{filter: mlp, value: 0.2}, {value: 0.7}]")
    recipes = [space.decode({"t": label}) for label in dimension.choices]
    assert [recipe.parameters["t"] for recipe in recipes] == [
        0.5,
        [0.0, 1.0],
        [{"filter": "mlp", "value": 0.2}, {"value": 0.7}],
    ]


def test_a_shared_choice_is_chosen_once():
    space = space_of("""
    merge_method: linear
    models:
      - {model: {choice: [m/math, m/law], name: first}, parameters: {weight: 1}}
      - {model: m/code, parameters: {weight: {search: [0, 1]}}}
    tokenizer_source: {choice: [m/math, m/law], name: first}
    """)
    assert [d.name for d in space.dimensions] == ["first", "code.weight"]
    recipe = space.decode({"first": "m/law", "code.weight": 0.5})
    assert (recipe.models[0].model, recipe.tokenizer_source) == ("m/law", "m/law")


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
def test_negative_weights_reach_the_merged_weights(method, tmp_path):
    names = [str(MODELS / name) for name in ("llama_base", "llama_a", "llama_b")]
    base = f"base_model: {names[0]}" if method == "task_arithmetic" else ""
    space = space_of(f"""
    merge_method: {method}
    {base}
    models:
      - {{model: {names[1]}, parameters: {{weight: {{search: [-0.5, 1.5]}}}}}}
      - {{model: {names[2]}, parameters: {{weight: {{search: [-0.5, 1.5], layers: 2}}}}}}
    dtype: float32
    """)
    point = space.from_unit([0.75, 0.0, 0.0])
    assert list(point.values()) == pytest.approx([1.0, -0.5, -0.5])
    result = merged(space.decode(point), tmp_path / "out")
    sources = [{**load_file(f"{name}/model.safetensors")} for name in names]
    for name, tensor in result.items():
        x, a, b = (source[name].double() for source in sources)
        expected = x + (a - x) - 0.5 * (b - x) if base else (a - 0.5 * b) / 0.5
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=2e-6)
