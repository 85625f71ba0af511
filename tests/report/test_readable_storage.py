"""The study spread out for Optuna's tools."""

import optuna
import pytest
import yaml

from evomerge.report import optuna_study
from evomerge.report.readable_storage import ReadableStorage
from evomerge.search import Study, open_storage
from evomerge.space import Dimension
from tests.search.test_study import SUMMARY, begin

DIMENSIONS = (
    *(Dimension(f"w{i}", "float", 0.0, 1.0) for i in range(9)),
    Dimension("m", "choice", choices=("a", "b")),
)
POINT = {dimension.name: 0.25 for dimension in DIMENSIONS[:-1]} | {"m": "b"}


def url(folder):
    return f"sqlite:///{folder / 'study.db'}"


@pytest.fixture
def storage(tmp_path):
    """A study with a scored, a failed and a running trial, and one of another program."""
    study = Study(open_storage(url(tmp_path)), "s", DIMENSIONS)
    for _ in range(3):
        begin(study, point=POINT)
    study.complete(0, SUMMARY, seconds={"score": 1.5}, order=0, worker=1)
    study.fail(1, "NaN in lm_head.weight", seconds={}, order=1)
    other = optuna.create_study(storage=study.storage, study_name="other")
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    return ReadableStorage(study)


def test_trials_are_spread_out(storage):
    study = optuna.load_study(study_name="s", storage=storage)
    scored, failed, running = study.trials
    assert scored.value == 0.625
    assert scored.params == POINT
    assert list(scored.distributions) == list(POINT)
    shown = scored.user_attrs
    assert (shown["add"], shown["add stderr"], shown["stderr"]) == (0.625, 0.03, 0.03)
    assert (shown["label"], shown["items"]) == ("trial 0", 40)
    assert yaml.safe_load(shown["recipe"]) == {"merge_method": "linear"}
    assert failed.user_attrs["reason"] == "NaN in lm_head.weight"
    assert running.params == POINT
    assert study.best_params == POINT
    assert study.metric_names == ["objective"]


def test_what_ends_later_is_seen(storage, tmp_path):
    study = optuna.load_study(study_name="s", storage=storage)
    assert "add" not in study.trials[2].user_attrs
    writer = Study(open_storage(url(tmp_path)), "s", DIMENSIONS)
    writer.complete(2, SUMMARY, seconds={}, order=2, worker=1)
    assert study.trials[2].user_attrs["add"] == 0.625
    assert study.trials[2].state.is_finished()


def test_optuna_s_own_functions(storage, tmp_path):
    study = optuna_study(Study(open_storage(url(tmp_path)), "s", DIMENSIONS, create=False))
    frame = study.trials_dataframe()
    assert list(frame["params_w3"]) == [0.25] * 3
    assert frame["user_attrs_add"][0] == 0.625


def test_another_program_s_trials_are_left_alone(storage):
    (trial,) = optuna.load_study(study_name="other", storage=storage).trials
    assert list(trial.params) == ["x"]
    assert trial.user_attrs == {}


def test_the_dashboard_s_notes_are_kept(storage):
    study = optuna.load_study(study_name="s", storage=storage)
    storage.set_study_system_attr(study._study_id, "note", "good")
    storage.set_trial_system_attr(storage.get_all_trials(study._study_id)[2]._trial_id, "a", "b")
    again = optuna.load_study(study_name="s", storage=storage)
    assert storage.get_study_system_attrs(again._study_id)["note"] == "good"
    assert again.trials[2].system_attrs == {"a": "b"}
