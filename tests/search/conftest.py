"""A driver over workers that score at once, from the recipe's numbers alone."""

import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import yaml

from evomerge.evaluation import ItemScores, TaskItems
from evomerge.search import RunDirectory, SilentMonitor, Study, open_storage
from evomerge.search.cache import open_caches
from evomerge.search.driver import Driver
from evomerge.search.finalists import choose_finalists
from evomerge.space import parse_space
from evomerge.workers import Failed, PoolInfo, Scored
from tests.conftest import ROOT

SPACE = """
recipe:
  merge_method: task_arithmetic
  base_model: m/base
  models:
    - {model: m/math, parameters: {weight: {search: [0.0, 1.5]}}}
    - {model: m/code, parameters: {weight: {search: [0.0, 1.5], layers: 2}}}
tasks:
  - {name: a, metric: acc}
  - {name: b, metric: acc}
search: {optimizer: cma, trials: 30, population: 5, racing: false}
"""
ITEMS = 40
IDS = {split: tuple(f"{split}{i}" for i in range(ITEMS)) for split in ("search", "holdout")}


class StoppedError(Exception):
    """The end of a process, as far as a test in one process can have it."""


def score(assignment):
    """Items that are right where a weight is near its best; one recipe in nine fails."""
    text = yaml.safe_dump(assignment.recipe)
    seed = sum(text.encode())
    if seed % 9 == 4 and assignment.recipe["merge_method"] == "task_arithmetic":
        return Failed(assignment.number, assignment.split, "no luck", {}, 1)
    weights = []
    for model in assignment.recipe["models"]:
        value = model.get("parameters", {}).get("weight", 1.0)
        weights.append(float(np.mean(value)))
    tasks = {}
    for index, name in enumerate(("a", "b")):
        right = 1 - abs(weights[index % len(weights)] - 0.7)
        values = (np.linspace(0, 1, ITEMS) < right).astype(float)
        tasks[name] = TaskItems("acc", True, IDS[assignment.split], values)
    scores = ItemScores(tasks)
    if assignment.items is not None:
        scores = scores.select(assignment.items)
    return Scored(assignment.number, assignment.split, scores, {"score": 1.0}, 1)


class InstantPool:
    """Workers that are done in the order of `pick`, and may stop the process."""

    def __init__(self, workers=1, pick=lambda busy: 0, stop_after=None):
        counts = {"a": ITEMS, "b": ITEMS}
        self.info = PoolInfo(
            workers=workers,
            items={"search": counts, "holdout": counts},
            objective={"a": 0.5, "b": 0.5},
            load_seconds=0.0,
            bank_bytes=0,
            ids={split: {"a": ids, "b": ids} for split, ids in IDS.items()},
            task_keys={"a": "one", "b": "two"},
        )
        self.busy = []
        self.pick = pick
        self.left = stop_after
        self.scored = []
        self.num_items = 0

    def num_free(self):
        return self.info.workers - len(self.busy)

    def num_busy(self):
        return len(self.busy)

    def submit(self, assignment):
        self.busy.append(assignment)

    def evaluate(self, assignment):
        return score(assignment)

    def wait(self):
        if self.left is not None:
            if self.left == 0:
                raise StoppedError
            self.left -= 1
        assignment = self.busy.pop(self.pick(self.busy))
        self.scored.append((assignment.number, assignment.split))
        outcome = self.evaluate(assignment)
        if isinstance(outcome, Scored):
            self.num_items += outcome.scores.num_items
        return outcome


class Harness:
    """A study on disk that drivers fill."""

    def __init__(self, path: Path, top=None, cache=None, **search):
        data = yaml.safe_load(SPACE)
        data["search"] |= search
        data |= top or {}
        self.cache = cache
        self.space = parse_space(data)
        self.directory = RunDirectory(path)
        self.directory.create()

    def study(self):
        names = tuple(self.space.document.objective)
        return Study(open_storage(self.directory.study_url), "s", self.space.dimensions, names)

    def drive(self, pool, holdout=False):
        study = self.study()
        caches = self.cache and open_caches(self.cache, pool.info, {"m/math": "f00"}, 0)
        driver = Driver(
            self.space,
            study,
            self.directory,
            pool,
            SilentMonitor(),
            session=0,
            started=time.perf_counter(),
            caches=caches,
        )
        driver.score_baselines()
        study.set_attribute("ended", driver.search())
        if holdout:
            driver.score_holdout(choose_finalists(study, 3))
        return study

    def drive_until_stopped(self, pool):
        """Drive, and return whether it came to the end."""
        try:
            self.drive(pool)
        except StoppedError:
            return False
        return True

    def trials(self):
        """Return what must not depend on interruptions."""
        return [
            (r.number, r.kind, r.label, r.state, r.point, r.asked_after, r.order, r.value, r.reason)
            for r in self.study().records.values()
        ]


@pytest.fixture(scope="session")
def postgresql_server():
    """A server of the tests' own; skips where there is none."""
    pytest.importorskip("psycopg", reason="no psycopg: pip install 'evomerge[postgresql]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        from local_postgresql import find_binaries, local_postgresql
    if find_binaries() is None:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    with local_postgresql() as url:
        yield url


@pytest.fixture
def postgresql(postgresql_server):
    """The URL of an empty database."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgresql_server.rsplit('/', 1)[0]}/{name}"


@pytest.fixture
def harness(tmp_path):
    return lambda name="run", **search: Harness(tmp_path / name, **search)
