"""Opening a run: what is not there is one message, and is not made."""

import sqlite3

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from evomerge.errors import StudyError
from evomerge.search import open_run, open_storage
from tests.conftest import evomerge

from .conftest import SPACE, InstantPool


def files(folder):
    """Return what is there, but for SQLite's shared memory, in which readers note their locks."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".db-shm"]
    return {path: path.read_bytes() for path in found}


@pytest.fixture
def run(harness, tmp_path):
    """A run directory whose study a test takes away."""

    def make(storage=None, name="s"):
        made = harness(trials=6)
        made.drive(InstantPool())
        made.directory.space.write_text(SPACE)
        made.directory.write_settings({"name": name, "storage": storage})
        return made.directory.path

    return make


def test_a_run_that_is_there(run):
    path = run()
    before = files(path)
    opened = open_run(path)
    assert len(opened.study.records) == 6
    assert opened.trial(2).label == "m/base"
    assert files(path) == before


def take_the_file(path):
    for file in path.glob("study.db*"):
        file.unlink()


def make_an_empty_file(path):
    take_the_file(path)
    (path / "study.db").touch()


def delete_the_study(path):
    optuna.delete_study(study_name="s", storage=f"sqlite:///{path / 'study.db'}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (take_the_file, "study.db: there is no study here; 'evomerge run' begins one"),
        (make_an_empty_file, "study.db: there is no study here"),
        (delete_the_study, "there is no study 's' in its storage"),
    ],
)
def test_a_study_that_is_gone_is_one_message_and_stays_gone(run, damage, message):
    path = run()
    damage(path)
    before = files(path)
    with pytest.raises(StudyError, match=message) as caught:
        open_run(path)
    assert str(path) in str(caught.value)
    assert files(path) == before


def test_a_storage_elsewhere_that_is_gone(run, tmp_path):
    for url in (f"sqlite:///{tmp_path / 'gone.db'}", str(tmp_path / "gone.log")):
        path = run(storage=url)
        with pytest.raises(StudyError, match="there is no study here"):
            open_run(path)
    assert not list(tmp_path.glob("gone*"))


def test_another_program_s_database(run, tmp_path):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE cats (name TEXT)")
    connection.close()
    content = other.read_bytes()
    with pytest.raises(StudyError, match="there is no study here"):
        open_run(run(storage=f"sqlite:///{other}"))
    assert other.read_bytes() == content


def test_a_journal_is_read(run, tmp_path):
    url = str(tmp_path / "study.log")
    optuna.create_study(
        storage=JournalStorage(JournalFileBackend(url)), study_name="s", direction="maximize"
    )
    assert open_run(run(storage=url)).study.records == {}


def test_a_storage_may_be_made_by_those_who_write(tmp_path):
    url = f"sqlite:///{tmp_path / 'new.db'}"
    open_storage(url)
    open_storage(url, create=False)


@pytest.mark.parametrize("command", ["export RUN OUT", "items RUN", "dashboard RUN"])
def test_commands_end_with_the_message(run, tmp_path, command):
    path = run()
    take_the_file(path)
    before = files(path)
    places = {"RUN": path, "OUT": tmp_path / "out"}
    done = evomerge(*(places.get(word, word) for word in command.split()))
    assert done.returncode == 2
    assert "there is no study here" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert files(path) == before
    assert not (tmp_path / "out").exists()
