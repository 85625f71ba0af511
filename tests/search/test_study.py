"""The study: what it keeps, in any Optuna storage, for Optuna's own tools too."""

import json
import sys

import optuna
import pytest
import sqlalchemy
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from evomerge.errors import PrerequisiteError, StudyError
from evomerge.evaluation import Estimate, TaskScore
from evomerge.search import Study, Summary, TrialRecord, open_storage
from evomerge.search.storage import without_password
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


def interrupt(*_arguments):
    raise KeyboardInterrupt


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")
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


def test_optuna_sees_values_and_the_objective_s_name(url):
    study = Study(open_storage(url), "s", DIMENSIONS)
    begin(study)
    study.complete(0, SUMMARY, seconds={}, order=0, worker=1)
    plain = optuna.load_study(study_name="s", storage=open_storage(url))
    assert plain.metric_names == ["objective"]
    trial = plain.trials[0]
    assert trial.value == 0.625
    assert trial.user_attrs["trial"]["point"] == {"w": 1 / 3, "m": "b"}
    assert trial.user_attrs["trial"]["seed"] == 3
    assert trial.user_attrs["result"]["add"] == 0.625
    shown = json.dumps(trial.user_attrs["result"])
    assert shown.startswith('{"add": 0.625, "stderr": 0.03, "items": 40')
    assert trial.duration is not None


def test_a_trial_is_three_transactions(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = Study(storage, "s", DIMENSIONS)
    commits, writes = [], []
    sqlalchemy.event.listen(storage.engine, "commit", commits.append)

    def note(_connection, _cursor, statement, *_rest):
        if not statement.startswith("SELECT"):
            writes.append(len(commits))

    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", note)
    for number in range(3):
        before = set(writes)
        begin(study)
        study.complete(number, SUMMARY, seconds={}, order=number, worker=1)
        assert len(set(writes) - before) == 3


@pytest.mark.parametrize("ending", ["complete", "fail"])
def test_a_process_that_dies_between_two_writes_loses_only_this_trial(url, ending, monkeypatch):
    storage = open_storage(url)
    study = Study(storage, "s", DIMENSIONS)

    def end(number):
        if ending == "complete":
            study.complete(number, SUMMARY, seconds={}, order=number, worker=1)
        else:
            study.fail(number, "NaN", seconds={}, order=number)

    begin(study)
    end(0)
    begin(study)
    monkeypatch.setattr(storage, "set_trial_state_values", interrupt)
    with pytest.raises(KeyboardInterrupt):
        end(1)
    again = Study(open_storage(url), "s", DIMENSIONS)
    assert again.records[0] == study.records[0]
    left = again.records[1]
    assert left.state == "running"
    assert left == study.records[1]
    again.complete(1, SUMMARY, seconds={}, order=1, worker=2)
    assert Study(open_storage(url), "s", DIMENSIONS).records == again.records


def test_attributes_are_read_once_and_are_copies(url):
    storage = open_storage(url)
    study = Study(storage, "s", DIMENSIONS)
    study.set_attribute("sessions", [{"workers": (1, 2)}])
    study.attributes["sessions"][0]["workers"] = 7
    assert study.attributes == {"sessions": [{"workers": [1, 2]}]}
    assert Study(open_storage(url), "s", DIMENSIONS).attributes == study.attributes


def test_a_study_of_the_first_layout_is_read_and_continued(url):
    """One attribute a fact, as versions before this one wrote it."""
    storage = open_storage(url)
    old = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    begun = {"kind": "proposed", "asked_after": 2, "seed": 3}
    begun["recipe"] = yaml.safe_dump({"merge_method": "linear"})
    distributions = {"w": FloatDistribution(0, 1), "m": CategoricalDistribution(("a", "b"))}
    ends = {
        TrialState.COMPLETE: {
            "scores": SUMMARY.to_dict(),
            "stderr": 0.03,
            "items": 40,
            "worker": 12,
            "scored_items": 38,
            "add": 0.625,
            "seconds": {"score": 1.5},
            "order": 0,
        },
        TrialState.FAIL: {"reason": "NaN", "seconds": {}, "order": 1},
        TrialState.RUNNING: {"scored_items": 4},
    }
    for number, (state, attributes) in enumerate(ends.items()):
        old.add_trial(
            create_trial(
                state=state,
                value=0.625 if state == TrialState.COMPLETE else None,
                params={"w": 1 / 3, "m": "b"},
                distributions=distributions,
                user_attrs=begun | {"label": f"trial {number}"} | attributes,
            )
        )
    held = {**SUMMARY.to_dict(), "seconds": {"score": 2.0}, "scored_items": 40}
    old.set_user_attr("holdout:0", held)
    study = Study(open_storage(url), "s", DIMENSIONS)
    common = {"kind": "proposed", "recipe": {"merge_method": "linear"}, "asked_after": 2}
    common["point"] = {"w": 1 / 3, "m": "b"}
    expected = [
        TrialRecord(
            number=0,
            label="trial 0",
            state="complete",
            order=0,
            search=SUMMARY,
            holdout=SUMMARY,
            seconds={"score": 1.5},
            holdout_seconds={"score": 2.0},
            worker=12,
            scored_items={"search": 38, "holdout": 40},
            **common,
        ),
        TrialRecord(number=1, label="trial 1", state="failed", order=1, reason="NaN", **common),
        TrialRecord(number=2, label="trial 2", state="running", **common),
    ]
    assert list(study.records.values()) == expected
    study.complete(2, SUMMARY, seconds={}, order=2, worker=1)
    begin(study)
    assert Study(open_storage(url), "s", DIMENSIONS).records == study.records


def test_a_second_writer_is_noticed(url):
    one = Study(open_storage(url), "s", DIMENSIONS)
    two = Study(open_storage(url), "s", DIMENSIONS)
    begin(one)
    with pytest.raises(StudyError, match="another process writes to it"):
        begin(two)


def test_a_storage_that_takes_no_more_is_one_message_with_the_way_out(tmp_path):
    study = Study(open_storage(f"sqlite:///{tmp_path / 'study.db'}"), "s", DIMENSIONS)
    begin(study)

    def fill_up(connection, _record):
        connection.execute("PRAGMA max_page_count = 1")

    sqlalchemy.event.listen(study.storage.engine, "connect", fill_up)
    study.storage.engine.dispose()
    message = "the study 's' cannot be written: .*is full; once its storage takes writes again"
    with pytest.raises(StudyError, match=message):
        study.set_attribute("large", "x" * 100_000)
    assert "large" not in study.attributes


def test_a_foreign_study_is_refused(url):
    foreign = optuna.create_study(storage=open_storage(url), study_name="s", direction="maximize")
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="not written by evomerge"):
        Study(open_storage(url), "s", DIMENSIONS)


def test_without_its_driver_a_database_is_one_message_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(PrerequisiteError, match="pip install 'evomerge\\[postgresql\\]'") as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:secret@host:port/x", "--storage: cannot be read as a URL"),
        ("no thing://me:secret@h/x", "--storage: cannot be read as a URL"),
        ("nothing://me:secret@h/x", "--storage nothing://me@h/x: cannot be opened"),
    ],
)
def test_a_url_that_is_none_is_one_message_without_the_password(url, message):
    with pytest.raises(StudyError, match=message) as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://me:secret@host:5433/x?sslmode=require", None),
        ("postgresql+psycopg://me@host/x", "postgresql+psycopg://me@host/x"),
        ("sqlite:///runs/study.db", "sqlite:///runs/study.db"),
        ("runs/study.log", "runs/study.log"),
    ],
)
def test_no_password_is_written_down(url, kept):
    expected = kept or "postgresql://me@host:5433/x?sslmode=require"
    assert without_password(url) == expected


def test_a_storage_out_of_reach_is_one_message_without_the_password():
    pytest.importorskip("psycopg")
    with pytest.raises(StudyError, match="cannot be opened") as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
