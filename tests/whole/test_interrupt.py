"""Ctrl-C once ends a search with a winner; twice stops at once; either way it goes on."""

import contextlib
import io
import os
import signal

from evomerge.cli.interrupt import interruptible
from evomerge.search import open_run
from tests.conftest import read_result, small_space, succeed
from tests.whole.test_runs import start, wait_for_trials


def test_ctrl_c_once_chooses_a_winner_and_twice_stops(tmp_path):
    space = small_space(tmp_path / "space.yml", search={"trials": 400})
    run = tmp_path / "run"

    process = start("run", space, "--out", run)
    wait_for_trials(run, 7, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "stopping after the trials under way" in output
    result = read_result(run)
    first = open_run(run)
    assert first.study.attributes["ended"]["reason"] == "interrupted"
    count = len(first.study.records)
    assert 7 <= count < 400
    assert all(record.state != "running" for record in first.study.records.values())
    assert result["winner"]["trial"] in first.study.records
    assert (run / "report.html").is_file()

    process = start("run", space, "--out", run)
    wait_for_trials(run, count + 1, process)
    process.send_signal(signal.SIGINT)
    line = process.stdout.readline()
    while "stopping after" not in line:
        line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert "Traceback" not in output
    # The second one may come when the winner is chosen already.
    assert process.returncode in (0, 130)
    between = len(open_run(run).study.records)
    assert count < between < 400

    succeed("run", space, "--out", run, "--trials", between + 2)
    whole = open_run(run)
    assert len(whole.study.records) == between + 2
    assert whole.study.attributes["ended"]["reason"].startswith("trials")


def test_ctrl_c_twice_says_that_the_same_command_goes_on(tmp_path):
    press = "import os, signal\n" + "os.kill(os.getpid(), signal.SIGINT)\n" * 2
    (tmp_path / "mine.py").write_text(press)
    space = small_space(tmp_path / "space.yml", search={"optimizer": "mine:Search"})
    process = start("run", space, "--out", tmp_path / "run")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "stopping after the trials under way" in output
    assert output.splitlines()[-1] == "stopped; the same command goes on from here"
    assert "Traceback" not in output


def test_sigterm_stops_at_once_without_loss(tmp_path):
    space = small_space(tmp_path / "space.yml", search={"trials": 400})
    run = tmp_path / "run"
    process = start("run", space, "--out", run)
    wait_for_trials(run, 7, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert output.splitlines()[-1] == "stopped; the same command goes on from here"
    assert not (run / "result.json").exists()
    records = open_run(run).study.records
    assert sum(record.state == "running" for record in records.values()) <= 1
    succeed("run", space, "--out", run, "--trials", len(records) + 1)


def test_ctrl_c_is_answered_while_something_else_is_kept_quiet(capsys):
    with interruptible() as interrupted:
        with contextlib.redirect_stderr(io.StringIO()):
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
    assert "stopping after the trials under way" in capsys.readouterr().err
