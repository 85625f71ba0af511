"""The study: what it keeps, in any Optuna storage, for Optuna's own tools too."""

import optuna
import pytest

from evomerge.errors import StudyError
from evomerge.evaluation import Estimate, TaskScore
from evomerge.search import Study, Summary, open_storage
from evomerge.space import Dimension

DIMENSIONS = (Dimension("w", "float", 0.0, 1.0), Dimension("m", "choice", choices=("a", "b")))
SUMMARY = Summary(Estimate(0.625, 0.03, 40), {"add": TaskScore("acc", 0.625, 0.03, 40)})


def begin(study, **changes):
    arguments = {
        "kind": "proposed",
        "label": None,
        "recipe": {"merge_method": "linear"},
        "point": {"w": 1 / 3, "m": "b"},
        "asked_after": 0,
        "seed": 3,
    }
    return study.begin(**{**arguments, **changes})


@pytest.fixture(params=["sqlite", "journal"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    return str(tmp_path / "study.log")


def test_everything_comes_back(url):
    study = Study(open_storage(url), "s", DIMENSIONS)
    begin(study, kind="parent", label="m/math", point=None)
    study.complete(0, SUMMARY, seconds={"score": 1.5}, order=None, worker=12)
    begin(study)
    study.fail(1, "NaN in lm_head.weight", seconds={}, order=0)
    begin(study)
    study.set_holdout(0, SUMMARY, seconds={"score": 2.0})
    again = Study(open_storage(url), "s", DIMENSIONS)
    assert again.records == study.records
    assert again.records[0].holdout == SUMMARY
    assert again.records[1].reason == "NaN in lm_head.weight"
    assert again.records[2].state == "running"
    assert again.records[2].point == {"w": 1 / 3, "m": "b"}


def test_optuna_sees_values_parameters_and_the_objective_s_name(url):
    study = Study(open_storage(url), "s", DIMENSIONS)
    begin(study)
    study.complete(0, SUMMARY, seconds={}, order=0, worker=1)
    plain = optuna.load_study(study_name="s", storage=open_storage(url))
    assert plain.metric_names == ["objective"]
    trial = plain.trials[0]
    assert trial.value == 0.625
    assert trial.params == {"w": 1 / 3, "m": "b"}
    assert trial.user_attrs["add"] == 0.625
    assert trial.user_attrs["stderr"] == 0.03
    assert trial.user_attrs["seed"] == 3
    assert trial.duration is not None


def test_a_second_writer_is_noticed(url):
    one = Study(open_storage(url), "s", DIMENSIONS)
    two = Study(open_storage(url), "s", DIMENSIONS)
    begin(one)
    with pytest.raises(StudyError, match="another process writes to it"):
        begin(two)


def test_a_foreign_study_is_refused(url):
    foreign = optuna.create_study(storage=open_storage(url), study_name="s", direction="maximize")
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="not written by evomerge"):
        Study(open_storage(url), "s", DIMENSIONS)


def test_a_storage_out_of_reach_is_one_message_without_the_password():
    with pytest.raises(StudyError, match="cannot be opened") as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
