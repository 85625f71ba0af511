"""What the tests of whole commands share: the playground, the command line, one finished run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
# The libraries read these when they are imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
ENVIRONMENT = {**os.environ, "COLUMNS": "80"}


def pytest_collection_modifyitems(items):
    """Whole runs go first: begun last, they would keep one process busy and the other idle."""
    items.sort(key=lambda item: ROOT / "tests" / "whole" not in item.path.parents)


def evomerge(*arguments, cwd=ROOT, **environment):
    """Run the real command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "evomerge", *map(str, arguments)],
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(*arguments, **options):
    """Run the command line and want exit code 0 without a traceback."""
    done = evomerge(*arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def links(path):
    """Make a working directory with the clone's spaces and tasks."""
    path.mkdir(exist_ok=True)
    for name in ("search_spaces", "tasks"):
        (path / name).symlink_to(ROOT / name)
    return path


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A working directory with the clone's spaces and tasks, whose runs do not touch the clone."""
    return links(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def quickstart(workspace, tmp_path_factory):
    """The finished run of the quickstart: its directory, and what the command printed.

    The processes of one test run make it once; each has a copy of its own.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "quickstart"
    with FileLock(f"{shared}.lock"):
        if not (shared / "printed").is_file():
            done = succeed("run", "search_spaces/quickstart.yml", cwd=links(shared))
            (shared / "printed").write_text(done.stdout)
    shutil.copytree(shared / "runs" / "quickstart", workspace / "runs" / "quickstart")
    return workspace / "runs" / "quickstart", (shared / "printed").read_text()


def small_space(path, *, recipe=None, search=None, evaluation=None, tasks=None):
    """Write a space over the playground that is searched in seconds."""
    models = ROOT / "search_spaces" / "playground"
    weight = {"weight": {"search": [0.0, 1.0]}}
    data = {
        "recipe": recipe
        or {
            "merge_method": "task_arithmetic",
            "base_model": str(models / "base"),
            "models": [
                {"model": str(models / name), "parameters": weight}
                for name in ("add", "reverse", "sort")
            ],
            "dtype": "bfloat16",
        },
        "tasks": tasks
        or [
            {"name": "playground_add", "metric": "exact_match"},
            {"name": "playground_sort", "metric": "acc"},
        ],
        "search": {"trials": 12, "seed": 0, "finalists": 2, **(search or {})},
        "evaluation": {
            "task_dirs": [str(ROOT / "tasks" / "playground")],
            "search_items": 40,
            "holdout_items": 60,
            **(evaluation or {}),
        },
    }
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def read_result(run):
    return json.loads((Path(run) / "result.json").read_text())
