"""Merging in several stages: what is written, what is left, and in which words it fails."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from evomerge.checkpoints import Checkpoint, open_checkpoint
from evomerge.errors import EvomergeError
from evomerge.export import merge_recipe

MODELS = Path(__file__).parents[1] / "golden" / "models"


def recipe(*models: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    entries = [{"model": model, "parameters": {"weight": 1}} for model in models]
    data = {"merge_method": "linear", "models": entries, **more}
    return data if name is None else {"name": name, **data}


def write(folder: Path, *documents: dict[str, Any]) -> Path:
    """Write a file of recipes beside links to some models."""
    for name in ("llama_base", "llama_a", "llama_b", "lora_a"):
        (folder / name).symlink_to(MODELS / name)
    file = folder / "stages.yml"
    file.write_text("---\n".join(yaml.safe_dump(each, sort_keys=False) for each in documents))
    return file


def same(one: Checkpoint, other: Checkpoint) -> bool:
    assert one.tensors.keys() == other.tensors.keys()
    return all(torch.equal(one.read(name), other.read(name)) for name in one.tensors)


def left(folder: Path) -> list[str]:
    links = {"llama_base", "llama_a", "llama_b", "lora_a", "stages.yml"}
    return sorted(path.name for path in folder.iterdir() if path.name not in links)


def test_stages_equal_merges_one_by_one(tmp_path: Path) -> None:
    dare = {
        "merge_method": "dare_ties",
        "base_model": "half",
        "models": [
            {"model": "llama_a", "parameters": {"weight": 1, "density": 0.5}},
            {"model": "half+lora_a", "parameters": {"weight": 1, "density": 0.5}},
        ],
    }
    half = recipe("llama_a", "llama_b", name="half", out_dtype="bfloat16")
    told: list[tuple[Any, ...]] = []
    file = write(tmp_path, dare, half)
    merge_recipe(
        file,
        tmp_path / "out",
        seed=5,
        on_stage=lambda *stage: told.append(stage),
        progress=lambda done, total: told.append((done, total)),
    )
    assert [entry for entry in told if len(entry) == 3] == [(1, 2, "half"), (2, 2, "the result")]
    assert told[0] == (1, 2, "half")
    assert left(tmp_path) == ["out"]
    # The same by hand.
    for data, name in ((half, "half"), (dare, "by_hand")):
        (tmp_path / "one.yml").write_text(yaml.safe_dump(data))
        merge_recipe(tmp_path / "one.yml", tmp_path / name, seed=5)
    result = open_checkpoint(str(tmp_path / "out"))
    assert same(result, open_checkpoint(str(tmp_path / "by_hand")))
    # What is written tells all stages and makes the same again, wherever it lies.
    assert [path.name for path in (tmp_path / "out").glob("*.yml")] == ["recipe.yml"]
    written = (tmp_path / "out" / "recipe.yml").read_text()
    assert [data.get("name") for data in yaml.safe_load_all(written)] == ["half", None]
    merge_recipe(tmp_path / "out" / "recipe.yml", tmp_path / "again", seed=5)
    assert same(result, open_checkpoint(str(tmp_path / "again")))
    card = (tmp_path / "out" / "README.md").read_text()
    assert written.strip() in card
    assert "`half" not in card
    assert f"* `{tmp_path / 'lora_a'}`" in card


def test_a_name_goes_before_a_folder(tmp_path: Path) -> None:
    file = write(tmp_path, recipe("llama_a", name="llama_b"), recipe("llama_b"))
    merge_recipe(file, tmp_path / "out")
    assert same(open_checkpoint(str(tmp_path / "out")), open_checkpoint(str(MODELS / "llama_a")))


def test_several_results_go_to_a_folder_each(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        recipe("mid", "llama_a", name="one"),
        recipe("llama_a", "llama_b", name="mid"),
        recipe("mid", "llama_b", name="two"),
    )
    merge_recipe(file, tmp_path / "out")
    assert left(tmp_path) == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]
    x, y = (
        open_checkpoint(str(MODELS / name)).read("lm_head.weight")
        for name in ("llama_a", "llama_b")
    )
    for name, weight in (("one", 0.75), ("two", 0.25)):
        merged = open_checkpoint(str(tmp_path / "out" / name)).read("lm_head.weight")
        assert torch.allclose(merged, weight * x + (1 - weight) * y, atol=1e-6)
    texts = [(tmp_path / "out" / name / "recipe.yml").read_text() for name in ("one", "two")]
    assert ["name: two" in text for text in texts] == [False, True]


def test_results_are_removed_when_nothing_needs_them(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        recipe("llama_a", name="a"),
        recipe("a", name="b"),
        recipe("b", name="c"),
        recipe("c"),
    )
    most: list[int] = []

    def look(*_: Any) -> None:
        found = tmp_path.glob("out.stages-*/stages/*/model.safetensors")
        most.append(sum(1 for _ in found))

    merge_recipe(file, tmp_path / "out", on_stage=look)
    assert most == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (
            recipe("first", "midle"),
            "yml:18: this recipe and 'middle' are used by no other.* 'midle' meant to be 'middle'",
        ),
        (
            recipe("first", "middle", "frist"),
            r"yml:18: a model cannot be opened: frist: .*\nno recipe .* did you mean 'first'\?",
        ),
        (recipe("middle+nosuch"), r"stages.yml:18: a model cannot be opened: nosuch: no such"),
        (
            recipe("middle", name="zero"),
            r"stages.yml:18: tensor 'model.embed_tokens.weight': linear divides by the sum",
        ),
    ],
)
def test_errors_name_the_document_and_leave_nothing(
    tmp_path: Path, last: dict[str, Any], message: str
) -> None:
    if last.get("name") == "zero":  # found only while it is merged
        last["models"][0]["parameters"]["weight"] = 0
    file = write(
        tmp_path,
        recipe("llama_a", name="first"),
        recipe("first", "llama_b", name="middle"),
        last,
    )
    with pytest.raises(EvomergeError, match=message):
        merge_recipe(file, tmp_path / "out")
    assert left(tmp_path) == []


def test_an_interrupted_merge_leaves_nothing(tmp_path: Path) -> None:
    file = write(tmp_path, recipe("llama_a", name="first"), recipe("first", "llama_b"))

    def stop(number: int, *_: Any) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_recipe(file, tmp_path / "out", on_stage=stop)
    assert left(tmp_path) == []


def test_a_goal_that_holds_something_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = write(tmp_path, recipe("llama_a", name="first"), recipe("first", "llama_b"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    told: list[int] = []
    with pytest.raises(EvomergeError, match="not empty"):
        merge_recipe(file, tmp_path / "out", on_stage=lambda *_: told.append(1))
    assert not told
