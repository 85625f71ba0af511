"""Which finalist wins: the best on held-out items, or where the climb led."""

import numpy as np
import pytest

from evomerge.evaluation import ItemScores, Objective, TaskItems
from evomerge.evaluation.item_files import write_items
from evomerge.evaluation.statistics import difference_of
from evomerge.search.directory import RunDirectory
from evomerge.search.finalists import prefer_climbed
from evomerge.search.records import Estimate, Summary, TrialRecord
from evomerge.search.result import RunResult
from evomerge.search.verdicts import Verdict

ITEMS = tuple(f"item {i}" for i in range(100))
OBJECTIVE = Objective({"a": 1.0})
RIGHT = {  # trial -> the items that it has right
    3: range(80),
    4: range(2, 81),  # 79: differs from trial 3 on three items, so 0.010 with an error of 0.017
    5: range(70),  # 70: differs on ten, all worse: 0.1 with an error of 0.03
    6: range(77),  # 77: three fewer than trial 3: 0.030 with an error of 0.017, p = 0.08
}


@pytest.fixture
def directory(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    for number, right in RIGHT.items():
        values = np.isin(np.arange(len(ITEMS)), right).astype(float)
        scores = ItemScores({"a": TaskItems("acc", True, ITEMS, values)})
        write_items(scores, directory.items(number, "holdout"), {}, flush=False)
    return directory


def record(number, kind="proposed"):
    summary = Summary(Estimate(len(RIGHT[number]) / 100, 0.04, 100), {})
    return TrialRecord(number, kind, f"trial {number}", "complete", {}, holdout=summary)


def choose(directory, *records, verdicts=None):
    ranked, preference = prefer_climbed(records, directory, OBJECTIVE, verdicts or {})
    return [each.number for each in ranked], preference


def test_the_climb_wins_where_the_best_is_not_significantly_better(directory):
    order, preference = choose(directory, record(3), record(4, "climbed"), record(5))
    assert order == [4, 3, 5]
    assert preference.best.number == 3
    assert preference.comparison.difference == pytest.approx(0.01)
    assert 0.01 < preference.comparison.stderr < 0.02


def test_a_difference_of_more_than_one_error_may_be_chance(directory):
    order, preference = choose(directory, record(3), record(6, "climbed"))
    assert order == [6, 3]
    assert preference.comparison.difference > preference.comparison.stderr
    assert 0.05 < preference.comparison.p_value < 0.1


def test_a_candidate_that_is_significantly_better_wins(directory):
    order, preference = choose(directory, record(3), record(4), record(5, "climbed"))
    assert order == [3, 4, 5]
    assert preference is None


def test_without_a_climb_and_where_it_is_the_best_nothing_changes(directory):
    assert choose(directory, record(3), record(4), record(5)) == ([3, 4, 5], None)
    assert choose(directory, record(3, "climbed"), record(4)) == ([3, 4], None)


@pytest.mark.parametrize("kind", ["default", "start"])
def test_the_best_wins_where_no_score_chose_it(directory, kind):
    assert choose(directory, record(3, kind), record(4, "climbed")) == ([3, 4], None)


def test_a_climb_that_violates_a_constraint_is_not_preferred(directory):
    worse = difference_of(-0.2, 0.05, 100)
    verdicts = {4: (Verdict("a", "base", worse, 0.1),)}
    finalists = record(3), record(4, "climbed")
    assert choose(directory, *finalists, verdicts=verdicts) == ([3, 4], None)
    held = {4: (Verdict("a", "base", difference_of(0.2, 0.05, 100), -0.1),)}
    assert choose(directory, *finalists, verdicts=held)[0] == [4, 3]


def test_the_result_says_why(directory):
    finalists, preference = prefer_climbed(
        (record(3), record(4, "climbed")), directory, OBJECTIVE, {}
    )
    result = RunResult("s", 0, finalists, finalists, (), {}, preference=preference)
    assert result.winner.number == 4
    (note,) = result.notes()
    assert note.startswith("On held-out items trial 3 is better than the winner by 0.010 ± 0.01")
    kept = result.to_dict()
    assert kept["preferred_to"]["trial"] == 3
    assert kept["preferred_to"]["difference"] == pytest.approx(0.01)
    assert kept["winner"]["trial"] == 4
