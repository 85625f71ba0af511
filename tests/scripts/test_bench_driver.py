"""The driver's benchmark, for a few trials."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ENVIRONMENT, ROOT


def bench(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_driver.py", *map(str, arguments)],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout


def test_a_row_for_each_number_of_trials(tmp_path):
    report = tmp_path / "report.json"
    arguments = ("--trials", 10, 20, "--workers", 3, "--items", 5, "--proposers", "cma", "random")
    printed = bench(*arguments, "--storages", "sqlite", "--folder", tmp_path, "--json", report)
    results = json.loads(report.read_text())["results"]
    assert [(row["proposer"], row["workers"], row["trials"]) for row in results] == [
        ("cma", 3, 10),
        ("cma", 3, 20),
        ("random", 3, 10),
        ("random", 3, 20),
    ]
    for row in results:
        for key in ("ms", "last_tenth_ms"):
            spent = row[key]
            assert min(spent.values()) >= 0
            assert spent["alone"] + spent["queue"] == pytest.approx(spent["wall"])
            assert 0 < spent["alone"] <= spent["wall"]
        assert (row["resume_seconds"] is None) == (row["trials"] == 10)
    assert "sqlite" in printed.splitlines()[-2]
    assert "one flush of the disk takes" in printed.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [report]


def test_without_a_server_it_says_so(tmp_path):
    code = (
        "import sys; sys.argv = ['bench_driver.py', '--storages', 'postgresql']\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "import local_postgresql\n"
        "local_postgresql.find_binaries = lambda: None\n"
        "import bench_driver; bench_driver.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert "no PostgreSQL server here (apt-get install postgresql)" in done.stdout
