"""Spaces: holes, names, decoding, and what is refused."""

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge.documents import Origin
from evomerge.errors import EvomergeError, SpaceError
from evomerge.space import Dimension, load_space, mixture_point, parse_space, usual_point

SPACE = yaml.safe_load("""
recipe:
  merge_method: ties
  base_model: m/base
  models:
    - model: m/math
      parameters:
        weight: {search: [0.0, 1.5], layers: 4}
        density: {search: [0.05, 1.0], log: true}
    - model: m/code
      parameters:
        weight:
          - filter: self_attn
            value: {search: [0.0, 1.5]}
          - value: {search: [0.0, 1.5]}
        density: {search: [0.05, 1.0], name: code_density}
  parameters:
    lambda: {search: [0.5, 1.0], name: code_density}
  dtype: bfloat16
tasks:
  - {name: a, metric: acc}
""")


def space_with(**changes):
    data = copy.deepcopy(SPACE)
    data["recipe"]["parameters"] = {}
    for path, value in changes.items():
        node = data["recipe"]
        *keys, last = path.split("__")
        for key in keys:
            node = node[int(key)] if key.isdigit() else node[key]
        node[last] = value
    return data


def test_dimensions_are_named_after_model_parameter_and_filter():
    space = parse_space(space_with())
    assert [d.name for d in space.dimensions] == [
        *(f"math.weight[{i}]" for i in range(4)),
        "math.density",
        "code.weight.self_attn",
        "code.weight",
        "code_density",
    ]


def test_decode_fills_the_holes_and_nothing_else():
    space = parse_space(space_with())
    point = space.from_unit([0.0, 1.0, 0.5, 0.5, 1.0, 0.2, 0.4, 0.0])
    recipe = space.decode(point).to_dict()
    math, code = recipe["models"]
    assert math["parameters"]["weight"] == [0.0, 1.5, 0.75, 0.75]
    assert math["parameters"]["density"] == 1.0
    assert code["parameters"]["weight"] == [
        {"filter": "self_attn", "value": pytest.approx(0.3)},
        {"value": pytest.approx(0.6)},
    ]
    assert code["parameters"]["density"] == 0.05
    assert recipe["dtype"] == "bfloat16"
    assert recipe["base_model"] == "m/base"


def test_one_name_is_one_value():
    data = space_with(parameters__density={"search": [0.05, 1.0], "name": "code_density"})
    space = parse_space(data)
    assert [d.name for d in space.dimensions].count("code_density") == 1
    recipe = space.decode(space.from_unit([0.3] * len(space.dimensions))).to_dict()
    shared = recipe["models"][1]["parameters"]["density"]
    assert recipe["parameters"]["density"] == shared


def test_one_name_with_two_ranges_is_refused():
    with pytest.raises(SpaceError, match="'code_density' is shared with .*models\\[1\\]"):
        parse_space(SPACE)


def test_choices_of_methods_and_models():
    data = space_with(merge_method={"choice": ["ties", "dare_ties"]})
    space = parse_space(data)
    assert space.dimensions[0].name == "merge_method"
    assert space.dimensions[0].choices == ("ties", "dare_ties")
    point = space.from_unit([0.9] + [0.5] * (len(space.dimensions) - 1))
    assert space.decode(point).merge_method == "dare_ties"
    data = space_with(models__1__model={"choice": ["m/code", "m/law"]})
    assert parse_space(data).model_names() == ("m/base", "m/math", "m/code", "m/law")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models__0__parameters__density": {"search": [1.0, 0.1]}}, r"low below high, got \[1.0"),
        ({"models__0__parameters__density": {"search": [0.1, 1.3]}}, "at most 1, the range ends"),
        ({"models__0__parameters__density": {"search": [0.1]}}, "low below high"),
        ({"models__0__parameters__density": {"search": [0, 1], "lgo": True}}, "did you mean 'log'"),
        ({"models__0__parameters__density": {"search": [0, 1], "log": True}}, "starts above 0"),
        ({"models__0__parameters__weight": {"search": [0, 1], "layers": 1}}, "at least 2 anchors"),
        ({"models__0__parameters__weight": {"search": [0, 0.5], "int": True}}, "whole ends"),
        ({"merge_method": {"choice": ["ties"]}}, "at least two options"),
        ({"merge_method": {"choice": ["ties", "ties"]}}, "differ from each other"),
        ({"merge_method": "tise"}, "did you mean 'ties'"),
    ],
)
def test_bad_spaces_name_the_place(changes, message):
    with pytest.raises(EvomergeError, match=message):
        parse_space(space_with(**changes))


def test_unknown_key_of_a_section_names_file_and_line(tmp_path):
    text = yaml.safe_dump({**space_with(), "search": {"optimiser": "cma"}}, sort_keys=False)
    path = tmp_path / "space.yml"
    path.write_text(text)
    line = text.splitlines().index("  optimiser: cma") + 1
    with pytest.raises(SpaceError, match=rf"space.yml:{line}: .*'optimiser'.*'optimizer'"):
        load_space(path)


def test_a_space_without_holes_is_refused():
    data = space_with()
    data["recipe"] = {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]}
    data["recipe"]["parameters"] = {"weight": 1.0}
    with pytest.raises(SpaceError, match="nothing to search"):
        parse_space(data)


def test_a_recipe_is_no_space():
    with pytest.raises(SpaceError, match="this is a recipe"):
        parse_space({"merge_method": "linear"}, Origin("r.yml"))


def test_paths_beside_the_file_work_from_anywhere(tmp_path, monkeypatch):
    folder = tmp_path / "spaces"
    (folder / "m" / "math").mkdir(parents=True)
    (folder / "tasks").mkdir()
    (folder / "chat.jinja").write_text("{{ messages }}")
    data = {**space_with(chat_template="chat.jinja"), "evaluation": {"task_dirs": ["tasks"]}}
    (folder / "s.yml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(tmp_path)
    space = load_space("spaces/s.yml")
    assert "spaces/m/math" in space.model_names()
    assert "m/code" in space.model_names()
    assert space.document.evaluation.task_dirs == ["spaces/tasks"]
    assert space.document.recipe["chat_template"] == "spaces/chat.jinja"


def test_long_names_of_models_are_found_beside_the_file_too(tmp_path, monkeypatch):
    for name in ("base", "math", "code"):
        (tmp_path / "spaces" / name).mkdir(parents=True)
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": {"model": {"path": "base"}},
        "models": [
            {"model": {"model": {"path": "math"}}, "parameters": {"weight": {"search": [0, 1]}}},
            {
                "model": {"choice": [{"model": {"path": "code"}}, "base"]},
                "parameters": {"weight": 1.0},
            },
        ],
    }
    (tmp_path / "spaces" / "space.yml").write_text(
        yaml.safe_dump({"recipe": recipe, "tasks": [{"name": "t", "metric": "acc"}]})
    )
    monkeypatch.chdir(tmp_path)
    space = load_space("spaces/space.yml")
    assert set(space.model_names()) == {"spaces/base", "spaces/math", "spaces/code"}
    assert "math.weight" in [dimension.name for dimension in space.dimensions]


@pytest.mark.parametrize(
    "tokenizer", [{"tokenizer_source": "m/law"}, {"tokenizer": {"source": "m/law"}}]
)
def test_a_model_that_only_gives_tokens_is_opened_and_not_a_parent(tokenizer):
    space = parse_space(space_with(**tokenizer))
    assert space.model_names() == ("m/base", "m/math", "m/code", "m/law")
    assert space.merged_names() == ("m/base", "m/math", "m/code")


def test_anchors_stand_for_baselines():
    space = parse_space(space_with())
    alone = mixture_point(space, {"m/math": 1.0})
    assert alone["math.weight[0]"] == 1.0
    assert alone["code.weight"] == 0.0
    assert alone["math.density"] == 1.0
    usual = usual_point(space)
    assert usual["code.weight"] == 0.5
    assert usual["math.density"] == 0.5


numbers = st.floats(-100, 100, allow_nan=False)


@given(
    st.tuples(numbers, numbers).filter(lambda p: p[0] + 1e-3 < p[1]), st.floats(0, 1), st.booleans()
)
def test_unit_interval_and_back(ends, unit, log):
    low, high = ends
    if log:
        low, high = abs(low) + 0.1, abs(low) + abs(high - low) + 0.2
    dimension = Dimension("x", "float", low, high, log=log)
    value = dimension.from_unit(unit)
    assert low <= value <= high
    assert dimension.to_unit(value) == pytest.approx(unit, abs=1e-6)


@given(st.integers(-20, 20), st.integers(1, 30), st.floats(0, 1))
def test_integers_have_equal_shares(low, span, unit):
    dimension = Dimension("x", "int", low, low + span)
    value = dimension.from_unit(unit)
    assert isinstance(value, int)
    assert low <= value <= low + span
    assert dimension.from_unit(dimension.to_unit(value)) == value
