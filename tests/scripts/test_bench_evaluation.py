"""The scripts behind the tables of docs/evaluation.md, as small as they can be."""

import importlib
import json
import re
import sys

import pytest

from tests.conftest import ROOT, small_space

PAGE = (ROOT / "docs" / "evaluation.md").read_text()


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script in this process; return what it printed."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))

    def script(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        importlib.import_module(name).main()
        return capsys.readouterr().out

    return script


def test_scoring_beside_the_batches_alone(script, tmp_path):
    space, out = small_space(tmp_path / "space.yml"), tmp_path / "out.json"
    printed = script("bench_eval", space, "--repeats", 1, "--json", out)
    assert "batches alone s" in printed
    (found,) = json.loads(out.read_text())["results"]
    assert found["items"] == 80
    # Generation, and one log-likelihood call for each kind of continuation; smooth guides too.
    assert found["batches"] >= 2
    assert found["ratio"] == pytest.approx(found["scoring_seconds"] / found["batches_seconds"])


def test_guides(script, tmp_path):
    out = tmp_path / "out.json"
    sizes = ("--seeds", 1, "--items", 4, "--holdout", 4, "--trials", 7)
    printed = script("bench_smooth", *sizes, "--json", out)
    names = ["accuracy", "blend", "bits per byte", "probability"]
    assert list(json.loads(out.read_text())["scores"]) == names
    assert re.findall(r"^seed 0, (.*?):", printed, re.MULTILINE) == names


def test_optimism_and_its_plot(script, tmp_path):
    plot = tmp_path / "plot.svg"
    sizes = ("--seeds", 2, "--trials", 7, "--search-items", 4, "--holdout-items", 4)
    arguments = ("--out", tmp_path / "runs", *sizes, "--true-items", 8, "--plot", plot)
    printed = script("bench_optimism", *arguments)
    assert "held-out score" in printed
    assert plot.read_text().count("<circle") == 4
    assert script("bench_optimism", *arguments) == printed  # what is there is not run again


def test_the_plot_on_the_page_has_the_numbers_of_its_table():
    plot = (ROOT / "docs" / "optimism.svg").read_text()
    rows = re.findall(r"^\| \S.* score of the .* \| (\+0\.\d+) ± 0\.\d+ \|$", PAGE, re.MULTILINE)
    assert re.findall(r"mean (\+0\.\d+)</text>", plot) == rows
    assert plot.count("<circle") == 2 * 10
