"""One lm-eval task: its items, its requests built once, its metric. Part of the adapter to lm-eval.

Only the modules named ``lm_eval_*`` import lm-eval, through its public interface.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from evomerge.errors import EvaluationError, nearest
from evomerge.evaluation.items import content_id
from evomerge.evaluation.lm_eval_requests import LanguageModel, Requests, loading
from evomerge.evaluation.settings import EvaluationSettings, TaskSettings

__all__ = ["LmEvalTask", "unsafe"]


class _Document(dict[str, Any]):
    """A document that knows its item id."""

    def __init__(self, content: Mapping[str, Any], item: str) -> None:
        super().__init__(content)
        self.item = item


class _Remembered:
    """A function of a document whose results are kept by item id."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute = compute
        self._results: dict[str, Any] = {}

    def __call__(self, document: Any) -> Any:
        if not isinstance(document, _Document):
            return self._compute(document)
        if document.item not in self._results:
            self._results[document.item] = self._compute(document)
        return copy.copy(self._results[document.item])


class LmEvalTask:
    """One lm-eval task with the metric that the space asks for.

    Attributes:
        name: Its name.
        metric: The metric as the space names it.
        higher_is_better: As lm-eval says.
        documents: Content id -> document, each content once, in the task's order.
        all_ids: Content ids of all documents that may be items, duplicates included.
    """

    def __init__(
        self, task: Any, wanted: TaskSettings, settings: EvaluationSettings, seed: int
    ) -> None:
        self.name: str = task.task_name
        self.metric = wanted.metric
        self._task = task
        self._settings = settings
        self._seed = seed
        self._check_kind()
        self._configure(wanted)
        self._metric, self._filter = self._resolve_metric()
        self.higher_is_better = bool(task.higher_is_better().get(self._metric, True))
        documents = list(task.eval_docs)
        ids = [content_id(document) for document in documents]
        shown = self._example_ids()
        self.all_ids = [item for item in ids if item not in shown]
        if documents and not self.all_ids:
            raise EvaluationError(
                f"task {self.name!r} takes its few-shot examples from the documents that it is "
                "evaluated on, and an example must never be an item; set num_fewshot: 0 for it, or "
                "give the task a fewshot_split of its own"
            )
        self._built: dict[str, Requests] = {}
        self._index: dict[str, int] = {}
        for index, item in enumerate(ids):
            self._index.setdefault(item, index)
        self.documents: dict[str, Any] = {
            item: documents[self._index[item]] for item in dict.fromkeys(self.all_ids)
        }

    def index(self, item: str) -> int:
        """Return the place of an item among the task's documents, as lm-eval counts them."""
        return self._index[item]

    def _check_kind(self) -> None:
        if getattr(self._task, "UNSAFE_CODE", False) and not self._settings.allow_code_execution:
            raise EvaluationError(unsafe(self.name))
        if getattr(self._task, "MULTIMODAL", False):
            raise EvaluationError(f"task {self.name!r} has images or sound; only text is evaluated")

    def _configure(self, wanted: TaskSettings) -> None:
        """Set what the settings override, by lm-eval's own rules of precedence."""
        task, settings = self._task, self._settings
        own = task.get_config("num_fewshot")
        if wanted.num_fewshot is not None:
            task.set_config("num_fewshot", wanted.num_fewshot)
        elif settings.num_fewshot is not None and own != 0:
            task.set_config("num_fewshot", settings.num_fewshot)
        elif own is None:
            task.set_config("num_fewshot", 0)
        if settings.gen_kwargs and task.get_config("output_type") == "generate_until":
            task.set_config("generation_kwargs", dict(settings.gen_kwargs), update=True)

    def _resolve_metric(self) -> tuple[str, str]:
        """Return metric and filter, both existing.

        Raises:
            EvaluationError: if not, or if the metric is no mean over items.
        """
        from lm_eval.api.registry import get_aggregation

        filters = [entry["name"] for entry in self._task.get_config("filter_list") or []] or [
            "none"
        ]
        known = list(dict.fromkeys([*self._task.higher_is_better(), *self._task.aggregation()]))
        metric, _, chosen = self.metric.partition(",")
        full = [f"{name},{each}" for name in known for each in filters]
        if metric not in known:
            raise EvaluationError(
                f"task {self.name!r} has no metric {metric!r}; "
                f"{nearest(metric, known if len(filters) == 1 else full)}"
            )
        if not chosen and len(filters) > 1:
            options = ", ".join(f"{metric},{each}" for each in filters)
            raise EvaluationError(
                f"task {self.name!r} reports {metric!r} for {len(filters)} filters; say which: "
                f"{options}"
            )
        if chosen and chosen not in filters:
            raise EvaluationError(
                f"task {self.name!r} has no filter {chosen!r}; {nearest(chosen, filters)}"
            )
        aggregation = self._task.aggregation().get(metric)
        if aggregation is not None and aggregation is not get_aggregation("mean"):
            title = getattr(aggregation, "__name__", str(aggregation))
            raise EvaluationError(
                f"task {self.name!r}: metric {metric!r} is not a mean over items (lm-eval "
                f"aggregates it by {title!r}), so it has no per-item values and no standard "
                "error; choose another metric of the task"
            )
        return metric, chosen or filters[0]

    def _example_ids(self) -> set[str]:
        """Return the content ids of all documents that may be few-shot examples."""
        if not self._task.get_config("num_fewshot"):
            return set()
        return {content_id(document) for document in self._task.fewshot_docs() or []}

    def build(self, items: Sequence[str], model: LanguageModel) -> dict[str, Requests]:
        """Build prompts and requests of these items, once.

        Few-shot examples are drawn in the order of the task's documents, with the search's seed.
        Without a chat template the prompts do not depend on the model, and another model gets
        the same ones.

        Raises:
            EvaluationError: if the task's documents are others than when they were split.
        """
        task, settings = self._task, self._settings
        chat = settings.apply_chat_template
        if not chat and self._built.keys() == set(items):
            return self._built
        indices = sorted(self._index[item] for item in items)
        with loading(self._seed):
            task.set_fewshot_seed(self._seed)
            task.build_all_requests(
                samples=indices,
                system_instruction=settings.system_instruction,
                apply_chat_template=chat,
                fewshot_as_multiturn=settings.fewshot_as_multiturn,
                chat_template=model.apply_chat_template if chat else None,
                tokenizer_name=str(getattr(model, "tokenizer_name", "")) if chat else "",
            )
        place = {index: item for item, index in self._index.items()}
        built: dict[str, Requests] = {item: [] for item in items}
        for instance in task.instances:
            item = place[indices[instance.doc_id]]
            if not built[item] and content_id(instance.doc) != item:
                raise EvaluationError(
                    f"task {self.name!r} gives other documents each time it is read, so its items "
                    "cannot be told apart; its process_docs must be deterministic"
                )
            built[item].append(instance)
        for requests in built.values():
            requests.sort(key=lambda instance: instance.idx)
        self._remember_fields()
        self._built = built
        return built

    def _remember_fields(self) -> None:
        """Let the task keep what it computes from a document alone.

        lm-eval compiles a template each time a metric asks for a document's target: without this,
        metrics cost as much as the forward passes of a small model.
        """
        for field in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            given = self._task.get_config(field)
            if isinstance(given, str):
                compute = partial(getattr(self._task, field), **{field: given})
                self._task.set_config(field, _Remembered(compute))

    def values(self, answered: Mapping[str, Requests]) -> dict[str, float]:
        """Return the metric of each item.

        Args:
            answered: Item id -> its instances with the model's responses (see ``run_requests``).

        Raises:
            EvaluationError: if an item has no finite number for the metric.
        """
        flat = [instance for requests in answered.values() for instance in requests]
        if flat:
            self._filters().apply(flat)
        return {item: self._value(item, requests) for item, requests in answered.items()}

    def _filters(self) -> Any:
        from lm_eval.filters import build_filter_ensemble

        for entry in self._task.get_config("filter_list") or []:
            if entry["name"] == self._filter:
                steps = [
                    (step["function"], {k: v for k, v in step.items() if k != "function"})
                    for step in entry["filter"]
                ]
                return build_filter_ensemble(self._filter, steps)
        return build_filter_ensemble("none", [("take_first", None)])

    def _value(self, item: str, requests: Requests) -> float:
        document = self.documents[item]
        if isinstance(document, dict):  # a copy: some tasks write into the document they get
            document = _Document(document, item)
        responses = [instance.filtered_resps[self._filter] for instance in requests]
        metrics = self._task.process_results(document, responses)
        if self._metric not in metrics:
            raise EvaluationError(
                f"task {self.name!r} gave item {item} no {self._metric!r}; it gave {list(metrics)}"
            )
        value = metrics[self._metric]
        if not isinstance(value, bool | int | float | np.number | np.bool_):
            raise EvaluationError(
                f"task {self.name!r}: metric {self._metric!r} is not a mean over items: the value "
                f"of item {item} is {value!r}; choose another metric of the task"
            )
        if not math.isfinite(value):
            raise EvaluationError(f"task {self.name!r}: {self._metric} of item {item} is {value}")
        return float(value)


def unsafe(name: str) -> str:
    """Return the refusal of a task that executes what the model wrote."""
    return (
        f"task {name!r} runs code that the model wrote, on this machine; to allow it, set "
        "allow_code_execution: true in the space's evaluation settings, in a sandbox"
    )
