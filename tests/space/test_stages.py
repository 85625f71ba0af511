"""Which values move together at which level, and the key `search.stages`."""

import pytest

from evomerge.errors import SpaceError
from evomerge.space import LEVELS, SearchSettings, parse_space
from tests.space.test_genome import GENOME

NUMBER = {"search": [0.0, 1.0]}
TASKS = [{"name": "a", "metric": "acc"}]


def space_of(recipe, **rest):
    return parse_space({"recipe": recipe, "tasks": TASKS, **rest})


def models(first, second=None, **top):
    return {
        "merge_method": "ties",
        "base_model": "m/base",
        "models": [
            {"model": "m/math", "parameters": first},
            {"model": "m/code", "parameters": second or {"weight": 1.0}},
        ],
        **top,
    }


FILTERED = {
    "weight": [
        {"filter": "self_attn", "value": {**NUMBER, "layers": 2}},
        {"filter": "mlp", "value": NUMBER},
        {"value": {**NUMBER, "layers": 2}},
    ],
    "density": {"search": [0.1, 1.0], "layers": 2, "log": True},
}
ATTENTION = ("math.weight.self_attn[0]", "math.weight.self_attn[1]")
OTHERS = ("math.weight[0]", "math.weight[1]")
DENSITY = ("math.density[0]", "math.density[1]")


def test_by_model_by_filter_and_by_layer():
    space = space_of(models(FILTERED, {"weight": NUMBER}))
    assert space.groups_at("model") == ((*ATTENTION, "math.weight.mlp", *OTHERS), DENSITY)
    assert space.groups_at("filter") == (ATTENTION, OTHERS, DENSITY)
    assert space.groups_at("layer") == ()


def test_a_level_is_made_of_whole_groups_of_the_finer_one():
    space = space_of(models(FILTERED, FILTERED))
    coarse = [set(names) for names in space.groups_at("model")]
    for names in space.groups_at("filter"):
        assert sum(set(names) <= each for each in coarse) == 1


def test_choices_whole_numbers_and_other_places_are_alone():
    first = {"weight": [{"filter": "mlp", "value": {"choice": [0.0, 0.5]}}, {"value": NUMBER}]}
    second = {"weight": {"search": [1, 8], "int": True, "layers": 3}}
    space = space_of(models(first, second))
    assert [space.groups_at(level) for level in LEVELS] == [(), (), ()]


def test_a_shared_value_belongs_to_the_first_of_its_places():
    shared = {**NUMBER, "name": "shared"}
    first = {"weight": [{"filter": "mlp", "value": shared}, {"value": NUMBER}]}
    second = {"weight": [{"filter": "mlp", "value": shared}, {"value": NUMBER}]}
    space = space_of(models(first, second))
    assert space.groups_at("model") == (("shared", "math.weight"),)


def test_values_that_exist_with_other_options_do_not_move_together():
    recipe = models({"weight": {**NUMBER, "layers": 2}, "density": {**NUMBER, "layers": 2}})
    recipe["merge_method"] = {"choice": ["ties", "dare_ties"]}
    recipe["models"][0]["parameters"]["weight"] = [
        {"filter": "mlp", "value": {**NUMBER, "when": {"merge_method": ["ties"]}}},
        {"filter": "attn", "value": {**NUMBER, "when": {"merge_method": ["ties"]}}},
        {"value": {**NUMBER, "layers": 2}},
    ]
    del recipe["models"][0]["parameters"]["density"]
    space = space_of(recipe)
    assert space.groups_at("model") == (("math.weight.mlp", "math.weight.attn"), OTHERS)


def test_blocks_of_layers_are_layers(monkeypatch):
    from tests.conftest import ROOT

    monkeypatch.chdir(ROOT / "tests" / "golden")
    genome = {**GENOME, "layer_granularity": 2, "filters": ["self_attn"]}
    space = parse_space({"genome": genome, "tasks": TASKS})
    counts = {level: space.groups_at(level) for level in LEVELS}
    # Weight and density of three models; of two filters; in two blocks.
    assert [len(names) for names in counts["model"]] == [4] * 6
    assert [len(names) for names in counts["filter"]] == [2] * 12
    assert counts["filter"][0][0].replace("slice0", "slice1") == counts["filter"][0][1]


@pytest.mark.parametrize("value", ["auto", False, ["model"], {"model": 0.25, "layer": 0.75}])
def test_settings_are_kept_as_they_are(value):
    settings = SearchSettings(stages=value)
    assert settings.stages == value
    assert SearchSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_true_is_auto():
    assert SearchSettings(stages=True).stages == SearchSettings().stages == "auto"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["model", "layers"], r"search.stages: stages are .*no level 'layers'.*'layer'"),
        (["layer", "model"], r"from coarse to fine .*got layer, model"),
        (["model", "model"], r"got model, model"),
        ([], r"got \[\]"),
        ("models", r"stages are auto, false.*got 'models'"),
        ({"model": 0.5, "layer": 0.6}, r"above 0 and sum to 1, got .*0.6"),
        ({"model": 0.0, "layer": 1.0}, r"above 0 and sum to 1"),
        ({"model": "half", "layer": 0.5}, r"search.stages"),
    ],
)
def test_what_is_wrong_is_one_message(value, message):
    with pytest.raises(SpaceError, match=message):
        space_of(models({"weight": NUMBER}), search={"stages": value})
