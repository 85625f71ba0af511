"""The recipes of docs/merging.md run as they stand there, and its tables name what there is."""

import json
import re

import pytest
import yaml
from typer.main import get_command

from evomerge.checkpoints import open_checkpoint
from evomerge.cli.main import app
from evomerge.export import merge_recipe
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "merging.md").read_text()
RECIPES = dict(
    re.findall(
        r"^## ([^\n]+)\n(?:(?!^## ).)*?```yaml\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE
    )
)


@pytest.mark.parametrize("heading", RECIPES)
def test_the_recipe_runs(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "recipe.yml").write_text(RECIPES[heading])
    merge_recipe(tmp_path / "recipe.yml", tmp_path / "merged", seed=7)
    merged = open_checkpoint(str(tmp_path / "merged"))
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    if heading == "Slices":
        assert config["num_hidden_layers"] == 6
    if heading == "Tokens and chat templates":
        assert merged.tensors["model.embed_tokens.weight"].shape[0] == config["vocab_size"]
        assert config["vocab_size"] % 16 == 0
        assert "im_start" in (tmp_path / "merged" / "chat_template.jinja").read_text()
    if heading == "Several stages":
        assert len(list(yaml.safe_load_all((tmp_path / "merged" / "recipe.yml").read_text()))) == 2


def test_every_section_has_its_recipe():
    assert list(RECIPES) == [
        "A recipe",
        "Gradients",
        "Filters",
        "Slices",
        "Modules",
        "LoRA",
        "Several stages",
        "Tokens and chat templates",
    ]
    assert PAGE.count("```yaml") == len(RECIPES)


def test_every_option_of_the_command_is_on_the_page():
    command = get_command(app).commands["merge"]
    options = {name for option in command.params for name in option.opts if name.startswith("--")}
    listed = set(re.findall(r"^\| `(--[\w-]+)` \|", PAGE, flags=re.MULTILINE))
    assert listed == options - {"--help"}
    for line in re.findall(r"^evomerge merge (.+)$", PAGE, flags=re.MULTILINE):
        assert set(re.findall(r"--[\w-]+", line)) <= options


def test_every_chat_template_is_on_the_page():
    from evomerge.engine.chat_templates import TEMPLATES

    for page in (PAGE, (ROOT / "docs" / "mergekit-compat.md").read_text()):
        assert all(f"`{name}`" in page for name in (*TEMPLATES, "auto"))


def test_every_switch_of_the_compiler_is_on_the_page():
    folder = ROOT / "evomerge" / "engine" / "native"
    source = "".join(file.read_text() for file in sorted(folder.glob("*.py")))
    names = set(re.findall(r"EVOMERGE_[A-Z]+", source))
    assert names == set(re.findall(r"^\| `(EVOMERGE_[A-Z]+)` \|", PAGE, flags=re.MULTILINE))
