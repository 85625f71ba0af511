"""A run that is guided by blends: calibrated on its baselines, once, the same after a resume."""

from dataclasses import replace

import numpy as np
import pytest

import evomerge
from evomerge.evaluation import ItemScores
from evomerge.evaluation.calibration import Calibration
from evomerge.search import RunDirectory, Study, open_run, open_storage
from evomerge.search.judging import Judge
from evomerge.search.objectives import ObjectiveFacts
from evomerge.workers import Scored
from tests.conftest import small_space


def space_with(folder, smooth, trials=9):
    tasks = [
        {"name": "playground_add", "metric": "exact_match", **smooth},
        {"name": "playground_sort", "metric": "acc", **smooth},
    ]
    path = small_space(
        folder / "space.yml",
        tasks=tasks,
        search={"trials": trials, "optimizer": "cma"},
    )
    return evomerge.load_space(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("blend")


@pytest.fixture(scope="module")
def run(folder):
    evomerge.run(space_with(folder, {}), folder / "auto", device="cpu")
    return folder / "auto"


def items(run, number, split="search"):
    return ItemScores.from_parquet(run / "items" / f"{number:05d}.{split}.parquet")


def test_the_baselines_blends_are_what_the_probabilities_are_worth(run, folder):
    evomerge.run(
        space_with(folder, {"smooth": "gold_probability"}, trials=6), folder / "raw", device="cpu"
    )
    kept = open_run(run).study.attributes["calibrations"]
    assert set(kept) == {"playground_add", "playground_sort"}
    for number in range(6):
        blended, raw = items(run, number), items(folder / "raw", number)
        assert blended.by_task == raw.by_task
        for task, found in kept.items():
            worth = Calibration.from_dict(found)(raw.smooth[task].values)
            metric = raw.by_task[task].values
            assert blended.smooth[task].values == pytest.approx(0.5 * metric + 0.5 * worth)
    # Over the baselines, a calibrated guide is as high as the metric.
    for task in kept:
        sums = [
            [sum(getattr(items(run, number), kind)[task].values) for number in range(6)]
            for kind in ("by_task", "smooth")
        ]
        assert sum(sums[0]) == pytest.approx(sum(sums[1]))


def test_the_search_raises_the_blend_and_reports_the_metric(run):
    opened = open_run(run)
    for record in opened.study.records.values():
        scores = items(run, record.number)
        guide = sum(scores.smooth[task].values.mean() for task in scores.smooth) / 2
        metric = sum(scores.by_task[task].values.mean() for task in scores.by_task) / 2
        if record.state == "complete":
            assert record.value == pytest.approx(guide)
            assert record.search.objective.value == pytest.approx(metric)
        assert record.search.tasks["playground_add"].metric == "exact_match"


def test_a_resumed_run_keeps_its_calibrations(run, folder):
    study = open_run(run).study
    before = study.attributes["calibrations"]
    whole = folder / "whole"
    evomerge.run(space_with(folder, {}, trials=12), run, device="cpu")
    evomerge.run(space_with(folder, {}, trials=12), whole, device="cpu")
    assert open_run(run).study.attributes["calibrations"] == before
    mine, theirs = (open_run(each).study.records for each in (run, whole))
    assert len(mine) == len(theirs) == 12
    for number, record in mine.items():
        assert record.point == theirs[number].point
        assert record.search == theirs[number].search


def as_probabilities(scores, generator):
    """Return scores as a worker sends them: the run's files have the blends."""
    smooth = {
        task: replace(
            metric,
            metric="gold_probability",
            values=0.6 * generator.random(len(metric.values)) + 0.4 * metric.values,
        )
        for task, metric in scores.by_task.items()
    }
    return ItemScores(scores.by_task, smooth)


def test_calibrations_do_not_depend_on_which_baseline_was_done_first(run, folder, tmp_path):
    space, opened = space_with(folder, {}), open_run(run)
    facts = ObjectiveFacts.from_dict(opened.study.attributes["objective"])
    records = [record for record in opened.study.records.values() if record.is_baseline]

    def calibrations(name, order):
        directory = RunDirectory(tmp_path / name)
        directory.create()
        study = Study(open_storage(directory.study_url), "s", space.dimensions)
        for each in records:
            study.begin(
                kind=each.kind,
                label=each.label,
                recipe=each.recipe,
                point=each.point,
                asked_after=0,
                seed=0,
            )
        judge = Judge(space, facts, study, directory)
        for number in order:
            judge.take(Scored(int(number), "search", probabilities[number], {}, 1))
        return study.attributes["calibrations"]

    generator = np.random.default_rng(0)
    probabilities = {
        record.number: as_probabilities(items(run, record.number), generator) for record in records
    }
    found = [
        calibrations(f"order{index}", generator.permutation(len(records))) for index in range(8)
    ]
    assert all(each["logistic"] for each in found[0].values())
    assert all(each == found[0] for each in found)


def test_without_a_guide_the_metric_is_what_is_raised(folder):
    run = folder / "plain"
    evomerge.run(space_with(folder, {"smooth": False}, trials=6), run, device="cpu")
    assert "calibrations" not in open_run(run).study.attributes
    assert not items(run, 0).smooth
