"""The code of docs/proposers.md runs as it stands there, and its table names what there is."""

import re
import subprocess
import sys

from evomerge.space import OPTIMIZERS
from tests.conftest import ENVIRONMENT, ROOT
from tests.search.conftest import Harness, InstantPool

PAGE = (ROOT / "docs" / "proposers.md").read_text()
PROPOSER, SUITE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_table_is_the_table():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (yes|no) \| (yes|no) \|$", PAGE, re.MULTILINE)
    assert {
        name: (summary, can == "yes", several == "yes") for name, summary, can, several in rows
    } == {
        name: (facts.summary, facts.conditions, facts.several) for name, facts in OPTIMIZERS.items()
    }


def test_the_example_searches(tmp_path, monkeypatch):
    (tmp_path / "hill_climber.py").write_text(PROPOSER)
    monkeypatch.chdir(tmp_path)
    run = Harness(tmp_path / "run", optimizer="hill_climber:HillClimber", trials=40)
    records = list(run.drive(InstantPool(2)).records.values())
    assert len(records) == 40
    baselines = [r.value for r in records if r.kind != "proposed" and r.value is not None]
    proposed = [r.value for r in records if r.kind == "proposed" and r.value is not None]
    assert max(proposed) > max(baselines)


def test_the_example_passes_the_suite(tmp_path):
    (tmp_path / "hill_climber.py").write_text(PROPOSER)
    (tmp_path / "test_hill_climber.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_the_suite_notices_a_proposer_that_forgets(tmp_path):
    """A generator that goes on from question to question is not repeated by `recall`."""
    wrong = PROPOSER.replace("default_rng([self.seed, number])", "default_rng(len(self.points))")
    assert wrong != PROPOSER
    (tmp_path / "hill_climber.py").write_text(wrong)
    (tmp_path / "test_hill_climber.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout
    assert "test_the_seed_decides" in done.stdout
