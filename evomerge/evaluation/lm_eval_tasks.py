"""One lm-eval task: its items, its requests built once, its metric. Part of the adapter to lm-eval.

Only the modules named ``lm_eval_*`` import lm-eval, through its public interface.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from evomerge.errors import EvaluationError
from evomerge.evaluation.items import content_id
from evomerge.evaluation.lm_eval_config import plain_config, task_definition
from evomerge.evaluation.lm_eval_documents import Documents, on_dataset_split, read_documents
from evomerge.evaluation.lm_eval_generation import answer_limit, overrides
from evomerge.evaluation.lm_eval_metrics import resolve_metric
from evomerge.evaluation.lm_eval_requests import LanguageModel, Requests, loading
from evomerge.evaluation.lm_eval_smooth import is_gold, make_smooth
from evomerge.evaluation.named_templates import check_usual_template
from evomerge.evaluation.scores import TaskItems
from evomerge.evaluation.settings import EvaluationSettings, Split, TaskSettings

__all__ = ["LmEvalTask", "check_code"]


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
        metric: What is asked for.
        smooth: What guides the search in its place, if anything does.
        answer_limit: Tokens that an answer may have; None if none is generated.
        told_of_cut_prompts: Whether a person knows that prompts do not fit into the model.
        sides: Where the items of each side come from; one object where they are to be divided.
    """

    def __init__(
        self,
        task: Any,
        wanted: TaskSettings,
        settings: EvaluationSettings,
        seed: int,
        *,
        code_confirmed: bool = False,
    ) -> None:
        self.name: str = task.task_name
        self._task = task
        self._settings = settings
        self._seed = int(settings.lm_eval.get("fewshot_random_seed", seed))
        check_code(
            self.name,
            settings,
            runs_code=bool(getattr(task, "UNSAFE_CODE", False)),
            confirmed=code_confirmed,
        )
        if getattr(task, "MULTIMODAL", False):
            raise EvaluationError(f"task {self.name!r} has images or sound; only text is evaluated")
        self._configure(wanted)
        self.answer_limit = answer_limit(task)
        self.told_of_cut_prompts = False
        self.metric = resolve_metric(task, wanted.metric)
        self.sides: dict[Split, Documents] = read_documents(task, wanted, settings.limit)
        self.smooth = make_smooth(
            task,
            None if settings.thinks and wanted.smooth == "auto" else wanted.smooth,
            self.metric,
            self.sides["search"].contents.values(),
            with_chat_template=bool(settings.apply_chat_template),
        )
        if settings.thinks and (self.answer_limit is None or self.smooth is not None):
            raise EvaluationError(
                f"task {self.name!r} asks for log-likelihoods, and a model that thinks first "
                "(lm_eval.model_args) can only be asked for answers; take a task that generates, "
                "without 'smooth'"
            )
        self._shown = self._example_ids()
        for side in self.sides.values():
            if side.ids and set(self._shown).issuperset(side.ids):
                raise EvaluationError(
                    f"task {self.name!r} takes its few-shot examples from the documents that it is "
                    "evaluated on, and an example must never be an item; set num_fewshot: 0 for "
                    "it, or give the task a fewshot_split of its own"
                )
        self._built: dict[str, Requests] = {}

    @property
    def metric_name(self) -> str:
        """The metric as the space names it."""
        return self.metric.label

    @property
    def has_examples(self) -> bool:
        """Whether prompts hold few-shot examples."""
        return bool(self._task.get_config("num_fewshot"))

    def content(self) -> dict[str, Any]:
        """Return all of the task that decides an item's result, as plain data; before ``build``."""
        return {
            "config": plain_config(self._task),
            "metric": [self.metric.label, self.metric.filter, self.metric.aggregation],
            "smooth": None if self.smooth is None else self.smooth.kind,
            "seed": self._seed,
            "examples": self._shown,
        }

    def definition(self) -> dict[str, Any]:
        """Return what makes the task the one it is beside its items; before ``build``."""
        return {"config": task_definition(self._task), "examples": self._shown}

    def draws(self, items: Sequence[str]) -> dict[str, list[str]] | None:
        """Return what decides the few-shot examples of these items beside ``content()``.

        Examples are drawn item after item, so those of an item depend on which items come before
        it: the items in the order of drawing, for each split of the data set. None where there are
        no examples, or where lm-eval's ``first_n`` shows the first ones whatever the item.
        """
        from lm_eval.api.samplers import FirstNSampler

        if not self.has_examples or type(self._task.sampler) is FirstNSampler:
            return None
        return {
            str(name): sorted(members, key=self.index)
            for name, members in self._by_dataset_split(items).items()
        }

    def candidates(self, split: Split) -> list[str]:
        """Return the ids of what may be an item of one side, without few-shot examples."""
        shown = set(self._shown)
        return [item for item in self.sides[split].ids if item not in shown]

    def documents(self, item: str) -> Documents:
        """Return the side that an item comes from."""
        for side in self.sides.values():
            if item in side.index:
                return side
        raise EvaluationError(f"task {self.name!r} has no item {item!r}")

    def document(self, item: str) -> Any:
        """Return an item's document."""
        return self.documents(item).contents[item]

    def index(self, item: str) -> int:
        """Return the place of an item among its split's documents, as lm-eval counts them."""
        return self.documents(item).index[item]

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
            task.set_config("generation_kwargs", overrides(settings.gen_kwargs), update=True)

    def _example_ids(self) -> list[str]:
        """Return the content ids of all documents that may be few-shot examples, in their order."""
        if not self.has_examples:
            return []
        return [content_id(document) for document in self._task.fewshot_docs() or []]

    def build(self, items: Sequence[str], model: LanguageModel) -> dict[str, Requests]:
        """Build prompts and requests of these items, once.

        Few-shot examples are drawn in the order of the documents, with the search's seed, for each
        split of the data set anew. Without a chat template the prompts do not depend on the model,
        and another model gets the same ones.

        Raises:
            EvaluationError: if the task's documents are others than when they were split, or the
                tokenizer has no chat template and one is to be applied.
        """
        if self._settings.apply_chat_template is True:
            check_usual_template(model.tokenizer)
        if not self._settings.apply_chat_template and self._built.keys() == set(items):
            return self._built
        built: dict[str, Requests] = {item: [] for item in items}
        for name, members in self._by_dataset_split(items).items():
            with loading(self._settings, self._seed), on_dataset_split(self._task, name):
                self._build_side(members, model, built)
        for requests in built.values():
            requests.sort(key=lambda instance: instance.idx)
            if self.smooth is not None:
                requests.extend(self.smooth.requests(requests))
        self._remember_fields()
        self._built = built
        return built

    def _by_dataset_split(self, items: Sequence[str]) -> dict[str | None, list[str]]:
        found: dict[str | None, list[str]] = {}
        for item in items:
            found.setdefault(self.documents(item).dataset_split, []).append(item)
        return found

    def _build_side(
        self, items: Sequence[str], model: LanguageModel, built: dict[str, Requests]
    ) -> None:
        task, settings = self._task, self._settings
        chat = bool(settings.apply_chat_template)
        place = {self.index(item): item for item in items}
        indices = sorted(place)
        task.set_fewshot_seed(self._seed)
        task.build_all_requests(
            samples=indices,
            system_instruction=settings.system_instruction,
            apply_chat_template=chat,
            fewshot_as_multiturn=settings.fewshot_as_multiturn,
            chat_template=model.apply_chat_template if chat else None,
            tokenizer_name=str(getattr(model, "tokenizer_name", "")) if chat else "",
        )
        for instance in task.instances:
            item = place[indices[instance.doc_id]]
            if not built[item] and content_id(instance.doc) != item:
                raise EvaluationError(
                    f"task {self.name!r} gives other documents each time it is read, so its items "
                    "cannot be told apart; its process_docs must be deterministic"
                )
            if isinstance(instance.doc, dict):  # what guides the search asks for its fields too
                instance.doc = _Document(instance.doc, item)
            built[item].append(instance)

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

    def score(self, answered: Mapping[str, Requests]) -> tuple[TaskItems, TaskItems | None]:
        """Return the metric of each item, and what guides the search in its place if it is another.

        Args:
            answered: Item id -> its instances with the model's responses (see ``run_requests``).

        Raises:
            EvaluationError: if an item has no finite number for the metric.
        """
        own = {item: _without_gold(requests) for item, requests in answered.items()}
        self.metric.filtered(self._task, own)
        given: dict[str, Mapping[str, Any]] = {}
        for item, requests in own.items():
            document = self.document(item)
            if isinstance(document, dict):  # a copy: some tasks write into the document they get
                document = _Document(document, item)
            responses = [instance.filtered_resps[self.metric.filter] for instance in requests]
            given[item] = self._task.process_results(document, responses)
        smooth = None if self.smooth is None else self.smooth.collect(answered)
        return self.metric.collect(given), smooth


def _without_gold(requests: Requests) -> Requests:
    return [instance for instance in requests if not is_gold(instance)]


def check_code(
    name: str, settings: EvaluationSettings, *, runs_code: bool, confirmed: bool
) -> None:
    """Refuse a task that executes what the model wrote, unless space and command line allow it.

    Raises:
        EvaluationError: saying what is missing.
    """
    if not runs_code or (settings.allow_code_execution and confirmed):
        return
    missing = []
    if not settings.allow_code_execution:
        missing.append("set allow_code_execution: true in the space's evaluation settings")
    if not confirmed:
        missing.append("give --allow-code-execution at the command line")
    raise EvaluationError(
        f"task {name!r} runs code that the model wrote, on this machine; to allow it, "
        f"{' and '.join(missing)}, in a sandbox"
    )
