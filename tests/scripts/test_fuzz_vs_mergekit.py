"""The comparison with mergekit on random recipes, with a stand-in for mergekit."""

import subprocess
import sys

import pytest
import yaml

from evomerge.methods import METHODS
from evomerge.recipe import parse_recipe
from tests.conftest import ENVIRONMENT, ROOT

SCRIPTS = ROOT / "scripts"

STAND_IN = """\
import sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from evomerge.errors import EvomergeError
from evomerge.export import merge_recipe
for path in sorted(Path(sys.argv[1]).glob("*.yml")):
    out = path.with_suffix(".mergekit")
    try:
        if path.stem == "0001":
            raise EvomergeError("not here")
        merge_recipe(str(path), str(out), seed=0)
    except EvomergeError as error:
        out.mkdir(exist_ok=True)
        (out / "error.txt").write_text(str(error))
        continue
    if path.stem == "0002":
        (file,) = out.glob("*.safetensors")
        tensors = load_file(file)
        tensors["model.norm.weight"][3] += 0.5
        save_file(tensors, file)
"""


def test_what_differs_and_who_refuses_is_told(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "merge.py"}" "$3"\n')
    python.chmod(0o755)
    (tmp_path / "merge.py").write_text(STAND_IN)
    done = subprocess.run(
        [
            *(sys.executable, SCRIPTS / "fuzz_vs_mergekit.py", python),
            *("--recipes", "6", "--seed", "1", "--methods", "ties,linear"),
        ],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "0001 refused there: not here" in done.stdout
    assert "0002 different: model.norm.weight: 1 elements off by up to 0.5" in done.stdout
    assert done.stdout.count(" different: ") == 1
    table = [line.split() for line in done.stdout.splitlines()]
    rows = {line[0]: list(map(int, line[1:])) for line in table if line and line[0] in METHODS}
    assert sum(map(sum, rows.values())) == 6


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import fuzz_vs_mergekit

    return fuzz_vs_mergekit


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_drawn_in_every_form(fuzz, method):
    recipes = fuzz.Recipes(0, [METHODS[method]])
    drawn = [recipes.next() for _ in range(60)]
    for recipe in drawn:
        parse_recipe(recipe)
    texts = [yaml.safe_dump(recipe) for recipe in drawn]
    assert any("layer_range" in text for text in texts)
    assert any("models:" in text for text in texts)
    assert any("tokenizer:" in text for text in texts) != (method == "passthrough")
    given = {parameter.name for parameter in METHODS[method].parameters} - fuzz.KEPT
    assert all(any(f"{name}:" in text for text in texts) for name in given)
