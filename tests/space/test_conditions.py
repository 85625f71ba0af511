"""Spaces whose values exist only with some merge methods, or with some options of a choice."""

import copy

import pytest
import yaml

from evomerge.errors import EvomergeError, RecipeError, SpaceError
from evomerge.methods import METHODS
from evomerge.search.baselines import baselines, find_models
from evomerge.space import Condition, mixture_point, parse_space, usual_point

SPACE = yaml.safe_load("""
recipe:
  merge_method: {choice: [linear, ties, della]}
  models:
    - model: m/math
      parameters:
        weight: {search: [0.0, 1.5]}
        density:
          - filter: mlp
            value: {search: [0.1, 1.0]}
          - value: 0.5
        epsilon: {search: [0.0, 0.1]}
    - model: m/code
      parameters:
        weight: {search: [0.0, 1.5]}
        density: {search: [0.1, 1.0], layers: 2}
        epsilon: 0.05
  base_model: {choice: [m/base], when: {merge_method: [ties, della]}}
  parameters:
    lambda: 0.9
    normalize: true
  dtype: bfloat16
tasks:
  - {name: a, metric: acc}
""")

SLERP = yaml.safe_load("""
recipe:
  merge_method: {choice: [slerp, ties]}
  base_model: m/base
  models:
    - model: m/math
      parameters: {weight: {search: [0, 1]}, density: {search: [0.1, 1]}}
  parameters: {t: {search: [0, 1], layers: 3}}
tasks: [{name: a, metric: acc}]
""")


def space_with(data=SPACE, **changes):
    data = copy.deepcopy(data)
    for path, value in changes.items():
        node = data["recipe"]
        *keys, last = path.split("__")
        for key in keys:
            node = node[int(key)] if key.isdigit() else node[key]
        node[last] = value
    return data


def point_of(space, **fixed):
    """Return the middle of the space with some values fixed; of missing dimensions too."""
    return {d.name: d.from_unit(0.5) for d in space.dimensions} | fixed


def test_a_parameter_exists_with_the_methods_that_have_it():
    conditions = {d.name: d.condition for d in parse_space(SPACE).dimensions}
    with_density = Condition("merge_method", ("ties", "della"))
    assert conditions == {
        "merge_method": None,
        "math.weight": None,
        "math.density.mlp": with_density,
        "math.epsilon": Condition("merge_method", ("della",)),
        "code.weight": None,
        "code.density[0]": with_density,
        "code.density[1]": with_density,
    }


def test_conditions_are_written_for_people():
    inner = Condition("norm", ("l1",))
    assert str(Condition("merge_method", ("ties", "della"), inner)) == (
        "merge_method ties or della, norm l1"
    )


def test_decode_leaves_out_what_the_method_does_not_have():
    space = parse_space(SPACE)
    recipes = {
        name: space.decode(point_of(space, merge_method=name)).to_dict() for name in space.methods
    }
    linear = [model["parameters"] for model in recipes["linear"]["models"]]
    assert linear == [{"weight": 0.75}, {"weight": 0.75}]
    assert recipes["linear"]["parameters"] == {"normalize": True}
    assert "base_model" not in recipes["linear"]
    ties = [model["parameters"] for model in recipes["ties"]["models"]]
    assert ties == [
        {"weight": 0.75, "density": [{"filter": "mlp", "value": 0.55}, {"value": 0.5}]},
        {"weight": 0.75, "density": [0.55, 0.55]},
    ]
    assert recipes["ties"]["base_model"] == "m/base"
    assert recipes["ties"]["parameters"] == {"lambda": 0.9, "normalize": True}
    della = [model["parameters"] for model in recipes["della"]["models"]]
    assert [each["epsilon"] for each in della] == [0.05, 0.05]


def test_points_lack_what_does_not_exist_and_nothing_else():
    space = parse_space(SPACE)
    names = [d.name for d in space.dimensions]
    linear = space.from_unit([0.0] + [0.9] * 6)
    assert set(linear) == {"merge_method", "math.weight", "code.weight"}
    assert space.decode(linear).merge_method == "linear"
    assert space.to_unit(linear) == pytest.approx([1 / 6, 0.9, 0.5, 0.5, 0.9, 0.5, 0.5])
    ties = space.from_unit([0.5] + [0.9] * 6)
    assert set(ties) == set(names) - {"math.epsilon"}
    for name in ties:
        if name != "merge_method":
            left = {key: value for key, value in ties.items() if key != name}
            with pytest.raises(SpaceError, match="no value for " + name.replace("[", r"\[")):
                space.decode(left)
            with pytest.raises(SpaceError, match="no value for"):
                space.to_unit(left)


def test_a_choice_may_stand_below_what_it_decides():
    data = space_with(merge_method="ties", base_model="m/base")
    data["recipe"]["models"][0]["parameters"]["epsilon"] = 0.1
    data["recipe"]["models"][0]["parameters"]["density"] = {
        "search": [0.1, 1.0],
        "when": {"dtype": "float32"},
    }
    data["recipe"]["dtype"] = {"choice": ["bfloat16", "float32"]}
    space = parse_space(data)
    names = [d.name for d in space.dimensions]
    assert names.index("dtype") < names.index("math.density")
    recipe = space.decode(point_of(space, dtype="bfloat16")).to_dict()
    assert recipe["models"][0]["parameters"] == {"weight": 0.75, "epsilon": 0.1}


def test_conditions_may_hang_on_conditions():
    data = space_with(merge_method={"choice": ["ties", "dare_ties"]}, base_model="m/base")
    math = data["recipe"]["models"][0]["parameters"] = {
        "weight": {"search": [0, 1]},
        "rescale_norm": {"choice": ["l1", "density"], "name": "norm"},
        "density": [
            {"filter": "mlp", "value": {"search": [0.1, 0.5], "when": {"norm": ["density"]}}},
            {"value": {"search": [0.5, 1.0], "when": {"norm": "l1", "merge_method": "dare_ties"}}},
        ],
    }
    space = parse_space(data)
    assert space.dimensions[1].name == "math.weight"
    density = {}
    for fixed in (("ties", "l1"), ("dare_ties", "l1"), ("dare_ties", "density")):
        point = space.settle(point_of(space, merge_method=fixed[0], norm=fixed[1]))
        density[fixed] = space.decode(point).to_dict()["models"][0]["parameters"].get("density")
    assert density == {
        ("ties", "l1"): None,
        ("dare_ties", "l1"): [{"value": 0.75}],
        ("dare_ties", "density"): [{"filter": "mlp", "value": pytest.approx(0.3)}],
    }
    math["weight"]["when"] = {"norm": "l1"}
    with pytest.raises(SpaceError, match=r"ties cannot be one of the methods here.*'weight'"):
        parse_space(data)


def test_a_shared_value_exists_where_one_of_its_places_does():
    shared = {"search": [0.1, 0.9], "name": "shared"}
    data = space_with(
        models__0__parameters__density=shared,
        models__0__parameters__epsilon={"search": [0.1, 0.9], "name": "shared", "when": {}},
    )
    data["recipe"]["models"][0]["parameters"]["epsilon"] = 0.1
    data["recipe"]["models"][1]["parameters"]["weight"] = shared
    space = parse_space(data)
    by_name = {d.name: d.condition for d in space.dimensions}
    assert by_name["shared"] is None
    data["recipe"]["models"][1]["parameters"]["weight"] = 1.0
    data["recipe"]["models"][1]["parameters"]["density"] = {
        **shared,
        "when": {"merge_method": "ties"},
    }
    by_name = {d.name: d.condition for d in parse_space(data).dimensions}
    assert by_name["shared"] == Condition("merge_method", ("ties", "della"))


def test_slerp_beside_ties_where_both_can_work():
    space = parse_space(SLERP)
    slerp = space.decode(space.from_unit([0.1, 0.5, 0.5, 0.0, 0.5, 1.0])).to_dict()
    assert slerp["parameters"] == {"t": [0.0, 0.5, 1.0]}
    assert slerp["models"] == [{"model": "m/math"}]
    ties = space.decode(space.from_unit([0.9, 0.5, 0.5, 0.0, 0.5, 1.0])).to_dict()
    assert "parameters" not in ties


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            space_with(SPACE, merge_method={"choice": ["ties", "slerp", "della"]}),
            r"choice\[1\]: slerp cannot be one of the methods here.*base",
        ),
        (
            space_with(SLERP, merge_method={"choice": ["ties", "model_stock"]}, parameters={}),
            r"choice\[1\]: model_stock cannot .* takes at least 3 models .*got 2: m/base, m/math",
        ),
        (
            space_with(SLERP, merge_method={"choice": ["ties", "linear"]}, parameters={}),
            r"linear cannot be .* needs the parameter 'weight' .* for m/base",
        ),
        (
            space_with(SPACE, merge_method={"choice": ["ties", "tise"]}),
            r"choice\[1\]: unknown merge method 'tise'; did you mean 'ties'",
        ),
        (
            space_with(SLERP, merge_method="ties"),
            r"nothing to search here: ties has no parameter 't' .methods with it: slerp, nearswap",
        ),
        (
            space_with(SLERP, parameters={"int8_mask": {"search": [0, 1]}}),
            "'int8_mask' has no effect",
        ),
        (
            space_with(SLERP, merge_method={"choice": ["slerp", "nearswap"]})
            | {"tasks": [{"name": "a", "metric": "acc"}]},
            None,
        ),
        (
            space_with(
                SLERP,
                merge_method={"choice": ["slerp", "nearswap"]},
                parameters={"t": {"search": [-0.5, 1]}},
                models=[{"model": "m/math"}],
            ),
            r"'t' is at least 0 for nearswap, the range starts at -0.5",
        ),
        (
            space_with(
                SLERP,
                models__0__parameters__weight={"search": [0, 1], "when": {"merge_metod": "ties"}},
            ),
            "'when' names a choice of this space, got 'merge_metod'; did you mean 'merge_method'",
        ),
        (
            space_with(
                SLERP,
                models__0__parameters__weight={"search": [0, 1], "when": {"merge_method": "tie"}},
            ),
            "'tie' is no option of 'merge_method'; did you mean 'ties'",
        ),
        (
            space_with(
                SLERP, models__0__parameters__weight={"search": [0, 1], "when": ["merge_method"]}
            ),
            "'when' names choices and the options",
        ),
        (
            space_with(
                SLERP,
                models__0__parameters__density={
                    "search": [0.1, 1],
                    "when": {"merge_method": "slerp"},
                },
            ),
            "slerp has no parameter 'density' .methods with it here: ties",
        ),
        (
            space_with(
                SLERP,
                dtype={"choice": ["float32", "bfloat16"], "when": {"out_dtype": "float32"}},
                out_dtype={"choice": ["float32", "bfloat16"], "when": {"dtype": "float32"}},
            ),
            "the conditions of 'dtype', 'out_dtype' go round in a circle",
        ),
    ],
)
def test_bad_conditions_name_place_and_way_out(data, message):
    if message is None:
        data["recipe"]["models"][0].pop("parameters")
        parse_space(data)
        return
    with pytest.raises(EvomergeError, match=message):
        parse_space(data)


def test_what_is_wrong_with_every_method_is_said_once():
    with pytest.raises(RecipeError, match="^[^\n]*unknown dtype 'bf16'[^\n]*$"):
        parse_space(space_with(SPACE, dtype="bf16"))


def test_every_method_has_its_usual_values_as_a_baseline():
    space = parse_space(SPACE)
    assert find_models(space) == (("m/math", "m/code"), "m/base")
    found = {(b.kind, b.name): b for b in baselines(space)}
    assert list(found)[-3:] == [("default", f"default {name}") for name in space.methods]
    for name in space.methods:
        default = found["default", f"default {name}"]
        assert default.recipe["merge_method"] == name
        assert default.point == usual_point(space, name)
        assert space.decode(default.point).to_dict() == default.recipe
    assert usual_point(space, "della")["math.epsilon"] == 0.1
    assert found["base", "m/base"].start["math.weight"] == 0.0
    assert mixture_point(space, {"m/math": 1.0}) == {
        "merge_method": "linear",
        "math.weight": 1.0,
        "code.weight": 0.0,
    }


def test_all_methods_that_take_task_vectors_fit_one_space():
    names = [
        row.name for row in METHODS.values() if row.base == "required" and not row.base_is_source
    ]
    parameters = {"weight": {"search": [0, 1]}}
    for name in dict.fromkeys(p.name for n in names for p in METHODS[n].parameters):
        spec = next(s for n in names if (s := METHODS[n].parameter(name)))
        if spec.kind == "float" and name not in ("weight", "epsilon"):
            parameters[name] = {"search": [0.01, 0.99]}
    models = [{"model": f"m/{i}", "parameters": parameters} for i in range(3)]
    recipe = {"merge_method": {"choice": names}, "base_model": "m/base", "models": models}
    space = parse_space({"recipe": recipe, "tasks": [{"name": "a", "metric": "acc"}]})
    for each in space.option_points():
        recipe = space.decode(each.point)
        own = {p.name for p in METHODS[recipe.merge_method].parameters}
        assert recipe.merge_method == each.option
        assert all(set(values) <= own for _, values in recipe.parameter_blocks())
