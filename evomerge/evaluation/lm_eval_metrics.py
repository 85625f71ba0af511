"""The metric of an lm-eval task: its name, filter and aggregation, and what is kept of each item.

Part of the adapter to lm-eval.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evomerge.errors import EvaluationError, nearest
from evomerge.evaluation.aggregations import RATIOS
from evomerge.evaluation.lm_eval_aggregations import aggregation_name, apply_aggregation
from evomerge.evaluation.lm_eval_requests import Requests
from evomerge.evaluation.scores import TaskItems

__all__ = ["Metric", "resolve_metric"]

WEIGHTED = ("weighted_perplexity", "bits_per_byte")


@dataclass(frozen=True)
class Metric:
    """What a task is asked for.

    Attributes:
        task: The task's name, for messages.
        label: The metric as the space names it.
        name: lm-eval's name of it.
        filter: lm-eval's name of the filter.
        higher_is_better: As lm-eval says.
        aggregation: Name of what makes the score from the items.
    """

    task: str
    label: str
    name: str
    filter: str
    higher_is_better: bool
    aggregation: str

    def filtered(self, task: Any, answered: Mapping[str, Requests]) -> None:
        """Apply the filter to the responses of some items, in place."""
        flat = [instance for requests in answered.values() for instance in requests]
        if flat:
            _filters(task, self.filter).apply(flat)

    def collect(self, given: Mapping[str, Mapping[str, Any]]) -> TaskItems:
        """Return what is kept of each item.

        Args:
            given: Item id -> what the task's ``process_results`` returned.

        Raises:
            EvaluationError: if no item has the metric, or its values do not fit its aggregation.
        """
        there = [self.name in metrics for metrics in given.values()]
        if given and not any(there):
            item, metrics = next(iter(given.items()))
            raise EvaluationError(
                f"task {self.task!r} gave item {item} no {self.name!r}; it gave {list(metrics)}"
            )
        values = [metrics.get(self.name) for metrics in given.values()]
        if self.aggregation in RATIOS:
            return self._ratio(tuple(given), values, there)
        if not all(there):
            raise EvaluationError(
                f"task {self.task!r} gave only some items {self.name!r}, which is aggregated by "
                f"{self.aggregation!r} over all; choose another metric of the task"
            )
        if all(_is_number(value) for value in values):
            numbers = np.array(values, dtype=np.float64)
            return self._items(tuple(given), numbers)
        details = tuple(
            self._detail(item, value) for item, value in zip(given, values, strict=True)
        )
        return self._items(tuple(given), np.full(len(details), math.nan), details=details)

    def _ratio(
        self, items: tuple[str, ...], values: Sequence[Any], there: Sequence[bool]
    ) -> TaskItems:
        pairs = [
            self._pair(item, value) if known else (0.0, 0.0)
            for item, value, known in zip(items, values, there, strict=True)
        ]
        above, below = (np.array(column) for column in zip(*pairs, strict=True))
        return self._items(items, above, weights=None if (below == 1).all() else below)

    def _pair(self, item: str, value: Any) -> tuple[float, float]:
        """Return what an item adds to the two sums of a ratio."""
        if self.aggregation == "brier_score":
            value = apply_aggregation(self.aggregation, [value])
        if self.aggregation in WEIGHTED:
            if not isinstance(value, list | tuple) or len(value) != 2:
                raise self._unfit(item, value, "a pair (log-likelihood, weight)")
            pair = (value[0], value[1])
        elif not _is_number(value):
            raise self._unfit(item, value, "a number")
        elif self.aggregation == "nanmean" and math.isnan(value):
            return 0.0, 0.0
        else:
            pair = (value, 1.0)
        if not all(_is_number(part) and math.isfinite(part) for part in pair):
            raise EvaluationError(f"task {self.task!r}: {self.name} of item {item} is {value}")
        return float(pair[0]), float(pair[1])

    def _unfit(self, item: str, value: Any, wanted: str) -> EvaluationError:
        return EvaluationError(
            f"task {self.task!r}: metric {self.name!r} is aggregated by {self.aggregation!r}, "
            f"which wants {wanted} of each item; item {item} gave {value!r}; choose another metric "
            "of the task"
        )

    def _detail(self, item: str, value: Any) -> str:
        try:
            return json.dumps(value, ensure_ascii=False, default=_plain)
        except (TypeError, ValueError) as exc:
            raise EvaluationError(
                f"task {self.task!r}: what item {item} gave for {self.name!r} cannot be kept "
                f"({exc}); choose another metric of the task"
            ) from exc

    def _items(self, items: tuple[str, ...], values: Any, **more: Any) -> TaskItems:
        return TaskItems(self.label, self.higher_is_better, items, values, self.aggregation, **more)


def resolve_metric(task: Any, label: str) -> Metric:
    """Find the metric and filter that a space names.

    Args:
        task: The lm-eval task.
        label: ``"exact_match"`` or ``"exact_match,strict-match"``.

    Raises:
        EvaluationError: naming those that exist, if one does not, or if the metric's aggregation
            cannot be called outside the task.
    """
    title = task.task_name
    _check_functions(task)
    filters = [entry["name"] for entry in task.get_config("filter_list") or []] or ["none"]
    known = list(dict.fromkeys([*task.higher_is_better(), *task.aggregation()]))
    name, _, chosen = label.partition(",")
    source = _source(task, name, known)
    full = [f"{each},{one}" for each in known for one in filters]
    if source is None:
        raise EvaluationError(
            f"task {title!r} has no metric {name!r}; "
            f"{nearest(name, known if len(filters) == 1 else full)}"
        )
    if not chosen and len(filters) > 1:
        options = ", ".join(f"{name},{each}" for each in filters)
        raise EvaluationError(
            f"task {title!r} reports {name!r} for {len(filters)} filters; say which: {options}"
        )
    if chosen and chosen not in filters:
        raise EvaluationError(
            f"task {title!r} has no filter {chosen!r}; {nearest(chosen, filters)}"
        )
    aggregation = _aggregation(task, source)
    if aggregation is None:
        usable = [each for each in known if _aggregation(task, each) is not None]
        function = task.aggregation()[source]
        problem = "an aggregation that lm-eval does not know"
        if function is not None:
            called = getattr(function, "__name__", function)
            problem = (
                f"the aggregation {called!r}, which gives no score or cannot be called outside the "
                "task"
            )
        raise EvaluationError(
            f"task {title!r}: metric {name!r} has {problem}; metrics of the task that work: "
            f"{', '.join(usable) or 'none'}"
        )
    higher = bool(task.higher_is_better().get(source, True))
    return Metric(title, label, name, chosen or filters[0], higher, aggregation)


def _source(task: Any, name: str, known: Sequence[str]) -> str | None:
    """Return the entry that a metric comes from: its own, or a function's that gives several.

    A function in a task's ``metric_list`` may give results under names that nobody knows before
    it was called (``pass@1``).
    """
    if name in known:
        return name
    entries = [entry.get("metric") for entry in task.get_config("metric_list") or []]
    functions = [str(entry.__name__) for entry in entries if callable(entry)]
    return functions[0] if len(functions) == 1 else None


def _check_functions(task: Any) -> None:
    """Refuse a generation task with a metric that lm-eval has not found.

    It calls every metric of the list for each item, and has None for such a one.
    """
    from lm_eval.api.registry import METRIC_REGISTRY, get_metric
    from lm_eval.api.task import ConfigurableTask

    if (
        task.get_config("output_type") != "generate_until"
        or callable(task.get_config("process_results"))
        or type(task).process_results is not ConfigurableTask.process_results
    ):
        return
    for entry in task.get_config("metric_list") or []:
        name, elsewhere = entry["metric"], entry.get("hf_evaluate") is True
        if isinstance(name, str) and get_metric(name, elsewhere) is None:
            raise EvaluationError(
                f"task {task.task_name!r}: its metric {name!r} is none of lm-eval's, and the "
                "library 'evaluate' cannot load one of that name (it reads most of them from the "
                f"hub); {nearest(name, METRIC_REGISTRY)}"
            )


def _aggregation(task: Any, name: str) -> str | None:
    if name not in task.aggregation():  # lm-eval's own rule for a metric without one
        return "mean"
    function = task.aggregation()[name]
    if function is None:
        return None
    found = aggregation_name(function)
    return None if found == "bypass" else found


def _filters(task: Any, name: str) -> Any:
    from lm_eval.filters import build_filter_ensemble

    for entry in task.get_config("filter_list") or []:
        if entry["name"] == name:
            steps = [
                (step["function"], {k: v for k, v in step.items() if k != "function"})
                for step in entry["filter"]
            ]
            return build_filter_ensemble(name, steps)
    return build_filter_ensemble("none", [("take_first", None)])


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.number | np.bool_)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no plain data")
