"""One slice written once for every so many layers, and slerp between the heaviest pair."""

import math

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evomerge.documents import Origin
from evomerge.engine import merge_to_disk
from evomerge.errors import EvomergeError, SpaceError
from evomerge.space import parse_space
from evomerge.space.blocks import expand_blocks
from tests.conftest import ROOT

MODELS = ROOT / "tests" / "golden" / "models"
TASKS = [{"name": "a", "metric": "acc"}]
BLOCKS = yaml.safe_load("""
merge_method: linear
slices:
  every: 2
  sources:
    - model: llama_a
      parameters:
        weight: {search: [0, 1]}
    - model: llama_b
      parameters:
        weight: {search: [0, 1], name: shared}
""")


@pytest.fixture(autouse=True)
def beside_the_models(monkeypatch):
    monkeypatch.chdir(MODELS)


def with_slices(**changes):
    return {**BLOCKS, "slices": {**BLOCKS["slices"], **changes}}


def test_each_block_has_values_of_its_own_but_for_names():
    space = parse_space({"recipe": BLOCKS, "tasks": TASKS})
    names = [d.name for d in space.dimensions]
    assert names == ["slice0.llama_a.weight", "shared", "slice1.llama_a.weight"]
    first, second = space.decode(space.from_unit([0.1, 0.5, 0.9])).slices
    assert [s.layer_range for s in (*first.sources, *second.sources)] == [(0, 2)] * 2 + [(2, 4)] * 2
    weights = [s.parameters["weight"] for s in (*first.sources, *second.sources)]
    assert weights == pytest.approx([0.1, 0.5, 0.9, 0.5])


def test_names_tell_modules_and_slices_apart():
    models = [
        {"model": "llama_a", "parameters": {"weight": {"search": [0, 1]}}},
        {"model": "llama_b", "parameters": {"weight": 0.5}},
    ]
    sliced = [{"sources": [{**each, "layer_range": [0, 2]} for each in models]} for _ in range(2)]
    recipe = {
        "merge_method": "linear",
        "modules": {"layers": {"slices": sliced}, "default": {"models": models}},
    }
    space = parse_space({"recipe": recipe, "tasks": TASKS})
    assert [d.name for d in space.dimensions] == [
        "layers.slice0.llama_a.weight",
        "layers.slice1.llama_a.weight",
        "default.llama_a.weight",
    ]
    del recipe["modules"]["layers"]
    alone = parse_space({"recipe": recipe, "tasks": TASKS})
    assert [d.name for d in alone.dimensions] == ["llama_a.weight"]


def test_the_space_that_a_run_keeps_needs_no_models(monkeypatch, tmp_path):
    space = parse_space({"recipe": BLOCKS, "tasks": TASKS})
    kept = space.document.model_dump(mode="json", exclude_unset=True)
    monkeypatch.chdir(tmp_path)
    assert parse_space(kept).dimensions == space.dimensions


def test_blocks_are_constant_over_their_layers(tmp_path):
    space = parse_space({"recipe": BLOCKS, "tasks": TASKS})
    recipe = space.decode(
        {"slice0.llama_a.weight": 1.0, "shared": 1.0, "slice1.llama_a.weight": 0.0}
    )
    merge_to_disk(recipe, tmp_path / "out", seed=0)
    result = load_file(tmp_path / "out" / "model.safetensors")
    a, b = (load_file(f"llama_{letter}/model.safetensors") for letter in "ab")
    for name, tensor in result.items():
        late = any(part in name for part in ("layers.2.", "layers.3.", "lm_head", "model.norm"))
        expected = b[name] if late else (a[name] + b[name]) / 2
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (with_slices(every=0), "slices.every: 'every' is the number of layers"),
        (with_slices(every=True), "slices.every: 'every' is the number of layers"),
        (with_slices(sources=[]), "slices.sources: the sources of a block"),
        (with_slices(sources=[{"model": "a", "layer_range": [0, 1]}]), "without layer_range"),
        (with_slices(evry=2), "unknown key 'evry' beside 'every'; did you mean 'every'"),
        (with_slices(sources=[{"model": "nosuch"}]), "nosuch"),
    ],
)
def test_bad_blocks_name_the_place(recipe, message):
    with pytest.raises(EvomergeError, match=message):
        parse_space({"recipe": recipe, "tasks": TASKS})


def test_the_first_option_says_how_many_layers_there_are():
    asked = []
    sources = [{"model": {"choice": ["x", "y"]}}]
    recipe = {"merge_method": "passthrough", "slices": {"every": 3, "sources": sources}}
    expanded = expand_blocks(recipe, Origin(), lambda name: asked.append(name) or 7)
    assert asked == ["x"]
    ranges = [part["sources"][0]["layer_range"] for part in expanded["slices"]]
    assert ranges == [[0, 3], [3, 6], [6, 7]]
    assert recipe["slices"]["sources"] == sources


def pair_space(**changes):
    recipe = yaml.safe_load("""
    merge_method: slerp
    models:
      - {model: m/a, parameters: {weight: {search: [0, 3]}}}
      - {model: m/b, parameters: {weight: {search: [0, 3]}}}
      - {model: m/c, parameters: {weight: 1.0}}
    """)
    return parse_space({"recipe": {**recipe, **changes}, "tasks": TASKS, "select": "heaviest_pair"})


def test_the_heaviest_pair_is_merged():
    space = pair_space()
    recipe = space.decode({"a.weight": 0.5, "b.weight": 2.0}).to_dict()
    assert recipe == {
        "merge_method": "slerp",
        "base_model": "m/b",
        "models": [{"model": "m/b"}, {"model": "m/c"}],
        "parameters": {"t": pytest.approx(1 / (1 + math.e))},
    }
    equal = space.decode({"a.weight": 1.0, "b.weight": 1.0})
    assert [model.model for model in equal.models] == ["m/a", "m/b"]
    assert equal.parameters["t"] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merge_method": "ties"}, "is for merge_method slerp"),
        ({"parameters": {"t": 0.5}}, "t follows from the weights"),
        ({"models": [{"model": "a", "parameters": {"weight": {"search": [0, 1]}}}]}, "two models"),
        (
            {
                "models": [
                    {"model": "a", "parameters": {"weight": {"search": [0, 1], "layers": 2}}},
                    {"model": "b", "parameters": {"weight": 1}},
                ]
            },
            r"one number, .* got \[0.5, 0.5\]",
        ),
    ],
)
def test_pairs_of_anything_else_are_refused(changes, message):
    with pytest.raises(SpaceError, match=message):
        pair_space(**changes)
