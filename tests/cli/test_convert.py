"""evomerge convert: printing, writing, paths, refusals."""

import os
import resource
import subprocess
import sys

import yaml

from evomerge.space import load_space
from tests.conftest import ROOT, evomerge, succeed

GENOME = {
    "genome": {
        "models": ["models/llama_a", "models/llama_b", "models/llama_c"],
        "merge_method": "slerp",
        "layer_granularity": 2,
        "allow_negative_weights": True,
    },
    "tasks": [{"name": "a", "metric": "word_perplexity", "weight": -1.0}],
    "random_init": True,
}


def genome_file(folder, **changes):
    (folder / "models").symlink_to(ROOT / "tests" / "golden" / "models")
    path = folder / "genome.yml"
    path.write_text(yaml.safe_dump({**GENOME, **changes}))
    return path


def test_it_prints_a_space_with_comments_and_notes(tmp_path):
    path = genome_file(tmp_path)
    done = succeed("convert", path, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0] == "# genome.yml of mergekit-evolve, as a search space of evomerge."
    assert max(map(len, lines)) <= 100
    assert "          weight: {search: [0.0, 4.0]}" in lines
    assert any(line.startswith("# mergekit-evolve's rule for slerp") for line in lines)
    assert yaml.safe_load(done.stdout)["tasks"] == [
        {"name": "a", "metric": "word_perplexity", "weight": 1.0}
    ]
    assert "note: random_init has no effect" in done.stderr
    assert "note: allow_negative_weights has no effect" in done.stderr


def test_written_elsewhere_it_finds_its_models(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    path = genome_file(source)
    out = tmp_path / "other" / "space.yml"
    here = os.path.relpath(path, tmp_path)
    assert "wrote" in succeed("convert", here, "--out", "other/space.yml", cwd=tmp_path).stdout
    monkeypatch.chdir(tmp_path)
    space, mine = load_space(out), load_space(here)
    assert (
        space.model_names()
        == mine.model_names()
        == tuple(f"source/models/llama_{letter}" for letter in "abc")
    )
    assert space.dimensions == mine.dimensions


def test_what_it_refuses_is_one_message(tmp_path):
    path = genome_file(tmp_path)
    refused = evomerge("convert", path, "--out", path)
    assert refused.returncode == 2
    assert "this file is there already" in refused.stderr
    path.write_text(yaml.safe_dump({"recipe": {}}))
    refused = evomerge("convert", path)
    assert refused.returncode == 2
    assert "a search space already" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_file_that_finds_no_room_is_one_message(tmp_path):
    path = genome_file(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "evomerge", "convert", path.name, "--out", "space.yml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: File too large"
    assert not (tmp_path / "space.yml").exists()
