"""Runs as a user runs them: seeds, kill -9, Ray, failures."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from evomerge.evaluation import ItemScores
from evomerge.search import open_run
from tests.conftest import ENVIRONMENT, ROOT, evomerge, read_result, small_space, succeed


def trials(run):
    """What a run must repeat: everything but times and processes."""
    return [
        (r.number, r.kind, r.label, r.state, r.point, r.order, r.search, r.holdout)
        for r in open_run(run).study.records.values()
    ]


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "evomerge", *map(str, arguments)],
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def wait_for_trials(run, count, process, seconds=120):
    """Wait until the study holds `count` finished trials."""
    import sqlite3

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, process.stdout.read()
        database = run / "study.db"
        if database.is_file():
            connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
            try:
                query = "SELECT COUNT(*) FROM trials WHERE state NOT IN ('RUNNING', 'WAITING')"
                if connection.execute(query).fetchone()[0] >= count:
                    return
            except sqlite3.OperationalError:
                pass
            finally:
                connection.close()
        time.sleep(0.05)
    raise TimeoutError(f"no {count} trials within {seconds} s")


def test_the_seed_decides_everything(tmp_path):
    space = small_space(tmp_path / "space.yml", search={"trials": 10})
    succeed("run", space, "--out", tmp_path / "one", PYTHONHASHSEED="1")
    succeed("run", space, "--out", tmp_path / "two", PYTHONHASHSEED="2")
    succeed("run", space, "--out", tmp_path / "three", "--seed", 1)
    assert trials(tmp_path / "one") == trials(tmp_path / "two")
    one, three = trials(tmp_path / "one"), trials(tmp_path / "three")
    assert one[-1][4] != three[-1][4]
    first, second = (read_result(tmp_path / name)["winner"] for name in ("one", "two"))
    assert first == second


def test_kill_9_loses_nothing(tmp_path):
    space = small_space(tmp_path / "space.yml", search={"trials": 16})
    succeed("run", space, "--out", tmp_path / "whole")
    run = tmp_path / "killed"
    for count in (3, 9):
        process = start("run", space, "--out", run)
        wait_for_trials(run, count, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = [r for r in open_run(run).study.records.values() if r.state != "running"]
    assert len(done) >= 9
    items = {path.name: path.stat().st_mtime_ns for path in (run / "items").glob("*.search.*")}
    finished = {f"{record.number:05d}.search.parquet" for record in done}
    assert finished <= set(items)

    succeed("run", space, "--out", run)
    assert trials(run) == trials(tmp_path / "whole")
    for name in finished:
        assert (run / "items" / name).stat().st_mtime_ns == items[name], "scored twice"
    assert read_result(run)["winner"] == read_result(tmp_path / "whole")["winner"]


def test_two_processes_in_one_directory_are_kept_apart(tmp_path):
    from tests.conftest import evomerge

    space = small_space(tmp_path / "space.yml", search={"trials": 60})
    run = tmp_path / "run"
    process = start("run", space, "--out", run)
    try:
        wait_for_trials(run, 1, process)
        second = evomerge("run", space, "--out", run)
        assert second.returncode == 2
        assert "another evomerge process works in this directory" in second.stderr
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_another_space_or_seed_in_the_same_directory_is_refused(tmp_path):
    from tests.conftest import evomerge

    space = small_space(tmp_path / "space.yml", search={"trials": 5})
    succeed("run", space, "--out", tmp_path / "run")
    other = evomerge("run", space, "--out", tmp_path / "run", "--seed", 4)
    assert other.returncode == 2
    assert "seed 0, now it is 4" in other.stderr
    succeed("run", space, "--out", tmp_path / "run", "--trials", 6)
    assert len(open_run(tmp_path / "run").study.records) == 6
    changed = small_space(tmp_path / "space.yml", evaluation={"search_items": 41})
    other = evomerge("run", changed, "--out", tmp_path / "run")
    assert other.returncode == 2
    assert "another version of this space" in other.stderr


def test_a_run_goes_on_with_other_batches_and_not_with_other_tasks(tmp_path):
    tasks = shutil.copytree(ROOT / "tasks" / "playground", tmp_path / "tasks")
    one = [{"name": "playground_sort", "metric": "acc"}]
    task, changes = tasks / "playground_sort.yaml", {"task_dirs": [str(tasks)]}
    before = task.read_text()
    space = small_space(tmp_path / "space.yml", tasks=one, evaluation=changes)
    run = ("run", space, "--out", tmp_path / "run")
    succeed(*run, "--trials", 7)

    task.write_text(before.replace('"{{prompt}}"', '"{{prompt}} "'))
    refused = evomerge(*run, "--trials", 8)
    assert refused.returncode == 2
    assert "other documents, prompts or metrics in playground_sort, and" in refused.stderr
    again = succeed(*run, "--trials", 7)
    assert "metrics of playground_sort have changed since; this result is from" in again.stdout

    task.write_text(before)
    changes = {"task_dirs": [str(tasks.rename(tmp_path / "moved"))], "batch_size": 10}
    small_space(tmp_path / "space.yml", tasks=one, evaluation=changes)
    succeed(*run, "--trials", 8)
    assert len(trials(tmp_path / "run")) == 8
    assert "changed since" not in succeed(*run, "--trials", 8).stdout


def test_any_optuna_storage(tmp_path):
    import optuna

    space = small_space(tmp_path / "space.yml", search={"trials": 6})
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    succeed("run", space, "--out", tmp_path / "run", "--storage", url)
    assert not (tmp_path / "run" / "study.db").exists()
    assert len(optuna.load_study(study_name="space", storage=url).trials) == 6
    succeed("export", tmp_path / "run", tmp_path / "merged")


def ray_worker_pids(parent):
    """Return the actor processes below a process."""
    import psutil

    return [
        child.pid
        for child in psutil.Process(parent).children(recursive=True)
        if any("ray::" in part for part in child.cmdline()[:1]) and "Actor" in child.cmdline()[0]
    ]


def test_two_ray_workers_one_of_them_killed(tmp_path):
    space = small_space(tmp_path / "space.yml", search={"trials": 24, "racing": False})
    run = tmp_path / "run"
    process = start("run", space, "--out", run, "--workers", 2)
    wait_for_trials(run, 7, process)
    victims = ray_worker_pids(process.pid)
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    records = list(open_run(run).study.records.values())
    assert len(records) == 24
    assert all(record.state == "complete" for record in records), printed
    workers = [record.worker for record in records]
    assert len(set(workers)) == 3, "two workers, and the one that took the place of the dead one"
    assert victims[0] in workers
    assert workers[-1] != victims[0]
    for record in records:
        path = run / "items" / f"{record.number:05d}.search.parquet"
        assert ItemScores.from_parquet(path).num_items == 80
    assert read_result(run)["trials"] == {"complete": 24, "failed": 0, "pruned": 0}


@contextlib.contextmanager
def ray_cluster(folder, **environment):
    """A cluster of its own, started as a user starts one, from another working directory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Ray's sockets lie below its folder, and their paths may not be long.
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"]
        command += [f"--port={port}", "--include-dashboard=false", "--num-cpus=2"]
        command += ["--object-store-memory=100000000", f"--temp-dir={short}"]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**ENVIRONMENT, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            for line in process.stdout:
                if "Ray runtime started" in line:
                    break
            else:
                raise AssertionError("the cluster did not start")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.mark.parametrize("authentication", ["token", "disabled"])
def test_a_running_ray_cluster(tmp_path, authentication):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    # As by default: 'ray start' uses the token that lies there, and nothing tells the driver.
    cluster = {"RAY_AUTH_TOKEN_PATH": str(token)}
    if authentication == "disabled":
        cluster["RAY_AUTH_MODE"] = "disabled"
    space = small_space(tmp_path / "space.yml", search={"trials": 7, "racing": False})
    with ray_cluster(tmp_path, **cluster) as address:
        arguments = ("run", space, "--out", tmp_path / "run", "--ray-address", address)
        succeed(*arguments, "--workers", 2, RAY_AUTH_TOKEN_PATH=str(token))
        records = open_run(tmp_path / "run").study.records.values()
        assert [record.state for record in records] == ["complete"] * 7
        if authentication == "token":
            other = tmp_path / "other"
            other.write_text("fedcba9876543210" * 4)
            again = ("run", space, "--out", tmp_path / "two", "--ray-address", address)
            refused = evomerge(*again, RAY_AUTH_TOKEN_PATH=str(other))
            assert refused.returncode == 2
            assert "the cluster wants its token" in " ".join(refused.stderr.split())
            assert not (tmp_path / "two").exists()


def test_a_ray_address_where_nothing_is(tmp_path):
    space = small_space(tmp_path / "space.yml")
    for address, message in [("127.0.0.1:1", "nothing answers there"), ("here", "want host:port")]:
        refused = evomerge("run", space, "--out", tmp_path / "run", "--ray-address", address)
        assert refused.returncode == 2
        assert message in " ".join(refused.stderr.split())
        assert "Traceback" not in refused.stderr


def test_ordered_ray_workers_repeat(tmp_path):
    space = small_space(tmp_path / "space.yml", search={"trials": 11, "ordered": True})
    for name in ("one", "two"):
        succeed("run", space, "--out", tmp_path / name, "--workers", 2)
    points = [[(t[0], t[4]) for t in trials(tmp_path / name)] for name in ("one", "two")]
    assert points[0] == points[1]


def test_a_candidate_that_gives_nan_is_a_failed_trial(tmp_path):
    models = ROOT / "search_spaces" / "playground"
    space = small_space(
        tmp_path / "space.yml",
        recipe={
            "merge_method": "task_arithmetic",
            "base_model": str(models / "base"),
            "models": [
                {
                    "model": str(models / "add"),
                    "parameters": {"weight": {"choice": [0.5, 0.6, 1.0e39]}},
                },
                {"model": str(models / "sort"), "parameters": {"weight": {"search": [0.0, 1.0]}}},
            ],
            "dtype": "bfloat16",
        },
        search={"trials": 14, "optimizer": "random"},
    )
    done = succeed("run", space, "--out", tmp_path / "run")
    records = list(open_run(tmp_path / "run").study.records.values())
    failed = [record for record in records if record.state == "failed"]
    assert failed
    for record in failed:
        assert record.point["add.weight"] == 1.0e39
        assert "bfloat16 cannot hold" in record.reason
    assert len(records) == 14
    assert "failed:" in done.stdout
    result = read_result(tmp_path / "run")
    assert result["trials"]["failed"] == len(failed)
    assert result["failures"][0]["reason"] == failed[0].reason
