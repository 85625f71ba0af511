"""The comparison of search procedures, with a few items of one seed."""

import json
import subprocess
import sys

import pytest

from evomerge.evaluation import TaskSet
from tests.conftest import ENVIRONMENT, ROOT

SCRIPTS = ROOT / "scripts"
SMALL = ("--budget", 360, "--search-items", 6, "--holdout-items", 4, "--true-items", 30)


def bench(out, *arguments):
    return subprocess.run(
        [sys.executable, SCRIPTS / "bench_search.py", "--out", out, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    arms = ("--arms", "mergekit-evolve,evomerge", "--fractions", "1", "--seeds", "3")
    first = bench(out, *arms, *SMALL, "--plot", out / "plot.svg")
    assert first.returncode == 0, first.stdout + first.stderr
    return out, first.stdout, arms


def test_each_arm_has_its_trajectory_and_true_scores(done):
    out, _, _ = done
    peer = json.loads((out / "mergekit-evolve.seed-3.json").read_text())
    # 18 items a candidate: 20 candidates, the twenty-first would exceed the budget.
    assert [spent for spent, _ in peer["candidates"]] == list(range(18, 361, 18))
    scores = [score for _, score in peer["candidates"]]
    for choice in peer["choices"]:
        reached = scores[: choice["spent"] // 18]
        assert choice["spent"] <= max(choice["fraction"] * 360, 18)
        assert choice["candidate"] == reached.index(max(reached))
        assert choice["search"] == max(reached)
        assert 0 <= choice["true"] <= 1
        mean = sum(choice["tasks"].values()) / 3
        assert choice["true"] == pytest.approx(mean)
        assert choice["true"] * 90 == pytest.approx(round(choice["true"] * 90))
    assert peer["choices"][-1]["fraction"] == 1
    ours = json.loads((out / "evomerge@1.seed-3.json").read_text())
    (choice,) = ours["choices"]
    assert ours["candidates"][-1][0] < choice["spent"] <= 360
    assert 0 <= choice["holdout"] <= 1


def test_tables_summary_and_plot(done):
    out, printed, _ = done
    summary = json.loads((out / "summary.json").read_text())
    points = summary["arms"]["mergekit-evolve"]["points"]
    assert summary["goal"] == points[-1]["true"][1]
    assert "| mergekit-evolve | 1 | 360 |" in printed
    assert "| evomerge | 1 |" in printed
    picture = (out / "plot.svg").read_text()
    assert picture.count("<polyline") == 2
    assert picture.endswith("</svg>\n")


def test_what_is_there_is_not_measured_again(done):
    out, _, arms = done
    file = out / "mergekit-evolve.seed-3.json"
    before = file.stat().st_mtime_ns
    again = bench(out, *arms, *SMALL)
    assert again.returncode == 0
    assert "seed 3:" not in again.stdout
    assert file.stat().st_mtime_ns == before


def test_results_of_other_budgets_are_not_compared(done):
    out, _, arms = done
    other = bench(out, *arms, *SMALL, "--budget", 720)
    assert other.returncode == 1
    assert "another folder to --out" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arms", "cmaes"), "there is no arm 'cmaes' (there are mergekit-evolve, "),
        (("--arms", "tpe@0.1"), "there is no arm 'tpe@0.1'"),
        (("--seeds", "0..3"), "--seeds is like 0-19 or 3,5,8-9, got '0..3'"),
    ],
)
def test_a_wrong_option_is_one_message(tmp_path, arguments, message):
    wrong = bench(tmp_path, *arguments)
    assert wrong.returncode == 1
    assert message in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_search_problem
    import bench_search_report

    return bench_search_problem, bench_search_report


def test_nobody_has_seen_the_items_of_the_true_score(modules):
    problems, _ = modules
    protocol = problems.Protocol(budget=360, search_items=6, holdout_items=4, true_items=30)
    problem = problems.Problem(protocol, 3)
    document = problem.space.document
    tasks = TaskSet.load(document.tasks, document.evaluation, seed=3)
    unseen = problem.unseen_items()
    assert list(unseen) == ["playground_add", "playground_reverse", "playground_sort_write"]
    for name, ids in unseen.items():
        assert len(set(ids)) == 30
        seen = {*tasks.items("search")[name], *tasks.items("holdout")[name]}
        assert len(seen) == 10
        assert not seen & set(ids)


def result(arm, seed, *choices):
    keys = ("fraction", "spent", "search", "true")
    return {"arm": arm, "seed": seed, "choices": [dict(zip(keys, c, strict=True)) for c in choices]}


def test_wins_are_counted_seed_by_seed_at_equal_cost(modules):
    _, report = modules
    results = [
        result("mergekit-evolve", 0, (0.1, 10, 0.7, 0.50), (1, 100, 0.8, 0.70)),
        result("mergekit-evolve", 1, (0.1, 10, 0.7, 0.60), (1, 100, 0.8, 0.74)),
        result("mergekit-evolve", 2, (0.1, 10, 0.7, 0.55), (1, 100, 0.8, 0.72)),
        result("evomerge@0.1", 0, (0.1, 9, 0.7, 0.73)),
        result("evomerge@0.1", 1, (0.1, 9, 0.7, 0.72)),
        result("evomerge@0.1", 2, (0.1, 9, 0.7, 0.55)),
        result("evomerge@1", 1, (1, 98, 0.8, 0.80)),
    ]
    summary = report.summarize(results)
    first, last = summary["arms"]["evomerge"]["points"]
    assert summary["goal"] == pytest.approx(0.72)
    assert first["true"] == pytest.approx([0.635, 0.72, 0.725])
    assert first["equal"] == [2, 3]
    assert first["final"] == [1, 3]
    assert last["equal"] == last["final"] == [1, 1]
    assert summary["reaches"] == {"mergekit-evolve": 100, "evomerge": 9}
