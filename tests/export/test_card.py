"""The model card."""

import yaml

from evomerge.documents import Origin
from evomerge.export import ScoreRow, model_card
from evomerge.recipe import parse_recipe

RECIPE = parse_recipe(
    {
        "merge_method": "linear",
        "models": [
            {"model": "org/one", "parameters": {"weight": 0.25}},
            {"model": "org/two", "parameters": {"weight": 1 / 3}},
        ],
        "dtype": "bfloat16",
    },
    Origin(),
)


def test_the_card_has_models_recipe_scores_and_seed():
    rows = [ScoreRow("this model", {"objective": (0.8125, 0.01, 600), "add": (0.9, 0.02, 300)})]
    card = model_card(RECIPE, seed=7, title="merged", rows=rows, note="Found by hand.")
    head = yaml.safe_load(card.split("---")[1])
    assert head["base_model"] == ["org/one", "org/two"]
    assert "merge" in head["tags"]
    assert "| this model | 0.812 ± 0.010 (600 items) | 0.900 ± 0.020 (300 items) |" in card
    assert "--seed 7" in card
    recipe = yaml.safe_load(card.split("```yaml")[1].split("```")[0])
    assert parse_recipe(recipe, Origin()) == RECIPE
