"""The comparison of search procedures, with a few items of one seed."""

import json
import math

import pytest

from evomerge.evaluation import TaskSet
from tests.conftest import ROOT

SMALL = ("--budget", 360, "--search-items", 6, "--holdout-items", 4, "--true-items", 30)
ARMS = ("--arms", "mergekit-evolve,evomerge", "--fractions", "1", "--seeds", "3")


@pytest.fixture(autouse=True, scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield


def bench(out, *arguments):
    import bench_search

    bench_search.main(["--out", str(out), *map(str, arguments)])


@pytest.fixture(scope="module")
def out(tmp_path_factory, scripts):
    folder = tmp_path_factory.mktemp("bench")
    bench(folder, *ARMS, *SMALL)
    return folder


def test_each_arm_has_its_trajectory_and_true_scores(out):
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
    for result in (peer, ours):  # as the space names it: results are kept for other machines
        assert result["recipe"]["base_model"] == "playground/base"
        assert str(ROOT) not in json.dumps(result)
    (choice,) = ours["choices"]
    # The last candidate is scored on a first rung at least.
    assert ours["candidates"][-1][0] < choice["spent"] <= 360 + 32
    assert 0 <= choice["holdout"] <= 1
    first = ours["finalists"][0]
    assert {key: first[key] for key in ("search", "holdout", "true")} == {
        key: choice[key] for key in ("search", "holdout", "true")
    }
    held_out = [each["holdout"] for each in ours["finalists"][1:]]
    assert held_out == sorted(held_out, reverse=True)


def test_what_is_there_is_not_measured_again_but_shown(out, capsys):
    file = out / "mergekit-evolve.seed-3.json"
    before = file.stat().st_mtime_ns
    bench(out, *ARMS, *SMALL, "--plot", out / "plot.svg")
    printed = capsys.readouterr().out
    assert "seed 3:" not in printed
    assert file.stat().st_mtime_ns == before
    assert "| mergekit-evolve | 1 | 360 |" in printed
    assert "| evomerge | 1 |" in printed
    summary = json.loads((out / "summary.json").read_text())
    points = summary["arms"]["mergekit-evolve"]["points"]
    assert summary["goal"] == points[-1]["true"][1]
    picture = (out / "plot.svg").read_text()
    assert picture.count("<polyline") == 2
    assert picture.endswith("</svg>\n")


def test_a_record_stands_for_the_folder(out, tmp_path, capsys):
    record = tmp_path / "record.jsonl"
    bench(out, *ARMS, *SMALL, "--record", record)
    expected = capsys.readouterr().out
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["arm"] for line in lines] == ["evomerge@1", "mergekit-evolve"]
    assert not any("candidates" in line for line in lines)
    other = {**lines[0], "protocol": {**lines[0]["protocol"], "budget": 1}}
    record.write_text(record.read_text() + json.dumps(other) + "\n")
    bench(tmp_path / "empty", *ARMS, *SMALL, "--record", record)
    assert capsys.readouterr().out == expected
    assert len(record.read_text().splitlines()) == 3


def test_results_of_other_budgets_are_not_compared(out):
    with pytest.raises(SystemExit, match="another folder to --out"):
        bench(out, *ARMS, *SMALL, "--budget", 720)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arms", "cmaes"), r"there is no arm 'cmaes' \(there are mergekit-evolve, "),
        (("--arms", "tpe@0.1"), "there is no arm 'tpe@0.1'"),
        (("--seeds", "0..3"), r"--seeds is like 0-19 or 3,5,8-9, got '0\.\.3'"),
    ],
)
def test_a_wrong_option_is_one_message(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        bench(tmp_path, *arguments)


def test_nobody_has_seen_the_items_of_the_true_score():
    from bench_search_problem import Problem, Protocol

    protocol = Protocol(budget=360, search_items=6, holdout_items=4, true_items=30)
    problem = Problem(protocol, 3)
    document = problem.space.document
    tasks = TaskSet.load(document.tasks, document.evaluation, seed=3)
    unseen = problem.unseen_items()
    assert list(unseen) == ["playground_add", "playground_reverse", "playground_sort"]
    for name, ids in unseen.items():
        assert len(set(ids)) == 30
        seen = {*tasks.items("search")[name], *tasks.items("holdout")[name]}
        assert len(seen) == 10
        assert not seen & set(ids)


def result(arm, seed, *choices):
    keys = ("fraction", "spent", "search", "true")
    return {"arm": arm, "seed": seed, "choices": [dict(zip(keys, c, strict=True)) for c in choices]}


def test_wins_are_counted_seed_by_seed_at_equal_cost():
    from bench_search_report import summarize

    results = [
        result("mergekit-evolve", 0, (0.1, 10, 0.7, 0.50), (1, 100, 0.8, 0.70)),
        result("mergekit-evolve", 1, (0.1, 10, 0.7, 0.60), (1, 100, 0.8, 0.74)),
        result("mergekit-evolve", 2, (0.1, 10, 0.7, 0.55), (1, 100, 0.8, 0.72)),
        result("evomerge@0.1", 0, (0.1, 9, 0.7, 0.73)),
        result("evomerge@0.1", 1, (0.1, 9, 0.7, 0.72)),
        result("evomerge@0.1", 2, (0.1, 9, 0.7, 0.55)),
        result("evomerge@1", 1, (1, 98, 0.8, 0.80)),
    ]
    summary = summarize(results)
    first, last = summary["arms"]["evomerge"]["points"]
    assert summary["goal"] == pytest.approx(0.72)
    assert first["true"] == pytest.approx([0.635, 0.72, 0.725])
    apart = 0.01 * math.sqrt((23**2 + 12**2 - 35**2 / 3) / 2 / 3)
    assert first["equal"] == pytest.approx([2, 3, 0.35 / 3, apart])
    assert first["final"][:2] == [1, 3]
    assert last["equal"] == last["final"] == [1, 1, pytest.approx(0.06), None]
    assert summary["reaches"] == {"mergekit-evolve": 100, "evomerge": 9}
