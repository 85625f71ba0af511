"""The benchmark scripts, on checkpoints of a hundred thousand parameters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.checkpoints import open_checkpoint
from evomerge.engine import plan_merge
from evomerge.methods import METHODS
from evomerge.recipe import parse_recipe
from tests.conftest import ENVIRONMENT, ROOT

SCRIPTS = ROOT / "scripts"


def script(name, *arguments):
    return subprocess.run(
        [sys.executable, SCRIPTS / name, "--parameters", "1e5", *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, SCRIPTS / "benchmark_models.py", folder, "1e5"]
    subprocess.run(command, check=True, env=ENVIRONMENT)
    return folder


@pytest.fixture
def benchmark_models(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_models

    return benchmark_models


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_table_has_its_recipe(models, benchmark_models, method):
    spec = METHODS[method]
    plans = []
    for candidate in range(6):
        recipe = parse_recipe(benchmark_models.recipe(spec, models, candidate))
        opened = {name: open_checkpoint(name) for name in recipe.model_names()}
        plans.append(plan_merge(recipe, opened))
    inputs = plans[0].outputs[0].inputs
    assert spec.min_models <= len(inputs) <= (spec.max_models or 4)
    assert len(inputs) == len(set(inputs))
    if any(parameter.kind == "float" for parameter in spec.parameters):
        settings = [str(plan.outputs[0].settings) for plan in plans]
        assert len(set(settings)) == len(settings)


def test_the_size_of_a_checkpoint(benchmark_models):
    for wanted in (1e6, 160e6, 1e9):
        shapes = benchmark_models.shapes(benchmark_models.config(wanted)).values()
        count = sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes)
        assert count == pytest.approx(wanted, rel=0.15)


def test_the_distance_from_the_speed_of_memory(tmp_path):
    arguments = ("--methods", "linear", "ties", "--repeats", 2, "--threads", 1)
    done = script("bench_merge.py", *arguments, "--folder", tmp_path, "--json", tmp_path / "j.json")
    report = json.loads((tmp_path / "j.json").read_text())
    assert [result["method"] for result in report["results"]] == ["linear", "ties"]
    for result, inputs in zip(report["results"], (3, 4), strict=True):
        assert result["num_inputs"] == inputs
        assert result["bytes"] == (inputs + 1) * 2 * report["parameters"]
        assert result["ratio"] == pytest.approx(
            result["bytes"] / report["copy_bytes_per_second"] / result["warm_seconds"]
        )
        assert result["warm_median_seconds"] >= result["warm_seconds"] > 0
        assert result["peak_bytes"] > 10**7
        assert result["cold_seconds"] >= 0
    assert report["threads"] == 1
    for text in ("floor / warm", "linear", "ties", "GB/s (read + written)"):
        assert text in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["j.json"]


def test_an_unknown_method_is_told():
    done = subprocess.run(
        [sys.executable, SCRIPTS / "bench_merge.py", "--methods", "tias"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "unknown method 'tias'" in done.stderr
    assert "Traceback" not in done.stderr


STAND_IN = """\
#!/bin/sh
if [ "$1" = -c ]; then shift 2; echo inside 0.5; fi
grep -q "merge_method: ties" "$1" && { echo "no ties here" >&2; exit 1; }
mkdir -p "$2" && touch "$2/model.safetensors"
"""


def test_two_programs_in_turn(tmp_path):
    """With a stand-in for the other program, which is not installed here."""
    for name in ("python", "mergekit-yaml"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        file = tmp_path / "bin" / name
        file.write_text(STAND_IN)
        file.chmod(0o755)
    json_file = tmp_path / "j.json"
    done = script(
        "bench_vs_mergekit.py",
        *(tmp_path / "bin" / "python", "--methods", "linear", "ties", "--json", json_file),
        *("--folder", tmp_path / "models"),
    )
    linear, ties = json.loads(json_file.read_text())["results"]
    assert linear["mergekit"]["inside_seconds"] == 0.5
    ours = linear["evomerge"]
    assert 0 < ours["inside_seconds"] < ours["wall_seconds"]
    assert linear["inside_seconds_ratio"] == pytest.approx(0.5 / ours["inside_seconds"])
    assert linear["wall_seconds_ratio"] < 1
    # A child's peak is its own and not this script's.
    assert linear["mergekit"]["peak_bytes"] < 10**8 < ours["peak_bytes"]
    assert ties["mergekit"] == {"error": "no ties here"}
    assert "wall_seconds_ratio" not in ties
    assert "ties: mergekit: no ties here" in done.stdout
    assert list((tmp_path / "models").iterdir()) == []


def test_a_python_without_mergekit_is_told(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPTS / "bench_vs_mergekit.py", Path(tmp_path) / "python"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "has no mergekit" in done.stderr
    assert "Traceback" not in done.stderr
