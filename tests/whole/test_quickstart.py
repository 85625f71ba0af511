"""The promise of the README: one command finds a merge that beats all of its parents."""

import json
import math

import pytest

from tests.conftest import evomerge, read_result, succeed


def test_the_winner_beats_every_parent_the_base_and_the_average(quickstart):
    run, _ = quickstart
    result = read_result(run)
    winner = result["winner"]["holdout"]["objective"]
    kinds = [baseline["kind"] for baseline in result["baselines"]]
    assert kinds.count("parent") >= 3
    assert {"base", "average"} <= set(kinds)
    for baseline in result["baselines"]:
        if baseline["kind"] == "default":
            continue
        theirs = baseline["holdout"]["objective"]
        stderr = math.hypot(winner["stderr"], theirs["stderr"])
        assert winner["value"] - theirs["value"] > 3 * stderr, baseline["name"]
    for comparison in result["comparisons"]:
        if comparison["kind"] != "default":
            assert comparison["difference"] > 3 * comparison["stderr"], comparison["baseline"]


def test_it_stays_within_its_budget(quickstart):
    result = read_result(quickstart[0])
    assert sum(result["trials"].values()) <= 100
    assert result["trials"]["failed"] == 0
    for task in result["winner"]["search"]["tasks"].values():
        assert task["items"] >= 300
    for task in result["winner"]["holdout"]["tasks"].values():
        assert task["items"] >= 600


def test_the_skills_are_of_both_kinds(quickstart):
    metrics = {
        t["metric"] for t in read_result(quickstart[0])["winner"]["search"]["tasks"].values()
    }
    assert metrics == {"exact_match", "acc"}


def test_everything_is_in_the_run_directory(quickstart):
    run, printed = quickstart
    for name in ("space.yml", "study.db", "best.yml", "result.json", "report.html"):
        assert (run / name).is_file(), name
    assert "runs/quickstart/best.yml" in printed
    assert "runs/quickstart/report.html" in printed
    assert "better than the best parent" in " ".join(printed.split())


def test_result_json_has_the_promised_shape(quickstart):
    result = read_result(quickstart[0])
    assert result["space"] == "quickstart"
    assert result["seed"] == 0
    assert set(result["trials"]) == {"complete", "failed", "pruned"}
    parts = {"load", "materialize", "score", "propose", "store", "total"}
    assert set(result["seconds"]) == parts
    assert all(value >= 0 for value in result["seconds"].values())
    scored = [result["winner"], *result["baselines"], *result["finalists"]]
    for entry in scored:
        for split in ("search", "holdout"):
            assert set(entry[split]["objective"]) == {"value", "stderr", "items"}
            for task in entry[split]["tasks"].values():
                assert set(task) == {"metric", "value", "stderr", "items"}
    for comparison in result["comparisons"]:
        low, high = comparison["interval"]
        assert low < comparison["difference"] < high
        assert 0 <= comparison["p_value"] <= 1
    assert result["item_evaluations"] > 0


def test_the_same_command_again_is_done_at_once(quickstart, workspace):
    run, _ = quickstart
    before = (run / "result.json").read_bytes()
    succeed("run", "search_spaces/quickstart.yml", cwd=workspace)
    assert (run / "result.json").read_bytes() == before


@pytest.mark.parametrize("name", ["quickstart.yml", "math_code.yml"])
def test_the_spaces_that_are_shipped_pass_check(name, workspace):
    inspection = json.loads(
        succeed("check", f"search_spaces/{name}", "--json", cwd=workspace).stdout
    )
    assert inspection["dimensions"]
    assert not inspection["problems"]


def test_the_smollm2_space_lacks_nothing_but_its_models(workspace):
    done = evomerge("check", "search_spaces/smollm2.yml", "--json", cwd=workspace)
    assert done.returncode == 2
    inspection = json.loads(done.stdout)
    assert len(inspection["dimensions"]) == 6
    assert len(inspection["problems"]) == 3
    for problem in inspection["problems"]:
        assert "models/smollm2/" in problem
        assert "no such folder" in problem
