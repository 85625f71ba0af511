"""The study: the one record of a run, in any Optuna storage."""

import contextlib
import copy
import dataclasses
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, OptunaError
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from evomerge.errors import StudyError
from evomerge.search import layout
from evomerge.search.layout import BEGUN, ENDED
from evomerge.search.records import Kind, Summary, TrialRecord
from evomerge.space import Dimension, Value

__all__ = ["Study", "create_study"]

METRIC = "objective"


class Study:
    """Trials in an Optuna storage, with one writer.

    A trial is three transactions: it begins, its result is written, its state says that it ended.
    A finished trial is never changed. Held-out scores, which come later, are attributes of the
    study. What is read here is what this process knows: it reads the storage once.

    Args:
        storage: Where it is kept.
        name: Its name there.
        dimensions: The searched values.
        objectives: Names of the numbers that are raised.
        create: Make the study where there is none.

    Raises:
        StudyError: if it is not there and may not be made, or was not written by evomerge.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        dimensions: tuple[Dimension, ...] = (),
        objectives: Sequence[str] = (METRIC,),
        *,
        create: bool = True,
    ) -> None:
        self.storage = storage
        self.name = name
        self.dimensions = dimensions
        if create:
            _create(storage, name, list(objectives), load_if_exists=True)
        try:
            self._id = storage.get_study_id_from_name(name)
        except KeyError as error:
            raise StudyError(
                f"there is no study {name!r} in its storage: it was deleted there, or kept "
                "elsewhere; 'evomerge run' begins it anew"
            ) from error
        self._attributes: dict[str, Any] = storage.get_study_user_attrs(self._id)
        self._ids: dict[int, int] = {}
        self._last_id = -2  # no trial has the id after it
        self.records: dict[int, TrialRecord] = {}
        self._load()
        self.store_seconds = 0.0

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of what is kept of the run as a whole."""
        return copy.deepcopy(self._attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        """Keep something of the run as a whole; JSON data."""
        # What is read now is what a later process will read: lists where there were tuples.
        value = json.loads(json.dumps(value))
        with self._timed():
            self.storage.set_study_user_attr(self._id, key, value)
        self._attributes[key] = value

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
        content = layout.begun(
            kind=kind, label=name, recipe=recipe, point=point, asked_after=asked_after, seed=seed
        )
        # The point is in there. As Optuna's parameters its values would be three statements each:
        # more, from six values on, than all the rest of a trial. ``evomerge.report`` shows them so.
        template = create_trial(state=TrialState.RUNNING, user_attrs={BEGUN: content})
        with self._timed():
            trial_id = self.storage.create_new_trial(self._id, template_trial=template)
            # Ids rise: with the one after our last, nobody has added a trial in between.
            is_ours = trial_id == self._last_id + 1 or trial_id == self._find_id(number)
        if not is_ours:
            raise StudyError(
                f"the study {self.name!r} has a trial {number} that this run did not begin: "
                "another process writes to it; stop that one, or use another --out or --storage"
            )
        record = TrialRecord(number, kind, name, "running", recipe, point, asked_after)
        self._ids[number] = self._last_id = trial_id
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
        stopped: bool = False,
    ) -> TrialRecord:
        """Write a trial's scores and end it.

        Args:
            number: The trial.
            summary: Its scores on the search items.
            seconds: Where its time went.
            order: Place in the order of telling.
            worker: The process that scored it.
            scored_items: How many items the model was asked for; None means all.
            stopped: The trial stopped early: the scores are estimates.
        """
        items = layout.num_items(summary) if scored_items is None else scored_items
        content = layout.scored(
            summary, seconds=seconds, order=order, worker=worker, scored_items=items
        )
        if summary.violations:
            # Where Optuna's samplers, `best_trials` and dashboard look for them.
            with self._timed():
                violations = list(summary.violations.values())
                self.storage.set_trial_system_attr(self._ids[number], "constraints", violations)
        state = TrialState.PRUNED if stopped else TrialState.COMPLETE
        self._end(number, content, state, list(summary.guiding))
        return self._update(
            number,
            state="pruned" if stopped else "complete",
            search=summary,
            seconds=seconds,
            order=order,
            worker=worker,
            scored_items={"search": items},
        )

    def fail(
        self, number: int, reason: str, *, seconds: Mapping[str, float], order: int | None
    ) -> TrialRecord:
        """End a trial as failed, with its reason."""
        content = layout.failed(reason, seconds=seconds, order=order)
        self._end(number, content, TrialState.FAIL, None)
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
        items = layout.num_items(summary) if scored_items is None else scored_items
        content = {**summary.to_dict(), "seconds": dict(seconds), "scored_items": items}
        self.set_attribute(f"holdout:{number}", content)
        counts = {**self.records[number].scored_items, "holdout": items}
        return self._update(number, holdout=summary, holdout_seconds=seconds, scored_items=counts)

    def _end(
        self,
        number: int,
        content: Mapping[str, Any],
        state: TrialState,
        values: list[float] | None,
    ) -> None:
        trial_id = self._ids[number]
        with self._timed():
            self.storage.set_trial_user_attr(trial_id, ENDED, content)
            self.storage.set_trial_state_values(trial_id, state, values)

    def _update(self, number: int, **changes: Any) -> TrialRecord:
        record = dataclasses.replace(self.records[number], **changes)
        self.records[number] = record
        return record

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        except (OptunaError, SQLAlchemyError, OSError) as error:
            # Optuna says what a database said only in the cause of its own error.
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise StudyError(
                f"the study {self.name!r} cannot be written: {reason}; once its storage takes "
                "writes again, the same command goes on from here"
            ) from error
        self.store_seconds += time.perf_counter() - started

    def _load(self) -> None:
        for trial in self.storage.get_all_trials(self._id, deepcopy=False):
            number = trial.number
            record = layout.read_trial(trial, self._attributes.get(f"holdout:{number}"))
            self.records[number] = record
            if record.state == "running":  # the others are never written again
                self._ids[number] = self._find_id(number)

    def _find_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)


def create_study(storage: BaseStorage, name: str, objectives: Sequence[str]) -> str:
    """Make a new study, and return its name: with a number where others have the one wanted.

    Args:
        storage: Where it is kept.
        name: Its name there, if it is free.
        objectives: Names of the numbers that are raised.
    """
    taken = set(optuna.get_all_study_names(storage))
    number = 1
    while True:
        wanted = name if number == 1 else f"{name}-{number}"
        number += 1
        if wanted in taken:
            continue
        with contextlib.suppress(DuplicatedStudyError):  # another process was quicker
            _create(storage, wanted, list(objectives), load_if_exists=False)
            return wanted


def _create(
    storage: BaseStorage, name: str, objectives: list[str], *, load_if_exists: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["maximize"] * len(objectives),
            load_if_exists=load_if_exists,
        )
        if len(study.directions) == len(objectives):
            study.set_metric_names(objectives)
