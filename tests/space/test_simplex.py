"""Weights that sum to 1."""

import copy
import itertools
import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import EvomergeError
from evomerge.search.baselines import baselines
from evomerge.space import mixture_point, parse_space

SPACE = yaml.safe_load("""
recipe:
  merge_method: ties
  base_model: m/base
  models:
    - model: m/math
      parameters: {weight: {search: [0, 1], name: math}, density: {search: [0.1, 1]}}
    - model: m/code
      parameters: {weight: {search: [0, 1], name: code}, density: 0.5}
    - model: m/law
      parameters: {weight: {search: [0, 1], name: law}, density: 0.5}
simplex: [math, code, law]
tasks: [{name: a, metric: acc}]
""")


def layered(layers=3):
    data = copy.deepcopy(SPACE)
    for model in data["recipe"]["models"]:
        model["parameters"]["weight"]["layers"] = layers
    return data


def weights_of(recipe):
    return [model.parameters["weight"] for model in recipe.models]


units = st.lists(st.floats(0, 1), min_size=4, max_size=4)


@given(units)
def test_the_weights_of_every_vector_sum_to_1(vector):
    space = parse_space(SPACE)
    point = space.from_unit(vector)
    weights = weights_of(space.decode(point))
    assert math.fsum(weights) == pytest.approx(1.0, abs=1e-15)
    assert all(0.0 <= weight <= 1.0 for weight in weights)
    assert [point[name] for name in ("math", "code", "law")] == pytest.approx(weights, abs=1e-15)


@given(st.lists(st.floats(0, 1e3), min_size=3, max_size=3))
def test_decode_divides_any_shares_by_their_sum(shares):
    space = parse_space(SPACE)
    point = dict(zip(("math", "code", "law"), shares, strict=True)) | {"math.density": 0.5}
    weights = weights_of(space.decode(point))
    assert math.fsum(weights) == pytest.approx(1.0, abs=1e-15)
    if math.fsum(shares) > 0:
        assert weights == pytest.approx([share / math.fsum(shares) for share in shares])


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda x: sum(x) > 1e-3))
def test_a_mixture_is_found_again_after_the_unit_cube(shares):
    space = parse_space(SPACE)
    total = sum(shares)
    models = [f"m/{name}" for name in ("math", "code", "law")]
    mixture = {name: share / total for name, share in zip(models, shares, strict=True)}
    point = mixture_point(space, mixture)
    again = space.from_unit(space.to_unit(point))
    assert again == pytest.approx(point, abs=1e-14)
    assert weights_of(space.decode(again)) == pytest.approx(list(mixture.values()), abs=1e-14)


def test_baselines_start_exactly_at_their_mixtures():
    found = {b.name: b for b in baselines(parse_space(SPACE))}
    starts = {
        name: [found[name].start[weight] for weight in ("math", "code", "law")]
        for name in ("m/math", "m/law", "average", "default", "m/base")
    }
    third = [1 / 3] * 3
    assert starts["m/math"] == [1.0, 0.0, 0.0]
    assert starts["m/law"] == [0.0, 0.0, 1.0]
    assert starts["average"] == starts["default"] == pytest.approx(third)
    assert starts["m/base"] == third
    space = parse_space(SPACE)
    corner = space.to_unit(found["m/math"].start)
    assert weights_of(space.decode(space.from_unit(corner))) == [1.0, 0.0, 0.0]


def test_the_weights_are_alike():
    space = parse_space(SPACE)
    vector = [0.2, 0.9, 0.6]
    base = dict(
        zip(vector, weights_of(space.decode(space.from_unit([0.2, 0.5, 0.9, 0.6]))), strict=True)
    )
    for order in itertools.permutations(vector):
        point = space.from_unit([order[0], 0.5, order[1], order[2]])
        assert weights_of(space.decode(point)) == [base[unit] for unit in order]


def test_uniform_vectors_give_weights_that_are_uniform_on_the_simplex():
    """Each weight of a uniform point among k has the distribution 1 - (1 - w)^(k - 1)."""
    space = parse_space(SPACE)
    generator = np.random.default_rng(0)
    drawn = [space.from_unit(vector) for vector in generator.uniform(size=(4000, 4))]
    for name in ("math", "code", "law"):
        values = np.sort([point[name] for point in drawn])
        expected = 1.0 - (1.0 - values) ** 2
        gap = np.abs(expected - (np.arange(4000) + 0.5) / 4000).max()
        assert gap < 1.63 / math.sqrt(4000)  # Kolmogorov and Smirnov, 1 %


def test_a_gradient_has_a_simplex_for_each_anchor():
    space = parse_space(layered(3))
    generator = np.random.default_rng(1)
    point = space.from_unit(generator.uniform(size=len(space.dimensions)))
    weights = np.array(weights_of(space.decode(point)))
    assert weights.shape == (3, 3)
    assert weights.sum(axis=0) == pytest.approx(1.0, abs=1e-15)
    assert mixture_point(space, {"m/code": 1.0})["code[2]"] == 1.0


def test_groups_of_tensors_have_a_simplex_each():
    data = copy.deepcopy(SPACE)
    for model in data["recipe"]["models"]:
        short = model["model"][2:]
        model["parameters"]["weight"] = [
            {"filter": "mlp", "value": {"search": [0, 1], "name": f"{short}_mlp"}},
            {"value": {"search": [0, 1]}},
        ]
    data["simplex"] = [
        ["math_mlp", "code_mlp", "law_mlp"],
        ["math.weight", "code.weight", "law.weight"],
    ]
    space = parse_space(data)
    recipe = space.decode(space.from_unit([0.1, 0.9, 0.5, 0.3, 0.3, 0.8, 0.4]))
    for entry in (0, 1):
        total = math.fsum(values[entry]["value"] for values in weights_of(recipe))
        assert total == pytest.approx(1.0, abs=1e-15)


def test_weights_that_exist_with_some_methods_only():
    data = copy.deepcopy(SPACE)
    data["recipe"]["merge_method"] = {"choice": ["ties", "sce"]}
    space = parse_space(data)
    middle = [0.5] * (len(space.dimensions) - 1)
    assert space.from_unit([0.9, *middle]) == {"merge_method": "sce"}
    assert space.to_unit({"merge_method": "sce"}) == [0.75, *middle]
    assert weights_of(space.decode(space.from_unit([0.1, *middle]))) == pytest.approx([1 / 3] * 3)


def with_weight(**changes):
    data = copy.deepcopy(SPACE)
    data["recipe"]["models"][0]["parameters"]["weight"] |= changes
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_weight(search=[0, 2]), "'math' is another expression"),
        (with_weight(int=True), "'math' is another expression"),
        (with_weight(layers=2), "'code' has 1 values and 'math.0.' belongs to 2"),
        ({**SPACE, "simplex": ["math", "cod"]}, "'cod' is none; did you mean 'code'"),
        ({**SPACE, "simplex": ["math"]}, "at least 2 weights"),
        ({**SPACE, "simplex": ["math", "code", "math"]}, "'math' is listed twice"),
        ({**SPACE, "simplex": [["math", "code"], ["law", "math"]]}, "'math' is listed twice"),
        ({**SPACE, "simplex": "math"}, "simplex: .*list"),
    ],
)
def test_what_cannot_sum_to_1_is_refused(data, message):
    with pytest.raises(EvomergeError, match=message):
        parse_space(data)
