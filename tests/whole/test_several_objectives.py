"""A run with several objectives and constraints: result, terminal, report and export."""

import json
import shutil
import subprocess

import pytest
import torch
import yaml
from safetensors.torch import load_file

import evomerge
from evomerge.report import write_report
from evomerge.search import inspect_file, open_run
from evomerge.search.hypervolume import hypervolume, is_surpassed
from tests.conftest import evomerge as command
from tests.conftest import read_result, small_space, succeed

TASKS = [
    {"name": "playground_add", "metric": "exact_match"},
    {"name": "playground_reverse", "metric": "exact_match"},
    {"name": "playground_sort", "metric": "acc"},
]
OBJECTIVES = ["playground_add", "playground_reverse"]


def write_space(path, at_least, **search):
    small_space(path, tasks=TASKS, search={"optimizer": "random", "finalists": 5, **search})
    data = yaml.safe_load(path.read_text())
    data |= {"objective": OBJECTIVES, "constraints": {"at_least": at_least}}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def run(folder):
    """A finished run whose constraint some candidates violate, and what the command printed.

    Without races: they would end for most of those candidates.
    """
    at_least = {"playground_sort": 0.75}
    space = write_space(folder / "space.yml", at_least, trials=24, racing=False)
    done = succeed("run", space, "--out", folder / "run", "--cache", folder / "cache")
    return folder / "run", done.stdout


@pytest.fixture(scope="module")
def impossible(folder, run):
    """The same candidates under constraints that none of them holds."""
    space = write_space(
        folder / "impossible.yml", {"playground_sort": 0.99, "playground_add": "add"}, trials=12
    )
    done = succeed("run", space, "--out", folder / "none", "--cache", folder / "cache")
    return folder / "none", done.stdout


def values(entry, split):
    return [each["value"] for each in entry[split]["objectives"].values()]


def test_result_json_has_the_fronts_and_what_they_cover(run):
    result = read_result(run[0])
    trials = open_run(run[0]).study.records
    candidates = [r for r in trials.values() if r.search and r.kind in ("proposed", "default")]
    holding = [r for r in candidates if r.search.tasks["playground_sort"].value >= 0.75]
    assert 0 < len(holding) < len(candidates)
    assert [r.number for r in candidates if r.violation == 0] == [r.number for r in holding]
    hidden = is_surpassed([r.search.reported for r in holding])
    front = [r.number for r, is_hidden in zip(holding, hidden, strict=True) if not is_hidden]
    assert [each["trial"] for each in result["search_front"]] == front
    assert not is_surpassed([values(each, "holdout") for each in result["pareto_front"]]).any()
    assert all(each["holds"] for e in result["pareto_front"] for each in e["constraints"])
    cover = result["hypervolume"]
    for split in ("search", "holdout"):
        rows = [values(baseline, split) for baseline in result["baselines"]]
        worst = [min(column) for column in zip(*rows, strict=True)]
        assert list(cover[split]["reference"].values()) == pytest.approx(worst)
        assert cover[split]["total"] >= cover[split]["baselines"]
    scored = [r for r in trials.values() if r.search and r.violation == 0]
    wanted = hypervolume(
        [r.search.reported for r in scored], list(cover["search"]["reference"].values())
    )
    assert cover["search"]["total"] == pytest.approx(wanted)
    assert cover["search"]["steps"][-1]["volume"] == pytest.approx(wanted)


def test_the_winner_holds_and_the_confidence_is_said(run):
    result = read_result(run[0])
    sort = result["winner"]["holdout"]["tasks"]["playground_sort"]
    (verdict,) = result["constraints"]["winner"]
    assert result["constraints"]["hold"]
    assert verdict["difference"] == pytest.approx(sort["value"] - 0.75)
    assert verdict["stderr"] == pytest.approx(sort["stderr"])
    others = [e for e in result["finalists"] if all(v["holds"] for v in e["constraints"])]
    best = max(others, key=lambda entry: values(entry, "holdout")[0])
    assert values(best, "holdout")[0] == values(result["winner"], "holdout")[0]
    assert f"holds sort at least 0.75: {verdict['difference']:+.3f} ± " in run[1]


def test_the_terminal_shows_front_and_verdicts_in_80_columns(run, impossible):
    for _, printed in (run, impossible):
        table = printed[printed.index("held-out items, mean") :]
        assert max(len(line.rstrip()) for line in table.splitlines()) <= 80
    assert "Pareto front: " in run[1]
    result = read_result(run[0])
    for each in result["pareto_front"]:
        name = (
            "default"
            if any(b["trial"] == each["trial"] for b in result["baselines"])
            else (f"trial {each['trial']}")
        )
        assert any(line.startswith(name) for line in run[1].splitlines())
    assert "no finalist holds every constraint" in impossible[1]
    assert "VIOLATED sort at least 0.99: -" in impossible[1]
    assert "add at least add: " in impossible[1]


def test_if_no_finalist_holds_the_least_violating_one_wins_and_is_marked(impossible):
    result = read_result(impossible[0])
    assert not result["constraints"]["hold"]

    def violation(entry):
        return sum(max(verdict["violation"], 0) for verdict in entry["constraints"])

    violations = [violation(entry) for entry in result["finalists"]]
    assert violations == sorted(violations)
    assert violations[0] > 0
    assert result["winner"]["trial"] == result["finalists"][0]["trial"]
    assert [each["trial"] for each in result["pareto_front"]] == [result["winner"]["trial"]]
    page = (impossible[0] / "report.html").read_text()
    assert "No finalist holds every constraint" in page
    evomerge.export_run(impossible[0], impossible[0] / "model")
    assert "**It violates a constraint**" in (impossible[0] / "model" / "README.md").read_text()


def test_the_report_draws_the_front_and_the_hypervolume(run):
    page = (run[0] / "report.html").read_text()
    for text in (
        "sort at least 0.75",
        "Pareto front",
        "The objectives against each other",
        "hypervolume on the search items",
        "candidate that violates a constraint",
        "on the held-out items",
    ):
        assert text in page
    assert page.count('class="plotly-graph-div"') == 5
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    done = subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            f"--user-data-dir={run[0] / 'browser'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            (run[0] / "report.html").resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.count("main-svg") >= 5
    assert "baselines alone" in done.stdout


def test_pareto_exports_each_member_with_an_index(run, tmp_path):
    result = read_result(run[0])
    done = succeed("export", run[0], tmp_path / "front", "--trial", "pareto")
    numbers = [each["trial"] for each in result["pareto_front"]]
    folders = {f"trial-{number}" for number in numbers}
    assert {path.name for path in (tmp_path / "front").iterdir()} == {
        *folders,
        "README.md",
        "pareto.json",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["front"], "nothing is left beside"
    index = json.loads((tmp_path / "front" / "pareto.json").read_text())
    assert [each["trial"] for each in index["front"]] == numbers
    page = (tmp_path / "front" / "README.md").read_text()
    for each in result["pareto_front"]:
        add = each["holdout"]["objectives"]["playground_add"]
        assert f"| {add['value']:.3f} ± {add['stderr']:.3f} |" in page
        model = tmp_path / "front" / f"trial-{each['trial']}"
        assert f"[trial-{each['trial']}](trial-{each['trial']})" in page
        assert "playground_sort at least 0.75: holds" in (model / "README.md").read_text()
        recipe = yaml.safe_load((model / "recipe.yml").read_text())
        assert recipe == dict(open_run(run[0]).trial(each["trial"]).recipe)
    for baseline in result["baselines"]:
        if baseline["trial"] not in numbers:
            assert f"`{baseline['name']}`" in page
    evomerge.export_run(run[0], tmp_path / "alone", trial=numbers[-1])
    alone = load_file(tmp_path / "alone" / "model.safetensors")
    member = load_file(tmp_path / "front" / f"trial-{numbers[-1]}" / "model.safetensors")
    assert alone.keys() == member.keys()
    assert all(torch.equal(alone[name], member[name]) for name in alone)
    assert all(f"trial {n}" in done.stdout or "default" in done.stdout for n in numbers)


def test_a_front_that_cannot_be_exported_leaves_nothing(run, tmp_path):
    def stop(place, count, name):
        if place == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evomerge.export_front(run[0], tmp_path / "front", on_member=stop)
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    refused = command("export", run[0], tmp_path / "full", "--trial", "pareto")
    assert refused.returncode == 2
    assert "not empty" in refused.stderr
    wrong = command("export", run[0], tmp_path / "new", "--trial", "paretto")
    assert wrong.returncode == 2
    assert "'paretto' is no trial" in wrong.stderr


def test_one_objective_has_no_front(quickstart, tmp_path):
    from evomerge.errors import StudyError

    with pytest.raises(StudyError, match="needs several objectives, this run has one"):
        evomerge.export_front(quickstart[0], tmp_path / "front")


def test_more_than_three_objectives_are_drawn_in_parallel(run, tmp_path):
    """The figure of the same run, told that it has four objectives."""
    from dataclasses import replace

    space = evomerge.load_space(run[0] / "space.yml")
    result = evomerge.run(space, run[0])

    def widen(summary):
        if summary is None:
            return None
        more = {f"{name}_again": each for name, each in summary.objectives.items()}
        return replace(summary, objectives={**summary.objectives, **more})

    def wide(record):
        return replace(record, search=widen(record.search), holdout=widen(record.holdout))

    four = replace(
        result,
        trials=tuple(map(wide, result.trials)),
        finalists=tuple(map(wide, result.finalists)),
        fronts=replace(
            result.fronts,
            search=tuple(map(wide, result.fronts.search)),
            holdout=tuple(map(wide, result.fronts.holdout)),
        ),
    )
    write_report(four, space, tmp_path / "four.html")
    page = (tmp_path / "four.html").read_text()
    assert page.count('"parcoords"') >= 2
    assert "Pareto front (held-out items)" in page


def test_check_shows_constraints(tmp_path):
    path = write_space(tmp_path / "space.yml", {"playground_sort": "average"})
    found = inspect_file(path)
    assert not found.problems
    assert "constraint: playground_sort at least average" in found.facts
    data = yaml.safe_load(path.read_text())
    data["recipe"]["models"] = data["recipe"]["models"][:1]
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    (problem,) = inspect_file(path).problems
    assert "at_least.playground_sort: this space has no baseline 'average'" in problem
