"""One run from a space to a winner, begun or continued."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from evomerge.checkpoints import Checkpoint, content_identity, open_checkpoint
from evomerge.documents import Origin
from evomerge.engine import plan_merge
from evomerge.errors import StudyError
from evomerge.evaluation.settings import Split
from evomerge.recipe import parse_recipe
from evomerge.search.baselines import baselines
from evomerge.search.budget import Budget, Spent
from evomerge.search.cache import ResultCache, open_caches
from evomerge.search.climb import summarize_climb
from evomerge.search.constraints import reference_baselines
from evomerge.search.directory import RunDirectory, write_atomically
from evomerge.search.driver import Driver
from evomerge.search.finalists import (
    choose_finalists,
    compare_with_baselines,
    prefer_climbed,
    rank_finalists,
)
from evomerge.search.fronts import make_fronts
from evomerge.search.identity import changed_since, claim, claim_tasks, write_space
from evomerge.search.monitor import Monitor, SilentMonitor
from evomerge.search.objectives import ObjectiveFacts, make_objectives
from evomerge.search.optimism import measure_optimism
from evomerge.search.places import StudyPlace
from evomerge.search.readiness import find_unready
from evomerge.search.records import TrialRecord
from evomerge.search.result import RunResult
from evomerge.search.sessions import add_up_seconds, close_session, open_session
from evomerge.search.study import Study
from evomerge.search.verdicts import HoldoutCheck
from evomerge.search.warm_start import Hint, read_warm_start
from evomerge.space import Space, parse_space, usual_point
from evomerge.workers import Pool, WorkerSpec, open_pool

__all__ = ["run", "worker_spec"]


def worker_spec(
    space: Space, *, device: str = "auto", allow_code_execution: bool = False
) -> WorkerSpec:
    """Return what a worker needs for a space.

    Args:
        space: The space.
        device: A torch device, or ``auto``: CUDA where there is one.
        allow_code_execution: Tasks may run code that the model wrote, if the space says so too.
    """
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    document = space.document
    return WorkerSpec(
        models=space.model_names(),
        tasks=tuple(document.tasks),
        evaluation=document.evaluation,
        seed=document.search.seed,
        folder=str(space.origin.folder),
        device=device,
        code_confirmed=allow_code_execution,
    )


def run(
    space: Space,
    out: str | Path | None = None,
    *,
    workers: int = 1,
    ray_address: str | None = None,
    storage: str | None = None,
    device: str = "auto",
    allow_code_execution: bool = False,
    cache: str | Path | None = None,
    monitor: Monitor | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    warm_start: str | Path | None = None,
) -> RunResult:
    """Search a space, choose the winner on held-out items and write everything.

    Called again with the same arguments it continues where it was stopped, or returns the result
    of a finished run.

    Args:
        space: What to search.
        out: Run directory; by default ``runs/NAME``.
        workers: Workers; more than one are Ray actors.
        ray_address: A running Ray cluster.
        storage: Storage URL of a new run's study; by default SQLite in the run directory. Another
            session goes on where the study is.
        device: A torch device, or ``auto``.
        allow_code_execution: Tasks may run code that the model wrote, if the space says so too.
        cache: Folder of results that several runs share; by default one in the run directory.
        monitor: Who watches.
        interrupted: Asked before each trial: whether the search is to end now, with what it has.
        warm_start: Directory of an earlier run over the same or an overlapping space; read once,
            when the run begins.

    Raises:
        EvomergeError: with one message, before anything is scored, if something is wrong with the
            space, a model, a task or the run directory.
    """
    started = time.perf_counter()
    monitor = monitor or SilentMonitor()
    directory = RunDirectory(Path(out) if out is not None else Path("runs") / space.name)
    hints: tuple[Hint, ...] = ()
    if warm_start is not None and not directory.space.is_file():
        warm = read_warm_start(space, warm_start)
        space, hints = warm.space, warm.hints
    checkpoints = _check_models(space)
    identities = {name: content_identity(each) for name, each in checkpoints.items()}
    place = StudyPlace(directory, storage)
    with ExitStack() as stack:

        def start() -> Pool:
            monitor.loading()
            spec = worker_spec(space, device=device, allow_code_execution=allow_code_execution)
            pool = stack.enter_context(open_pool(spec, workers=workers, ray_address=ray_address))
            for unready in find_unready(space, checkpoints, pool.info.answers):
                monitor.note(unready)
            return pool

        # A new run starts its workers first: what is wrong shows before anything is written.
        pool = None if directory.space.is_file() else start()
        directory.create()
        stack.enter_context(directory.lock())
        study = place.open(space)
        if "hints" in study.attributes and directory.space.is_file():
            kept = parse_space(directory.read_space()).document.start
            space = space.with_document(start=kept)
            hints = tuple(Hint(**each) for each in study.attributes["hints"])
        elif warm_start is not None:
            if "identity" in study.attributes:
                raise StudyError(
                    f"--warm-start {warm_start}: the run in {directory.path} was begun without; "
                    "leave it out to go on, or give another --out to begin with it"
                )
            study.set_attribute("hints", [asdict(each) for each in hints])
        claim(study, space, identities)
        write_space(directory, space, study, place.url)
        finalists = _finished(study, space)
        if finalists is None:
            pool = pool or start()
            claim_tasks(study, pool.info.task_identities)
            folder = directory.cache if cache is None else Path(cache)
            known = open_caches(
                folder,
                pool.info,
                identities,
                space.document.search.seed,
                proxy=space.document.evaluation.proxy,
            )
            finalists = _search(
                space,
                study,
                directory,
                pool,
                caches=known,
                monitor=monitor,
                started=started,
                interrupted=interrupted,
                hints=hints,
            )
        elif changed := changed_since(study, space, code_confirmed=allow_code_execution):
            monitor.note(changed)
        result = _conclude(study, directory, space, finalists)
    monitor.concluded(result)
    return result


def _check_models(space: Space) -> dict[str, Checkpoint]:
    """Open every model, plan the usual recipe and every baseline.

    What constraints are measured against is looked for too.
    """
    checkpoints = {name: open_checkpoint(name) for name in space.model_names()}
    found = baselines(space)
    reference_baselines(space, found)
    recipes = [space.decode(usual_point(space))]
    recipes += [parse_recipe(dict(b.recipe), Origin(b.name)) for b in found]
    for recipe in recipes:
        plan_merge(recipe, {name: checkpoints[name] for name in recipe.model_names()})
    return checkpoints


def _search(
    space: Space,
    study: Study,
    directory: RunDirectory,
    pool: Pool,
    *,
    caches: Mapping[Split, ResultCache],
    monitor: Monitor,
    started: float,
    interrupted: Callable[[], bool],
    hints: Sequence[Hint],
) -> list[TrialRecord]:
    """Do all that is left to score; return the finalists."""
    monitor.ready(pool.info, tuple(study.records.values()))
    before = add_up_seconds(study)["total"]
    session = open_session(study, pool)
    driver = Driver(
        space,
        study,
        directory,
        pool,
        monitor,
        session=session,
        started=started,
        seconds_before=before,
        caches=caches,
        interrupted=interrupted,
        hints=hints,
    )
    driver.score_baselines()
    driver.climb()
    study.set_attribute("ended", driver.search())
    finalists = choose_finalists(study, space.document.search.finalists)
    driver.score_holdout(_for_holdout(study, finalists))
    total = time.perf_counter() - started
    close_session(study, session, propose=driver.propose_seconds, total=total)
    return finalists


def _for_holdout(study: Study, finalists: list[TrialRecord]) -> list[TrialRecord]:
    """Return the finalists and every baseline that has a score, each once."""
    chosen = {record.number: record for record in finalists}
    for record in study.records.values():
        if record.is_baseline and record.state == "complete":
            chosen.setdefault(record.number, record)
    return list(chosen.values())


def _finished(study: Study, space: Space) -> list[TrialRecord] | None:
    """Return the finalists if there is nothing left to score, else None."""
    records = study.records.values()
    known = {(record.kind, record.label) for record in records}
    open_work = (
        any(record.state == "running" for record in records)
        or not _is_spent(study, space)
        or any((baseline.kind, baseline.name) not in known for baseline in baselines(space))
    )
    if open_work:
        return None
    finalists = choose_finalists(study, space.document.search.finalists)
    if any(record.holdout is None for record in _for_holdout(study, finalists)):
        return None
    return finalists


def _is_spent(study: Study, space: Space) -> bool:
    """Return whether the search ended, by the budget that is given now."""
    kept = study.attributes.get("ended")
    if kept is None:
        return False
    spent = Spent(
        trials=len(study.records),
        items=kept["items"],
        seconds=add_up_seconds(study)["total"],
        idle_trials=kept["idle_trials"],
    )
    return kept["exhausted"] or Budget(space.document.search).ended(spent) is not None


def _conclude(
    study: Study, directory: RunDirectory, space: Space, finalists: list[TrialRecord]
) -> RunResult:
    attributes = study.attributes
    facts = ObjectiveFacts.from_dict(attributes["objective"])
    trials = tuple(study.records[number] for number in sorted(study.records))
    check = HoldoutCheck(space, facts, study, directory)
    verdicts = {record.number: check.verdicts(record) for record in finalists}
    ranked = rank_finalists([study.records[record.number] for record in finalists], verdicts)
    objectives = make_objectives(space, facts, attributes.get("parents"))
    ranked, preference = prefer_climbed(ranked, directory, objectives.first, verdicts)
    comparisons = compare_with_baselines(study, directory, ranked[0], objectives.first)
    several = len(objectives.reported) > 1
    result = RunResult(
        space=space.name,
        seed=space.document.search.seed,
        trials=trials,
        finalists=ranked,
        comparisons=comparisons,
        seconds=add_up_seconds(study),
        preference=preference,
        proxy=space.document.evaluation.proxy,
        climb=summarize_climb(attributes.get("climb")),
        fronts=make_fronts(trials, ranked, check.holds) if several else None,
        verdicts={number: found for number, found in verdicts.items() if found},
    )
    best = result.versus("parent")
    parent = None if best is None else best.baseline
    optimism = measure_optimism(directory, ranked[0], parent, objectives.first)
    result = replace(result, optimism=optimism)
    write_atomically(directory.best, _best_yaml(result))
    write_atomically(directory.result, json.dumps(result.to_dict(), indent=2) + "\n")
    return result


def _best_yaml(result: RunResult) -> str:
    recipe = yaml.safe_dump(dict(result.winner.recipe), sort_keys=False)
    return (
        f"# {result.winner.label} of the search space {result.space!r}\n"
        f"# evomerge merge best.yml OUT --seed {result.seed}\n{recipe}"
    )
