"""Recipes that a search starts from."""

import pytest
import yaml

from evomerge.errors import SpaceError
from evomerge.space import nearest_point, parse_space, usual_point

SPACE = """
recipe:
  merge_method: {choice: [ties, task_arithmetic]}
  base_model: m/base
  models:
    - model: m/math
      parameters:
        weight: {search: [0.0, 1.5], layers: 3}
        density: {search: [0.1, 1.0]}
    - model: m/code
      parameters:
        weight:
          - {filter: mlp, value: {search: [0.0, 1.5]}}
          - value: {search: [0.0, 1.5]}
        density: 0.5
tasks: [{name: a, metric: acc}]
"""


def space(**top):
    return parse_space(yaml.safe_load(SPACE) | top)


def test_every_point_is_found_again_from_its_recipe():
    mine = space()
    for seed in range(20):
        unit = [((seed + 1) * (place + 3) * 0.137) % 1.0 for place in range(len(mine.dimensions))]
        point = mine.from_unit(unit)
        found, same = nearest_point(mine, mine.decode(point).to_dict())
        assert same
        assert found == pytest.approx(point)


def test_a_recipe_of_another_form_has_a_near_point():
    recipe = {
        "merge_method": "ties",
        "base_model": "m/base",
        "models": [{"model": "m/math", "parameters": {"weight": [0.2, 0.6], "density": 0.7}}],
    }
    found, same = nearest_point(space(), recipe)
    assert not same
    assert [found[f"math.weight[{anchor}]"] for anchor in range(3)] == pytest.approx(
        [0.2, 0.4, 0.6]
    )
    assert found["math.density"] == 0.7
    assert found["code.weight"] == found["code.weight.mlp"] == 0.0


def test_starts_are_read_from_files_and_inline(tmp_path):
    recipe = space().decode(usual_point(space())).to_dict()
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    given = [str(tmp_path / "mine.yml"), {"name": "again", "recipe": recipe}, recipe]
    starts = space(start=given).document.start
    assert [each["name"] for each in starts] == ["mine", "again", "start 3"]
    assert all(each["recipe"]["merge_method"] == "ties" for each in starts)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ([{"models": []}], r"start\[0\].*a start is a recipe with a 'merge_method'"),
        (
            [{"merge_method": "passthrough", "models": [{"model": "m/maths"}]}],
            "merges 'm/maths', which is no model of this space; did you mean 'm/math'",
        ),
        (
            [
                {"name": "x", "recipe": {"merge_method": "passthrough", "models": [{"model": m}]}}
                for m in ("m/math", "m/code")
            ],
            "two starts are named 'x'",
        ),
    ],
)
def test_what_is_no_start_is_refused(start, message):
    with pytest.raises(SpaceError, match=message):
        space(start=start)
