"""Measures what a trial costs beside its scoring: asking, recording, keeping its items, telling.

The driver, the study, the result cache and the proposer are the real ones; the workers are virtual
and answer at once, in an order drawn from a seed. Their own time is left out. One run to the
largest number of trials gives the figures of the smaller ones; the last tenth of each shows whether
the cost grows. PostgreSQL is a server of this script's own, on loopback.

On a machine with other work to do, a process waits for a processor most of the time. Linux counts
these waits; they are left out too, the server's among them ("queue" in the JSON).

    python scripts/bench_driver.py                         # half an hour
    python scripts/bench_driver.py --trials 100 1000 --workers 16 --storages sqlite
"""

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_models import print_table
from local_postgresql import find_binaries, local_postgresql

from evomerge.evaluation import ItemScores, TaskItems
from evomerge.search import RunDirectory, SilentMonitor, Stage, Study, TrialRecord, open_storage
from evomerge.search.cache import open_caches
from evomerge.search.driver import Driver
from evomerge.space import Space, parse_space
from evomerge.workers import Assignment, Outcome, PoolInfo, Scored

TASKS = ("add", "reverse", "sort")
SPLITS = ("search", "holdout")
SEED = 0
COLUMNS = (
    *("storage", "proposer", "workers", "trials", "ms a trial", "in the last tenth"),
    *("of it CPU", "with the queue", "continue s"),
)


@dataclass(frozen=True)
class Clock:
    """What has been spent, in seconds, by a number of trials."""

    trials: int
    wall: float
    cpu: float
    queue: float

    def since(self, earlier: "Clock") -> dict[str, float]:
        """Return milliseconds a trial since then."""
        count = self.trials - earlier.trials
        spent = {
            key: 1e3 * (value - getattr(earlier, key)) / count
            for key, value in asdict(self).items()
        }
        del spent["trials"]
        spent["alone"] = spent["wall"] - spent["queue"]
        return spent


def queue_seconds(process: int | None = None) -> float:
    """Return for how long a process, or this thread, has waited for a processor; 0 if unknown."""
    path = Path("/proc") / ("thread-self" if process is None else str(process)) / "schedstat"
    try:
        return int(path.read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def server_processes(study: Study) -> list[int]:
    """Return the database's processes that this one waits for."""
    engine = getattr(study.storage, "engine", None)
    if engine is None or engine.dialect.name != "postgresql":
        return []
    # One connection at a time: the pool gives the study the same one.
    with engine.connect() as connection:
        return [connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()]


class VirtualPool:
    """Workers that have always finished.

    Args:
        workers: How many.
        num_items: Items of a task.
    """

    def __init__(self, workers: int, num_items: int) -> None:
        self._ids = {s: tuple(f"{s}-{i:05d}" for i in range(num_items)) for s in SPLITS}
        counts = dict.fromkeys(TASKS, num_items)
        self.info = PoolInfo(
            workers=workers,
            items=dict.fromkeys(SPLITS, counts),
            objective=dict.fromkeys(TASKS, 1 / len(TASKS)),
            load_seconds=0.0,
            bank_bytes=0,
            ids={split: dict.fromkeys(TASKS, ids) for split, ids in self._ids.items()},
            task_keys={task: f"key of {task}" for task in TASKS},
        )
        self._busy: list[Assignment] = []
        self._chance = random.Random(SEED)  # noqa: S311 - no secret
        self._difficulty = np.random.default_rng(SEED).random((len(TASKS), num_items))
        self.wall = self.cpu = self.queue = 0.0

    def num_free(self) -> int:
        """Return how many workers have nothing to do."""
        return self.info.workers - len(self._busy)

    def num_busy(self) -> int:
        """Return how many answers are there."""
        return len(self._busy)

    def submit(self, assignment: Assignment) -> None:
        """Take an assignment."""
        self._busy.append(assignment)

    def wait(self) -> Outcome:
        """Return the answer of one of the workers."""
        wall, cpu, queue = time.perf_counter(), time.process_time(), queue_seconds()
        assignment = self._busy.pop(self._chance.randrange(len(self._busy)))
        weights = [
            float(np.mean(model.get("parameters", {}).get("weight", 1.0)))
            for model in assignment.recipe["models"]
        ]
        tasks = {}
        for place, task in enumerate(TASKS):
            strength = 1 - abs(weights[place % len(weights)] - 0.7)
            right = (self._difficulty[place] < strength).astype(float)
            tasks[task] = TaskItems("acc", True, self._ids[assignment.split], right)
        scores = ItemScores(tasks)
        if assignment.items is not None:
            scores = scores.select(assignment.items)
        outcome = Scored(assignment.number, assignment.split, scores, {"score": 0.0}, 1)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        self.queue += queue_seconds() - queue
        return outcome


class Watch(SilentMonitor):
    """Reads the clocks at some numbers of trials.

    Args:
        study: The study.
        pool: Whose time does not count.
        wanted: The numbers of trials.
    """

    def __init__(self, study: Study, pool: VirtualPool, wanted: set[int]) -> None:
        self._pool = pool
        self._wanted = wanted
        self._processes = server_processes(study)
        self._count = 0
        self._zero = self._read()
        self.clocks = {0: Clock(0, 0.0, 0.0, 0.0)}

    def finished(
        self,
        record: TrialRecord,  # noqa: ARG002 - all count
        stage: Stage,  # noqa: ARG002
        *,
        done: float,  # noqa: ARG002
        total: float,  # noqa: ARG002
    ) -> None:
        """Count a trial."""
        self._count += 1
        if self._count in self._wanted:
            spent = (now - then for now, then in zip(self._read(), self._zero, strict=True))
            self.clocks[self._count] = Clock(self._count, *spent)

    def _read(self) -> tuple[float, float, float]:
        """Return wall time, CPU time and time in the queue, the workers' own left out."""
        pool = self._pool
        return (
            time.perf_counter() - pool.wall,
            time.process_time() - pool.cpu,
            queue_seconds() + sum(map(queue_seconds, self._processes)) - pool.queue,
        )


def make_space(proposer: str, trials: int, dimensions: int) -> Space:
    """Return a space like the quickstart's, of three models."""
    layers = max(dimensions // 3, 1)
    weight = {"search": [0.0, 1.2], **({"layers": layers} if layers > 1 else {})}
    models = [{"model": f"m/{task}", "parameters": {"weight": weight}} for task in TASKS]
    recipe = {"merge_method": "task_arithmetic", "base_model": "m/base", "models": models}
    recipe["dtype"] = "bfloat16"
    return parse_space(
        {
            "recipe": recipe,
            "tasks": [{"name": task, "metric": "acc"} for task in TASKS],
            "search": {"optimizer": proposer, "trials": trials, "seed": SEED},
        },
        name="bench",
    )


def search(
    url: str | None, proposer: str, workers: int, trials: list[int], options: argparse.Namespace
) -> tuple[dict[int, Clock], float]:
    """Search once; return what was spent by each number of trials, and seconds to read it again.

    Args:
        url: The storage; None means SQLite in the run directory, as by default.
        proposer: Name of the proposer.
        workers: Number of virtual workers.
        trials: Numbers of trials, rising.
        options: Items and dimensions.
    """
    space = make_space(proposer, trials[-1], options.dimensions)
    wanted = {count for each in trials for count in (each, each - each // 10)}
    with tempfile.TemporaryDirectory(prefix="evomerge-bench-", dir=options.folder) as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create()
        name = f"{proposer} {workers} {trials[-1]}"

        def drive() -> Watch:
            storage = open_storage(url or directory.study_url)
            study = Study(storage, name, space.dimensions)
            pool = VirtualPool(workers, options.items)
            watch = Watch(study, pool, wanted)
            driver = Driver(
                space,
                study,
                directory,
                pool,
                watch,
                session=0,
                started=time.perf_counter(),
                caches=open_caches(directory.cache, pool.info, {}, SEED),
            )
            driver.score_baselines()
            driver.search()
            return watch

        clocks = drive().clocks
        started = time.perf_counter() - queue_seconds()
        drive()  # all is there: what is left is to read it and to repeat the proposer's calls
        return clocks, time.perf_counter() - queue_seconds() - started


def measure(
    url: str | None, proposer: str, workers: int, trials: list[int], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Search once, and return a row for each number of trials."""
    clocks, resume = search(url, proposer, workers, trials, options)
    rows = []
    for count in trials:
        last = clocks[count].since(clocks[count - count // 10])
        rows.append(
            {
                "storage": "sqlite" if url is None else "postgresql",
                "proposer": proposer,
                "workers": workers,
                "trials": count,
                "ms": clocks[count].since(clocks[0]),
                "last_tenth_ms": last,
                "resume_seconds": resume if count == trials[-1] else None,
            }
        )
        print_row(rows[-1])
    return rows


def print_row(row: dict[str, Any]) -> None:
    """Show a row as soon as it is there."""
    print(
        f"{row['storage']}, {row['proposer']}, {row['workers']} workers, {row['trials']} trials: "
        f"{row['ms']['alone']:.1f} ms a trial, {row['last_tenth_ms']['alone']:.1f} in the last "
        f"tenth ({row['last_tenth_ms']['cpu']:.1f} of them CPU; with the queue "
        f"{row['last_tenth_ms']['wall']:.1f})",
        flush=True,
    )


def measure_flush(folder: Path | None) -> float:
    """Return the median milliseconds for which a small file waits for the disk.

    A trial waits once: its items are on the disk before the study calls it complete.
    """
    spent = []
    with tempfile.TemporaryDirectory(prefix="evomerge-bench-", dir=folder) as place:
        for number in range(25):
            with (Path(place) / str(number)).open("wb") as file:
                file.write(bytes(5_000))
                file.flush()
                started = time.perf_counter()
                os.fsync(file.fileno())
                spent.append(1e3 * (time.perf_counter() - started))
    return float(np.median(spent))


def storages(names: list[str], stack: contextlib.ExitStack) -> Iterator[str | None]:
    """Give a URL for each storage that is there; None is the default one."""
    if "sqlite" in names:
        yield None
    if "postgresql" in names:
        if find_binaries() is None:
            print("no PostgreSQL server here (apt-get install postgresql): SQLite only")
            return
        try:
            import psycopg  # noqa: F401 - is it there?
        except ImportError:
            print("no psycopg here (pip install 'evomerge[postgresql]'): SQLite only")
            return
        yield stack.enter_context(local_postgresql())


def main() -> None:
    """Measure, print a table, write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--storages", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--proposers", nargs="+", default=["cma", "random", "tpe"])
    parser.add_argument("--max-tpe", type=int, default=1_000, help="most trials of tpe")
    parser.add_argument("--dimensions", type=int, default=6, help="searched values, 3 models")
    parser.add_argument("--items", type=int, default=100, help="search items of each of 3 tasks")
    parser.add_argument("--folder", type=Path, help="where the runs are; by default the system's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    # A server that was started is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        for url in storages(options.storages, stack):
            for proposer in options.proposers:
                search(url, proposer, 1, [20], options)  # imports are no cost of a trial
                for workers in options.workers:
                    most = options.max_tpe if proposer == "tpe" else max(options.trials)
                    trials = sorted({count for count in options.trials if count <= most})
                    rows += measure(url, proposer, workers, trials, options)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "flush_ms": measure_flush(options.folder),
        "dimensions": options.dimensions,
        "items": options.items * len(TASKS),
        "results": rows,
    }
    print_table(
        COLUMNS,
        [
            (
                row["storage"],
                row["proposer"],
                str(row["workers"]),
                f"{row['trials']:,}",
                f"{row['ms']['alone']:.1f}",
                *(f"{row['last_tenth_ms'][part]:.1f}" for part in ("alone", "cpu", "wall")),
                "" if row["resume_seconds"] is None else f"{row['resume_seconds']:.1f}",
            )
            for row in rows
        ],
    )
    print(
        f"{report['machine']}, load {report['load']:.1f} at the end; {report['items']} items, "
        f"{report['dimensions']} dimensions; one flush of the disk takes "
        f"{report['flush_ms']:.1f} ms"
    )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
