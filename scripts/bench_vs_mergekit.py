"""Compares `evomerge merge` with `mergekit-yaml` on the same recipes and checkpoints.

For every method that both have, in turn on one machine: the wall time of the whole process, the
time inside the merge (a call of the public Python function after all imports, in a new process),
and the peak memory of the whole process (its largest resident set, mapped files included). The
best of the repeats counts. mergekit runs from the Python that is named, which needs it installed:

    python -m venv /tmp/mergekit && /tmp/mergekit/bin/pip install mergekit==0.1.5
    python scripts/bench_vs_mergekit.py /tmp/mergekit/bin/python
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# This process must stay small, without torch: until a child replaces its program, its peak memory
# is that of its parent.
from benchmark_models import PARAMETERS, checkpoints, chosen, print_table, recipe

SEED = "0"
COLUMNS = (
    "method",
    "mergekit s",
    "evomerge s",
    "ratio",
    "inside s",
    "inside s",
    "ratio",
    "MiB",
    "MiB",
    "ratio",
)

MERGEKIT = """
import sys, time
import torch, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
with open(sys.argv[1]) as stream:
    config = MergeConfiguration.model_validate(yaml.safe_load(stream))
options = MergeOptions(
    random_seed=0, write_model_card=False, copy_tokenizer=False, quiet=True
)
start = time.perf_counter()
run_merge(config, sys.argv[2], options)
print("inside", time.perf_counter() - start)
"""

EVOMERGE = """
import sys, time
import torch
from evomerge.export import merge_recipe
start = time.perf_counter()
merge_recipe(sys.argv[1], sys.argv[2], seed=0)
print("inside", time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Side:
    """One program: how to run it, and how to time its merge alone."""

    name: str
    command: Sequence[str]
    flags: Sequence[str]
    inside: Sequence[str]


@dataclass
class Measured:
    """The best of some runs of one program on one recipe."""

    wall_seconds: float = float("inf")
    inside_seconds: float = float("inf")
    peak_bytes: int = 1 << 62
    error: str = ""


def run(command: Sequence[str]) -> tuple[float, int, str, str]:
    """Run a command.

    Returns:
        Its wall seconds, peak resident bytes, output, and the end of its errors if it failed.
    """
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024
        lines = errors.read().strip().splitlines()
        problem = (lines[-1] if lines else "failed") if process.returncode else ""
        return seconds, usage.ru_maxrss * unit, output.read(), problem


def measure(side: Side, config: Path, out: Path, best: Measured) -> None:
    """Run one program once whole and once inside, and keep what is better."""
    for inside in (False, True):
        command = (
            [*side.inside, str(config), str(out)]
            if inside
            else [*side.command, str(config), str(out), *side.flags]
        )
        seconds, peak, output, problem = run(command)
        written = any(out.glob("*.safetensors"))
        shutil.rmtree(out, ignore_errors=True)
        if problem or not written:
            best.error = problem or "nothing was written"
            return
        if inside:
            last = output.strip().splitlines()[-1]
            best.inside_seconds = min(best.inside_seconds, float(last.split()[1]))
        else:
            best.wall_seconds = min(best.wall_seconds, seconds)
            best.peak_bytes = min(best.peak_bytes, peak)


def main() -> None:
    """Measure, print a table, write JSON."""
    options = arguments()
    python = str(options.python)
    mergekit = Side(
        "mergekit",
        [str(options.python.parent / "mergekit-yaml")],
        ["--no-write-model-card", "--no-copy-tokenizer", "--quiet", "--random-seed", SEED],
        [python, "-c", MERGEKIT],
    )
    evomerge = Side(
        "evomerge",
        [sys.executable, "-m", "evomerge", "merge"],
        ["--seed", SEED],
        [sys.executable, "-c", EVOMERGE],
    )
    if not Path(mergekit.command[0]).is_file():
        raise SystemExit(f"{mergekit.command[0]} is not there: {python} has no mergekit")
    results: list[dict[str, Any]] = []
    with checkpoints(options.folder, options.parameters) as folder:
        for spec in chosen(options.methods):
            config = folder / f"{spec.name}.yml"
            config.write_text(yaml.safe_dump(recipe(spec, folder), sort_keys=False))
            both = {side.name: Measured() for side in (mergekit, evomerge)}
            for _ in range(options.repeats):
                for side in (mergekit, evomerge):
                    if not both[side.name].error:
                        measure(side, config, folder / "out", both[side.name])
            results.append(result(spec.name, both))
            print("measured", *row(results[-1]), flush=True)
            write(options, results)
    print_table(COLUMNS, [row(found) for found in results])
    for found in results:
        for name in ("mergekit", "evomerge"):
            if found[name]["error"]:
                print(f"{found['method']}: {name}: {found[name]['error']}")


def write(options: argparse.Namespace, results: Sequence[dict[str, Any]]) -> None:
    """Write what was measured so far, if JSON is wanted."""
    if not options.json:
        return
    report = {
        "parameters": options.parameters,
        "cpus": os.cpu_count(),
        "machine": platform.platform(),
        "repeats": options.repeats,
        "results": results,
    }
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def result(method: str, both: dict[str, Measured]) -> dict[str, Any]:
    """Return the numbers of a method, and their ratios if both programs have it."""
    found: dict[str, Any] = {"method": method}
    for name, best in both.items():
        found[name] = {"error": best.error} if best.error else vars(best)
    if not any(best.error for best in both.values()):
        for key in ("wall_seconds", "inside_seconds", "peak_bytes"):
            found[f"{key}_ratio"] = found["mergekit"][key] / found["evomerge"][key]
    return found


def row(found: dict[str, Any]) -> list[str]:
    """Return a method as a row of the table; a dash where a program failed."""
    cells = [found["method"]]
    for key, form, unit in (
        ("wall_seconds", "{:.2f}", 1),
        ("inside_seconds", "{:.2f}", 1),
        ("peak_bytes", "{:,.0f}", 2**20),
    ):
        for name in ("mergekit", "evomerge"):
            value = found[name].get(key)
            cells.append("–" if value is None else form.format(value / unit))
        ratio = found.get(f"{key}_ratio")
        cells.append("–" if ratio is None else f"{ratio:.1f}")
    return cells


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("python", type=Path, help="a Python that has mergekit")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these")
    parser.add_argument(
        "--parameters", type=float, default=PARAMETERS, help="size of a checkpoint (160e6)"
    )
    parser.add_argument("--repeats", type=int, default=1, help="runs of each program (1)")
    parser.add_argument("--folder", type=Path, help="where the checkpoints go for a while")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
