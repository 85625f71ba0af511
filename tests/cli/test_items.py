"""``evomerge items`` on a run with two objectives and smooth metrics, and the run's cache."""

import csv
import json
from pathlib import Path

import pytest
from pyarrow import parquet
from scipy import stats
from typer.testing import CliRunner

import evomerge
from evomerge.cli.main import app
from evomerge.errors import StudyError
from evomerge.evaluation import ItemScores
from tests.conftest import read_result, small_space

TASKS = [
    {"name": "playground_add", "metric": "exact_match", "smooth": "gold_bits_per_byte"},
    {"name": "playground_sort", "metric": "acc", "smooth": "margin"},
]


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    import yaml

    path = small_space(
        tmp_path_factory.mktemp("space") / "space.yml",
        tasks=TASKS,
        search={"optimizer": "tpe", "trials": 8},
    )
    data = yaml.safe_load(path.read_text())
    data["objective"] = {"sort": {"tasks": ["playground_sort"]}, "all": "min"}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return evomerge.load_space(path)


@pytest.fixture(scope="module")
def run(space, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    evomerge.run(space, folder / "run", cache=folder / "shared", device="cpu")
    return folder / "run"


def items(run, *arguments):
    """Run the command in this process, 80 columns wide."""
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["items", str(run), *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    return done.stdout


def test_nothing_is_scored_twice_across_runs(run, space):
    first = read_result(run)
    scored = sum(first["trials"].values())
    held_out = {each["trial"] for each in (*first["baselines"], *first["finalists"])}
    assert first["item_evaluations"] == 80 * scored + 120 * len(held_out)
    evomerge.run(space, run.parent / "again", cache=run.parent / "shared", device="cpu")
    second = read_result(run.parent / "again")
    assert second["item_evaluations"] == 0
    for key in ("winner", "finalists", "baselines", "comparisons", "optimism", "pareto_front"):
        assert second[key] == first[key], key


def test_result_json_has_both_objectives_and_what_guided_them(run):
    result = read_result(run)
    assert result["pareto_front"]
    for entry in [result["winner"], *result["baselines"], *result["pareto_front"]]:
        for split in ("search", "holdout"):
            scores = entry[split]
            assert list(scores["objectives"]) == list(scores["guides"]) == ["sort", "all"]
            assert scores["objective"] == scores["objectives"]["sort"]
            assert scores["smooth"]["playground_sort"]["metric"] == "margin"
            tasks = [scores["tasks"][name]["value"] for name in scores["tasks"]]
            assert scores["objectives"]["all"]["value"] == min(tasks)
    holdout = [each["holdout"]["objective"]["value"] for each in result["finalists"]]
    assert result["winner"]["holdout"]["objective"]["value"] == max(holdout)


def test_optimism_is_search_minus_holdout_beside_the_best_parent_s(run):
    result = read_result(run)
    parent = max(
        (each for each in result["baselines"] if each["kind"] == "parent"),
        key=lambda each: each["holdout"]["objective"]["value"],
    )
    gaps = {}
    for name, entry in {"winner": result["winner"], "best_parent": parent}.items():
        search, holdout = (entry[split]["objective"] for split in ("search", "holdout"))
        gaps[name] = search["value"] - holdout["value"]
        found = result["optimism"][name]
        assert found["difference"] == pytest.approx(gaps[name])
        assert found["stderr"] == pytest.approx(
            (search["stderr"] ** 2 + holdout["stderr"] ** 2) ** 0.5
        )
    beyond = result["optimism"]["beyond_best_parent"]
    assert beyond["difference"] == pytest.approx(gaps["winner"] - gaps["best_parent"])
    assert beyond["interval"][0] < beyond["difference"] < beyond["interval"][1]


def test_it_prints_the_winner_s_held_out_items(run):
    printed = items(run, "--rows", 5)
    number = read_result(run)["winner"]["trial"]
    kept = ItemScores.from_parquet(run / "items" / f"{number:05d}.holdout.parquet")
    task = kept.by_task["playground_add"]
    assert all(item in printed for item in task.items[:5])
    assert task.items[5] not in printed
    assert "115 more; --rows 0 prints all" in printed
    assert f"playground_sort: acc {kept.tasks()['playground_sort'].value:.4f} ±" in printed


def test_two_trials_item_by_item(run):
    printed = items(run, "--trial", 0, "--versus", 2, "--split", "search")
    summary = printed.partition("paired difference, positive where the first is better")[2]
    assert summary.count("±") == 4
    assert "…" not in summary, "numbers are cut"
    found = json.loads(items_json(run, "--trial", 0, "--versus", 2, "--split", "search"))
    assert [each["name"] for each in found["comparisons"]] == [
        *("playground_add", "playground_sort", "sort", "all")
    ]
    one, two = (
        ItemScores.from_parquet(run / "items" / f"{n:05d}.search.parquet").by_task["playground_add"]
        for n in (0, 2)
    )
    reference = stats.ttest_rel(one.values, two.select(one.items).values)
    assert found["comparisons"][0]["p_value"] == pytest.approx(reference.pvalue)
    differing = [i for i, (a, b) in enumerate(zip(one.values, two.values, strict=True)) if a != b]
    assert one.items[differing[0]] in printed


def test_of_a_stopped_trial_the_items_that_both_have_are_compared(tmp_path):
    space = evomerge.load_space(
        small_space(
            tmp_path / "space.yml",
            tasks=[{"name": "playground_sort", "metric": "acc", "smooth": False}],
            evaluation={"search_items": 200, "holdout_items": 10},
            search={"trials": 14, "finalists": 1},
        )
    )
    result = evomerge.run(space, tmp_path / "run", device="cpu")
    stopped = next(trial for trial in result.trials if trial.state == "pruned")
    whole = next(trial for trial in result.trials if trial.holdout is not None)
    assert stopped.search.num_items < 200
    for pair in ((stopped, whole), (whole, stopped)):
        arguments = ("--trial", pair[0].number, "--versus", pair[1].number)
        found = json.loads(items_json(tmp_path / "run", *arguments))
        assert (found["split"], found["items"]) == ("search", stopped.search.num_items)
        assert len(found["comparisons"]) == 2
        assert f"of {stopped.search.num_items} items that both" in items(
            tmp_path / "run", *arguments
        )


def items_json(run, *arguments):
    done = CliRunner().invoke(app, ["items", str(run), *map(str, arguments), "--json"])
    assert done.exit_code == 0
    return done.stdout


def test_exports(run, tmp_path, monkeypatch):
    run = run.resolve()
    monkeypatch.chdir(tmp_path)
    records = read_result(run)["trials"]["complete"]
    for suffix in ("csv", "parquet", "jsonl"):
        path = Path(f"items.{suffix}")
        assert "wrote" in items(run, "--output", path)
        if suffix == "csv":
            rows = list(csv.DictReader(path.read_text().splitlines()))
        elif suffix == "jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        else:
            rows = parquet.read_table(path).to_pylist()
        assert {int(row["trial"]) for row in rows} == set(range(records))
        search = [row for row in rows if row["split"] == "search"]
        assert len(search) == records * 80 * 2, "the metric and what guides the search"
    items(run, "--output", "one.csv", "--trial", 3, "--task", "playground_sort")
    rows = list(csv.DictReader(Path("one.csv").read_text().splitlines()))
    assert {(row["trial"], row["task"]) for row in rows} == {("3", "playground_sort")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "playground_ad"), "did you mean 'playground_add'"),
        (("--trial", "99"), "there is no trial 99"),
        (("--output", "x.txt"), r"ends in \.parquet, \.csv, \.jsonl"),
        (("--output", "x.csv", "--versus", "1"), "--json with --versus"),
    ],
)
def test_refusals(run, arguments, message):
    with pytest.raises(StudyError, match=message):
        items(run, *arguments)
