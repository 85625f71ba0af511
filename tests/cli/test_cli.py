"""The command line itself: help, start-up, tables at 80 columns."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ENVIRONMENT, ROOT, evomerge, small_space, succeed

COMMANDS = ("run", "check", "convert", "merge", "export", "eval", "methods", "dashboard")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from evomerge.cli.main import app\n"
        "heavy = {'torch', 'transformers', 'optuna', 'ray', 'lm_eval', 'cma', 'plotly'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_bad_file_is_refused_before_anything_heavy_is_imported(tmp_path, command):
    path = small_space(tmp_path / "space.yml", search={"optimiser": "cma"})
    code = (
        "import sys; from evomerge.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 2, end.code\n"
        "heavy = {'torch', 'transformers', 'optuna', 'ray', 'lm_eval', 'cma', 'plotly'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, command, str(path)]
    done = subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True, text=True)
    assert "did you mean 'optimizer'?" in done.stderr


def test_help_lists_every_command():
    printed = succeed("--help").stdout
    for command in COMMANDS:
        assert f" {command} " in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(command):
    printed = succeed(command, "--help").stdout
    assert "Examples" in printed
    assert f"evomerge {command}" in printed.replace("\n", " ")


def test_the_public_door_opens_without_torch():
    code = (
        "import sys, evomerge\n"
        "assert 'torch' not in sys.modules\n"
        "for name in evomerge.__all__: getattr(evomerge, name)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)


def test_methods_table_and_json():
    from evomerge.methods import METHODS

    printed = succeed("methods").stdout
    for name in METHODS:
        assert name in printed
    rows = json.loads(succeed("methods", "ties", "--json").stdout)
    assert [parameter["name"] for parameter in rows[0]["parameters"]][:2] == ["weight", "density"]
    assert "arXiv" in succeed("methods", "ties").stdout


def test_check_shows_dimensions_models_memory_and_items(tmp_path):
    printed = succeed("check", small_space(tmp_path / "space.yml")).stdout
    for text in (
        "3 dimensions",
        "add.weight",
        "0 … 1",
        "tokenizers: all 4 agree",
        "each worker needs about",
        "playground_sort: 40 search items, 60 held-out items",
        "nothing is wrong",
    ):
        assert text in printed
    assert all(len(line) <= 80 for line in printed.splitlines())


def test_check_reads_recipes_too(tmp_path):
    models = ROOT / "search_spaces" / "playground"
    (tmp_path / "recipe.yml").write_text(
        f"merge_method: slerp\nbase_model: {models}/add\nmodels: [{{model: {models}/add}}, "
        f"{{model: {models}/sort}}]\nparameters: {{t: 0.5}}\n"
    )
    done = json.loads(succeed("check", tmp_path / "recipe.yml", "--json").stdout)
    assert done["kind"] == "recipe"
    assert [model["name"] for model in done["models"]] == [f"{models}/add", f"{models}/sort"]
    assert done["problems"] == []


def test_check_collects_what_is_wrong(tmp_path):
    space = small_space(
        tmp_path / "space.yml", tasks=[{"name": "playground_ad", "metric": "exact_match"}]
    )
    done = evomerge("check", space)
    assert done.returncode == 2
    assert "wrong:" in done.stdout
    assert "playground_add" in done.stdout


def test_eval_prints_a_table(tmp_path):
    space = small_space(tmp_path / "space.yml")
    model = ROOT / "search_spaces" / "playground" / "add"
    printed = succeed("eval", model, "--space", space, "--items", "search").stdout
    assert "playground_add" in printed
    assert "±" in printed


def test_version():
    assert succeed("--version").stdout.startswith("evomerge 0.")
