"""A driver over a space some of whose values exist with one method only, and over a simplex."""

import yaml

from .conftest import InstantPool

CONDITIONAL = yaml.safe_load("""
merge_method: {choice: [task_arithmetic, ties]}
base_model: m/base
models:
  - model: m/math
    parameters: {weight: {search: [0.0, 1.5]}, density: {search: [0.1, 1.0]}}
  - {model: m/code, parameters: {weight: {search: [0.0, 1.5]}, density: 0.5}}
""")


def test_the_study_keeps_points_that_lack_what_does_not_exist(harness):
    top = {"recipe": CONDITIONAL}
    whole = harness("whole", top=top, optimizer="tpe", trials=18, ordered=True)
    study = whole.drive(InstantPool())
    defaults = [r for r in study.records.values() if r.kind == "default"]
    assert [r.label for r in defaults] == ["default task_arithmetic", "default ties"]
    assert set(defaults[0].point) == {"merge_method", "math.weight", "code.weight"}
    for record in study.records.values():
        if record.kind == "proposed":
            given = "density" in record.recipe["models"][0]["parameters"]
            assert given == (record.recipe["merge_method"] == "ties")
    parts = harness("parts", top=top, optimizer="tpe", trials=18, ordered=True)
    assert not parts.drive_until_stopped(InstantPool(stop_after=11))
    assert parts.drive_until_stopped(InstantPool())
    assert parts.trials() == whole.trials()


def test_the_study_shows_the_weights_of_a_simplex(harness):
    recipe = yaml.safe_load("""
    merge_method: linear
    models:
      - {model: m/math, parameters: {weight: {search: [0, 1], name: math}}}
      - {model: m/code, parameters: {weight: {search: [0, 1], name: code}}}
    """)
    run = harness(top={"recipe": recipe, "simplex": ["math", "code"]}, optimizer="cma", trials=14)
    for record in run.drive(InstantPool()).records.values():
        if record.kind == "proposed":
            weights = [model["parameters"]["weight"] for model in record.recipe["models"]]
            assert abs(sum(weights) - 1.0) < 1e-15
            assert list(record.point.values()) == weights
