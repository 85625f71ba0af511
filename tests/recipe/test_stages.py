"""Recipes of one file that use each other's results: names, order, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.documents import Origin
from evomerge.errors import RecipeError
from evomerge.recipe import Stage, load_recipe, load_stages, parse_stages


def recipe(*models: str, name: str | None = None) -> dict[str, Any]:
    entries = [{"model": model, "parameters": {"weight": 1}} for model in models]
    data: dict[str, Any] = {"merge_method": "linear", "models": entries}
    return data if name is None else {"name": name, **data}


def stages(*data: dict[str, Any]) -> tuple[Stage, ...]:
    text = "---\n".join(yaml.safe_dump(each, sort_keys=False) for each in data)
    return parse_stages([(each, Origin("f.yml", text, (), i)) for i, each in enumerate(data)])


def names(found: tuple[Stage, ...]) -> list[str | None]:
    return [stage.name for stage in found]


def test_each_stage_comes_after_those_it_uses() -> None:
    found = stages(
        recipe("b", "c"),
        recipe("x", "c", name="b"),
        recipe("y", name="c"),
    )
    assert names(found) == ["c", "b", None]
    assert [stage.needs for stage in found] == [(), ("c",), ("b", "c")]
    assert [stage.is_result for stage in found] == [False, False, True]


def test_what_order_leaves_open_stays_as_in_the_file() -> None:
    found = stages(recipe("x", name="b"), recipe("x", name="a"), recipe("a", "b"))
    assert names(found) == ["b", "a", None]


def test_the_result_may_have_a_name_and_adapters_follow_stages() -> None:
    found = stages(recipe("first+some/lora", name="last"), recipe("x", name="first"))
    assert names(found) == ["first", "last"]
    assert found[1].is_result


def test_a_base_or_a_tokenizer_is_a_use_too() -> None:
    data = recipe("x")
    data |= {"merge_method": "task_arithmetic", "base_model": "b", "tokenizer_source": "t"}
    found = stages(data, recipe("x", name="t"), recipe("x", name="b"))
    assert set(found[2].needs) == {"b", "t"}


def test_one_document_is_one_stage_whatever_its_name() -> None:
    found = stages(recipe("same", name="same"))
    assert found[0].is_result
    assert found[0].needs == ()


def test_several_results_have_names() -> None:
    found = stages(recipe("x", name="a"), recipe("y", name="b"))
    assert [stage.is_result for stage in found] == [True, True]
    with pytest.raises(RecipeError, match=r"f.yml:8: this recipe and 'a' are used by no other.*na"):
        stages(recipe("x", name="a"), recipe("y"))
    with pytest.raises(RecipeError, match=r"f.yml:1: .* and the one at f.yml:7 are used by no"):
        stages(recipe("x"), recipe("y"))
    with pytest.raises(RecipeError, match=r"f.yml:1: name: '../a' is one of several results"):
        stages(recipe("x", name="../a"), recipe("y", name="b"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            [recipe("b", name="a"), recipe("c", name="b"), recipe("a", name="c"), recipe("a")],
            "f.yml:1: name: .*circle: 'a' uses 'b' uses 'c' uses 'a'",
        ),
        ([recipe("a", name="a"), recipe("a")], "circle: 'a' uses 'a'"),
        ([recipe("a"), recipe("b", name="a"), recipe("a", name="b")], "'a' uses 'b' uses 'a'"),
        (
            [recipe("x", name="a"), recipe("y", name="a")],
            r"f.yml:8: name: the name 'a' is taken already, at f.yml:1: name",
        ),
        ([recipe("x", name="base"), recipe("base")], "'base' cannot be a stage's name"),
        ([recipe("x", name="a+b"), recipe("a+b")], r"'a\+b' cannot be a stage's name"),
    ],
)
def test_what_is_refused(data: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        stages(*data)


def test_problems_are_found_in_the_document_they_stand_in(tmp_path: Path) -> None:
    file = tmp_path / "f.yml"
    good = yaml.safe_dump(recipe("x", name="a"), sort_keys=False)
    file.write_text(f"---\n{good}---\n\n---\nmerge_method: linear\nmodels:\n- modle: y\n")
    with pytest.raises(RecipeError, match=r"f.yml:13: models\[0\].modle: unknown key 'modle'"):
        load_stages(file)
    file.write_text(f"{good}---\n")
    assert names(load_stages(file)) == ["a"]
    assert load_recipe(file).name == "a"
    file.write_text(f"{good}---\n{good}")
    with pytest.raises(RecipeError, match=r"one YAML document is expected here, the file holds 2"):
        load_recipe(file)
    file.write_text("a: [\n---\n")
    with pytest.raises(RecipeError, match=r"f.yml:2: not valid YAML"):
        load_stages(file)
    file.write_text("")
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        load_stages(file)
