"""The study: the one record of a run, in any Optuna storage."""

import dataclasses
import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
import yaml
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge.errors import StudyError
from evomerge.proposers import distribution
from evomerge.search.records import Kind, Summary, TrialRecord
from evomerge.space import Dimension, Value

__all__ = ["Study", "open_storage"]

optuna.logging.set_verbosity(optuna.logging.ERROR)

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}
METRIC = "objective"
_SQLITE = "sqlite:///"


def open_storage(url: str) -> BaseStorage:
    """Open an Optuna storage.

    Args:
        url: A SQLAlchemy URL (``sqlite:///…``, ``postgresql://…``) or the path of a journal file
            that ends in ``.log``.

    Raises:
        StudyError: if it cannot be opened.
    """
    try:
        if "://" not in url and url.endswith(".log"):
            return JournalStorage(JournalFileBackend(url))
        if url.startswith(_SQLITE):
            path = url.removeprefix(_SQLITE)
            return RDBStorage(url, engine_kwargs={"creator": lambda: _connect_sqlite(path)})
        return RDBStorage(url)
    except Exception as error:
        # SQLAlchemy, its drivers and Optuna raise errors of a dozen unrelated classes here.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StudyError(
            f"--storage {_without_password(url)}: cannot be opened: {first}; give a SQLAlchemy URL "
            "such as sqlite:///runs/study.db or postgresql://user@host/name"
        ) from error


def _connect_sqlite(path: str) -> sqlite3.Connection:
    """Connect so that a commit survives the death of any process without waiting for the disk.

    With a write-ahead log the file is consistent after a power cut too, which may then cost the
    last few commits; the default would flush the disk eight times a trial.
    """
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _without_password(url: str) -> str:
    scheme, found, rest = url.partition("://")
    if not found or "@" not in rest:
        return url
    return f"{scheme}://…@{rest.rsplit('@', 1)[1]}"


class Study:
    """Trials in an Optuna storage, with one writer.

    A finished trial is written once and never changed. Held-out scores, which come later, are
    attributes of the study.

    Args:
        storage: Where it is kept.
        name: Its name there.
        dimensions: The searched values.
        objectives: Names of the numbers that are raised.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        dimensions: tuple[Dimension, ...] = (),
        objectives: Sequence[str] = (METRIC,),
    ) -> None:
        self._storage = storage
        self._distributions = {d.name: distribution(d) for d in dimensions}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=["maximize"] * len(objectives),
                load_if_exists=True,
            )
            if len(study.directions) == len(objectives):
                study.set_metric_names(list(objectives))
        self.name = name
        self._id = storage.get_study_id_from_name(name)
        self._ids: dict[int, int] = {}
        self.records: dict[int, TrialRecord] = {}
        self._load()
        self.store_seconds = 0.0

    @property
    def attributes(self) -> dict[str, Any]:
        """What is kept of the run as a whole."""
        return dict(self._storage.get_study_user_attrs(self._id))

    def set_attribute(self, key: str, value: Any) -> None:
        """Keep something of the run as a whole; JSON data."""
        with self._timed():
            self._storage.set_study_user_attr(self._id, key, value)

    def begin(
        self,
        *,
        kind: Kind,
        label: str | None,
        recipe: Mapping[str, Any],
        point: Mapping[str, Value] | None,
        asked_after: int,
        seed: int,
    ) -> TrialRecord:
        """Add a running trial."""
        number = len(self.records)
        name = label or f"trial {number}"
        attributes = {
            "kind": kind,
            "label": name,
            "recipe": yaml.safe_dump(dict(recipe), sort_keys=False),
            "asked_after": asked_after,
            "seed": seed,
        }
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(point or {}),
            distributions=self._distributions if point else {},
            user_attrs=attributes,
        )
        with self._timed():
            trial_id = self._storage.create_new_trial(self._id, template_trial=template)
            actual = self._storage.get_trial_number_from_id(trial_id)
        if actual != number:
            raise StudyError(
                f"the study {self.name!r} got trial {actual} while this run was at {number}: "
                "another process writes to it; stop that one, or use another --out or --storage"
            )
        record = TrialRecord(number, kind, name, "running", recipe, point, asked_after)
        self._ids[number] = trial_id
        self.records[number] = record
        return record

    def complete(
        self,
        number: int,
        summary: Summary,
        *,
        seconds: Mapping[str, float],
        order: int | None,
        worker: int,
        scored_items: int | None = None,
    ) -> TrialRecord:
        """Write a trial's scores and end it.

        Args:
            number: The trial.
            summary: Its scores on the search items.
            seconds: Where its time went.
            order: Place in the order of telling.
            worker: The process that scored it.
            scored_items: How many items the model was asked for; None means all.
        """
        objective = summary.objective
        scored = _num_items(summary) if scored_items is None else scored_items
        attributes: dict[str, Any] = {
            "scores": summary.to_dict(),
            "stderr": objective.stderr,
            "items": objective.items,
            "worker": worker,
            "scored_items": scored,
            **{name: score.value for name, score in summary.tasks.items()},
        }
        attributes |= {"seconds": dict(seconds), "order": order}
        self._end(number, attributes, TrialState.COMPLETE, list(summary.guiding))
        return self._update(
            number,
            state="complete",
            search=summary,
            seconds=seconds,
            order=order,
            worker=worker,
            scored_items={"search": scored},
        )

    def fail(
        self, number: int, reason: str, *, seconds: Mapping[str, float], order: int | None
    ) -> TrialRecord:
        """End a trial as failed, with its reason."""
        attributes = {"reason": reason, "seconds": dict(seconds), "order": order}
        self._end(number, attributes, TrialState.FAIL, None)
        return self._update(number, state="failed", reason=reason, seconds=seconds, order=order)

    def set_holdout(
        self,
        number: int,
        summary: Summary,
        *,
        seconds: Mapping[str, float],
        scored_items: int | None = None,
    ) -> TrialRecord:
        """Keep the held-out scores of a finished trial."""
        scored = _num_items(summary) if scored_items is None else scored_items
        content = {**summary.to_dict(), "seconds": dict(seconds), "scored_items": scored}
        self.set_attribute(f"holdout:{number}", content)
        counts = {**self.records[number].scored_items, "holdout": scored}
        return self._update(number, holdout=summary, holdout_seconds=seconds, scored_items=counts)

    def _end(
        self,
        number: int,
        attributes: Mapping[str, Any],
        state: TrialState,
        values: list[float] | None,
    ) -> None:
        trial_id = self._ids[number]
        with self._timed():
            for key, item in attributes.items():
                self._storage.set_trial_user_attr(trial_id, key, item)
            self._storage.set_trial_state_values(trial_id, state, values)

    def _update(self, number: int, **changes: Any) -> TrialRecord:
        record = dataclasses.replace(self.records[number], **changes)
        self.records[number] = record
        return record

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.store_seconds += time.perf_counter() - started

    def _load(self) -> None:
        attributes = self.attributes
        for trial in self._storage.get_all_trials(self._id):
            number = trial.number
            self._ids[number] = self._storage.get_trial_id_from_study_id_trial_number(
                self._id, number
            )
            self.records[number] = _record(trial, attributes.get(f"holdout:{number}"))


def _num_items(summary: Summary) -> int:
    return sum(score.items for score in summary.tasks.values())


def _record(trial: FrozenTrial, holdout: Mapping[str, Any] | None) -> TrialRecord:
    kept = trial.user_attrs
    if "kind" not in kept or "recipe" not in kept:
        raise StudyError(
            f"trial {trial.number} of the study was not written by evomerge; use another --storage "
            "or another run name"
        )
    state = _STATES[trial.state]
    scored = {"search": kept["scored_items"]} if "scored_items" in kept else {}
    if holdout and "scored_items" in holdout:
        scored["holdout"] = holdout["scored_items"]
    return TrialRecord(
        number=trial.number,
        kind=kept["kind"],
        label=kept["label"],
        state=state,  # type: ignore[arg-type]
        recipe=yaml.safe_load(kept["recipe"]),
        point=dict(trial.params) or None,
        asked_after=kept["asked_after"],
        order=kept.get("order"),
        search=Summary.from_dict(kept["scores"]) if state == "complete" else None,
        holdout=Summary.from_dict(holdout) if holdout else None,
        reason=kept.get("reason"),
        seconds=kept.get("seconds", {}),
        holdout_seconds=(holdout or {}).get("seconds", {}),
        worker=kept.get("worker", 0),
        scored_items=scored,
    )
