"""A run's study as Optuna's tools want to read it: an attribute a fact, a parameter a value.

The study itself keeps a trial in two attributes, which is what costs least to write. This storage
passes every call on and shows the trials spread out.
"""

import copy
from collections.abc import Container, Sequence
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evomerge.errors import StudyError
from evomerge.proposers import distribution
from evomerge.search import Study, TrialRecord, read_trial

__all__ = ["ReadableStorage", "optuna_study"]

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's, where it is there, is faster


def optuna_study(study: Study) -> optuna.Study:
    """Return a run's study for Optuna's own functions: plots, importances, data frames."""
    return optuna.load_study(study_name=study.name, storage=ReadableStorage(study))


class ReadableStorage(BaseStorage):
    """A storage whose trials are spread out; other programs' trials are left as they are.

    Args:
        study: The study, whose trials' searched values are known.
    """

    def __init__(self, study: Study) -> None:
        self._inner = study.storage
        self._distributions = {d.name: distribution(d) for d in study.dimensions}
        self._finished: dict[tuple[int, int], FrozenTrial] = {}

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: ARG002 - what is shown is always a copy
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials of a study, spread out; each finished one is read once."""
        found = []
        for trial in self._inner.get_all_trials(study_id, deepcopy=False, states=states):
            key = (study_id, trial.number)
            shown = self._finished.get(key) or self._spread(trial)
            if trial.state.is_finished():
                self._finished[key] = shown
            found.append(shown)
        return found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial, spread out."""
        return self._spread(self._inner.get_trial(trial_id))

    def _spread(self, trial: FrozenTrial) -> FrozenTrial:
        try:
            record = read_trial(trial, None)
        except StudyError:
            return trial
        point = {
            name: value
            for name, value in (record.point or {}).items()
            if name in self._distributions
        }
        shown = copy.copy(trial)
        shown.params = dict(point)
        shown.distributions = {name: self._distributions[name] for name in point}
        shown.user_attrs = _facts(record)
        return shown

    # Everything else is the storage's own.

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Pass on."""
        return self._inner.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Pass on."""
        self._inner.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Pass on."""
        self._inner.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Pass on."""
        self._inner.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Pass on."""
        return self._inner.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Pass on."""
        return self._inner.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Pass on."""
        return self._inner.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Pass on."""
        return self._inner.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Pass on."""
        return self._inner.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        """Pass on."""
        return list(self._inner.get_all_studies())

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Pass on."""
        return self._inner.create_new_trial(study_id, template_trial)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Pass on."""
        self._inner.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Pass on."""
        return self._inner.set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Pass on."""
        self._inner.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Pass on."""
        self._inner.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Pass on."""
        self._inner.set_trial_system_attr(trial_id, key, value)

    def remove_session(self) -> None:
        """Pass on."""
        self._inner.remove_session()


def _facts(record: TrialRecord) -> dict[str, Any]:
    """Return what people look for, by name."""
    facts: dict[str, Any] = {"label": record.label, "kind": record.kind}
    if record.search is not None:
        facts |= {name: score.value for name, score in record.search.tasks.items()}
        facts |= {f"{name} stderr": each.stderr for name, each in record.search.tasks.items()}
        facts["stderr"] = record.search.objective.stderr
        facts["items"] = record.search.objective.items
        facts["scored_items"] = record.scored_items.get("search")
    if record.reason is not None:
        facts["reason"] = record.reason
    facts["recipe"] = yaml.dump(dict(record.recipe), Dumper=_DUMPER, sort_keys=False)
    return {**facts, "order": record.order, "seconds": dict(record.seconds)}
