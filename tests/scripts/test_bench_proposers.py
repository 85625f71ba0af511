"""The comparison of optimizers, with few trials."""

import json
import subprocess
import sys

from tests.conftest import ENVIRONMENT, ROOT


def test_every_kind_of_problem_is_run_with_those_that_take_it(tmp_path):
    out = tmp_path / "found.json"
    command = [
        sys.executable,
        ROOT / "scripts" / "bench_proposers.py",
        "--out",
        out,
        "--seeds",
        "1",
    ]
    command += ["--problems", "3", "mixed", "conditional", "two", "three", "--trials", "12"]
    command += ["--optimizers", "cma", "tpe", "nsga2"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    found = json.loads(out.read_text())
    assert set(found["3"]) == set(found["mixed"]) == {"cma", "tpe", "nsga2"}
    assert set(found["conditional"]) == set(found["two"]) == set(found["three"]) == {"tpe", "nsga2"}
    for problem in found.values():
        for cuts in problem.values():
            (left,) = cuts["12"]
            assert 0.0 <= left < 300.0
    assert "conditional: percent left" in done.stdout
