"""Whole commands with vLLM: run, export, eval.

Runs in an environment of its own: scripts/test_vllm.sh.
"""

import json

import pytest

from tests.conftest import read_result, small_space, succeed
from tests.workers.vllm_cases import ENGINE, NEEDS_VLLM

pytestmark = NEEDS_VLLM

PLAYGROUND = {**ENGINE, "max_num_seqs": 64}


def test_a_run_ends_with_a_winner_that_hf_and_vllms_own_processes_score_the_same(tmp_path):
    space = small_space(tmp_path / "space.yml", evaluation={"backend": "vllm", "vllm": PLAYGROUND})
    run = tmp_path / "run"
    succeed("run", space, "--out", run, "--trials", "10")
    result = read_result(run)
    assert result["trials"]["failed"] == 0
    succeed("export", run, tmp_path / "merged")
    plain = small_space(tmp_path / "plain.yml")
    winner = result["winner"]["holdout"]["tasks"]
    for model, where, environment in (
        (tmp_path / "merged", plain, {}),
        (run / "best.yml", space, {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}),
    ):
        done = succeed("eval", model, "--space", where, "--json", **environment)
        for name, values in json.loads(done.stdout)["tasks"].items():
            assert values["value"] == pytest.approx(winner[name]["value"], abs=1e-9), model


def test_a_run_with_a_proxy_names_it_and_its_winner_is_scored_without(tmp_path):
    engine = {**PLAYGROUND, "quantization": "fp8_per_channel"}
    evaluation = {"backend": "vllm", "dtype": "bfloat16", "vllm": engine}
    space = small_space(tmp_path / "space.yml", evaluation=evaluation)
    run = tmp_path / "run"
    done = succeed("run", space, "--out", run, "--trials", "8")
    printed = " ".join(done.stdout.split())
    assert "those of a proxy, the engine with quantization fp8_per_channel" in printed
    result = read_result(run)
    assert result["proxy"] == "quantization fp8_per_channel"
    assert result["trials"]["failed"] == 0
    assert "a proxy" in (run / "report.html").read_text()
    succeed("export", run, tmp_path / "merged")
    done = succeed("eval", tmp_path / "merged", "--space", space, "--json")
    for name, values in json.loads(done.stdout)["tasks"].items():
        assert values["value"] == result["winner"]["holdout"]["tasks"][name]["value"]
