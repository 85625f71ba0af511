"""A run whose study is on a real PostgreSQL server: written, killed, continued, read."""

import signal
import subprocess
import sys
import time

import pytest
import sqlalchemy

from evomerge.errors import StudyError
from evomerge.search import open_run, open_storage
from tests.conftest import ENVIRONMENT, ROOT, evomerge, small_space, succeed


def wait_for_items(run, count, process, seconds=120):
    until = time.monotonic() + seconds
    while len(list(run.glob("items/*.search.parquet"))) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_killed_it_continues(postgresql, tmp_path, monkeypatch):
    space = small_space(tmp_path / "space.yml", search={"trials": 14})
    run = tmp_path / "run"
    arguments = ["run", space, "--out", run, "--storage", postgresql]
    process = subprocess.Popen(
        [sys.executable, "-m", "evomerge", *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    wait_for_items(run, 8, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    password = sqlalchemy.make_url(postgresql).password
    for file in run.rglob("*"):
        assert not file.is_file() or password.encode() not in file.read_bytes(), file
    with pytest.raises(StudyError, match="PGPASSWORD"):
        open_run(run)
    monkeypatch.setenv("PGPASSWORD", password)
    killed = open_run(run).study.records
    done = {number: r for number, r in killed.items() if r.state != "running"}
    assert len(killed) < 14
    assert len(done) >= 7
    assert len(killed) - len(done) <= 1, "a trial that was not in flight is lost"

    succeed(*arguments)
    records = open_run(run).study.records
    assert list(records) == list(range(14))
    assert {record.state for record in records.values()} <= {"complete", "pruned"}
    for number, record in done.items():
        assert records[number].search == record.search
        assert records[number].seconds == record.seconds, "scored twice"
    assert not (run / "study.db").exists()
    listed = succeed("items", run, "--json", PGPASSWORD=password)
    assert listed.stdout.startswith("{")


def test_commits_do_not_wait_for_the_disk(postgresql):
    for _ in range(2):  # in a new connection too
        storage = open_storage(postgresql)
        with storage.engine.connect() as connection:
            shown = connection.exec_driver_sql("SHOW synchronous_commit").scalar()
        assert shown == "off"
        storage.engine.dispose()


def test_an_empty_database_stays_empty(postgresql, harness):
    import psycopg

    from .conftest import SPACE, InstantPool

    made = harness(trials=6)
    made.drive(InstantPool())
    made.directory.space.write_text(SPACE)
    made.directory.write_settings({"name": "s", "storage": postgresql})
    with pytest.raises(StudyError, match="there is no study here"):
        open_run(made.directory.path)
    refused = evomerge("items", made.directory.path)
    assert refused.returncode == 2
    assert "there is no study here" in refused.stderr
    with psycopg.connect(postgresql) as connection:
        query = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(query).fetchone() == (0,)
