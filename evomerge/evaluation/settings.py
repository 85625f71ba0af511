"""What a space says about its tasks and about how they are evaluated. Imports no torch."""

import copy
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from evomerge.documents import Document
from evomerge.evaluation.passthrough import check_options
from evomerge.evaluation.vllm_options import (
    check_engine_options,
    quantization_of,
    without_quantization,
)

__all__ = ["BLENDED", "EvaluationSettings", "Smooth", "Split", "TaskSettings"]

Split = Literal["search", "holdout"]
"""``search`` items guide the search; ``holdout`` items are seen by finalists and baselines only."""

Smooth = Literal["auto", "blend", "margin", "gold_bits_per_byte", "gold_probability"]

BLENDED: tuple[Smooth, ...] = ("auto", "blend")
"""Kinds that guide the search together with the metric; the others do in its place."""


class TaskSettings(Document):
    """One task of the objective.

    Attributes:
        name: An lm-eval task, group or tag, built in or from one of ``task_dirs``. A group or tag
            stands for its tasks, which share ``weight`` equally.
        metric: ``"exact_match"``, or with lm-eval's filter: ``"exact_match,strict-match"``.
        weight: Weight in the objective; ``None`` means 1 / number of tasks.
        num_fewshot: Examples in the prompt; ``None`` takes the setting of the evaluation, then
            that of the task.
        smooth: What guides the search beside the metric or in its place. ``"blend"``: half the
            metric, half what the probability of the gold answer says of it; ``"auto"``: that where
            it costs little. In its place: ``"margin"``, the log-probability of the gold choice
            minus that of the best other one; ``"gold_bits_per_byte"``, the bits that a byte of the
            gold answer costs; or ``"gold_probability"``. ``None`` or false: the metric alone. The
            winner is chosen by the metric all the same.
        search_split: Split of the data set that the search items come from; ``None`` means the one
            that the task is evaluated on.
        holdout_split: The same for the held-out items.
        search_list: File that names the search items, one a line: an item id, or a document's
            number as lm-eval counts. Taken from the space file's folder.
        holdout_list: The same for the held-out items.
    """

    name: str = Field(min_length=1)
    metric: str = Field(min_length=1)
    weight: float | None = Field(default=None, allow_inf_nan=False)
    num_fewshot: int | None = Field(default=None, ge=0)
    smooth: Smooth | None = "auto"
    search_split: str | None = Field(default=None, min_length=1)
    holdout_split: str | None = Field(default=None, min_length=1)
    search_list: str | None = Field(default=None, min_length=1)
    holdout_list: str | None = Field(default=None, min_length=1)

    @field_validator("smooth", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value is False else value

    @field_validator("weight")
    @classmethod
    def _not_zero(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("a task of weight 0 would not count: leave the task out")
        return value


class EvaluationSettings(Document):
    """How candidates are scored.

    Attributes:
        backend: What runs the model.
        search_items: Items a task that guide the search; ``None`` means a third of the documents,
            200 at most.
        holdout_items: Items a task kept for the final choice; ``None`` means all that are left, at
            most five for each search item.
        batch_size: Sequences in one forward pass; ``"auto"`` starts large on a GPU. Halved where
            memory runs out.
        dtype: Type the live model computes in; ``"auto"`` is float32 on a CPU, and on a GPU the
            checkpoint's own (bfloat16 if it says none).
        compile: Forward passes are compiled by ``torch.compile``, for the hf backend.
        max_length: Longest sequence in tokens; ``None`` means the model's.
        task_dirs: Folders with lm-eval task YAML, from the current folder or the space file's.
        num_fewshot: Examples in the prompt, for every task that doesn't say otherwise.
        apply_chat_template: Prompts go through the tokenizer's chat template; with a name, through
            the one of that name, for tokenizers that have several.
        fewshot_as_multiturn: With a chat template: each example is a turn of its own.
        system_instruction: System prompt.
        gen_kwargs: Overrides of lm-eval's generation settings (``{"max_gen_toks": 64}``).
        limit: Look at the first so many documents of each task only, or at a share below 1.
        lm_eval: Other options of lm-eval's ``simple_evaluate``, passed on.
        allow_code_execution: Accept tasks whose metric runs code that the model wrote, if the
            command line does too.
        vllm: Options of vLLM's engine, for that backend (``{"gpu_memory_utilization": 0.5}``).
    """

    backend: Literal["hf", "vllm"] = "hf"
    search_items: int | None = Field(default=None, ge=2)
    holdout_items: int | None = Field(default=None, ge=2)
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 64
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    max_length: int | None = Field(default=None, ge=2)
    task_dirs: list[str] = Field(default_factory=list)
    num_fewshot: int | None = Field(default=None, ge=0)
    apply_chat_template: bool | Annotated[str, Field(min_length=1)] = False
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    gen_kwargs: dict[str, Any] = Field(default_factory=dict)
    limit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    lm_eval: dict[str, Any] = Field(default_factory=dict)
    allow_code_execution: bool = False
    vllm: dict[str, Any] = Field(default_factory=dict)

    @property
    def chat_template(self) -> str | None:
        """Name of the chat template; None where it is the usual one, or none is applied."""
        wanted = self.apply_chat_template
        return wanted if isinstance(wanted, str) else None

    @property
    def model_args(self) -> dict[str, Any]:
        """What lm-eval's model classes are told beside what evomerge decides."""
        return copy.deepcopy(dict(self.lm_eval.get("model_args", {})))

    @property
    def thinks(self) -> bool:
        """Whether answers begin with thoughts, so that a gold answer does not follow a prompt."""
        told = self.model_args
        return bool(told.get("enable_thinking") or told.get("think_end_token") is not None)

    @property
    def proxy(self) -> str | None:
        """What makes the scored model another one than the exported one; None where nothing does.

        Such a model may guide a search, and decides nothing: see ``deciding``.
        """
        return quantization_of(self.vllm) if self.backend == "vllm" else None

    def deciding(self) -> "EvaluationSettings":
        """Return the settings of scores that decide: the same, without the proxy."""
        return self.model_copy(update={"vllm": without_quantization(self.vllm)})

    @field_validator("task_dirs", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("compile")
    @classmethod
    def _by_this_backend(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("backend") == "vllm":
            raise ValueError("vLLM compiles models by itself: its options are under 'vllm'")
        return value

    @field_validator("limit")
    @classmethod
    def _share_or_number(cls, value: float | None) -> float | None:
        if value is not None and value >= 1 and value != int(value):
            raise ValueError("a limit is a whole number of documents, or a share below 1")
        return value

    @field_validator("lm_eval")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_options(value)
        return value

    @field_validator("vllm")
    @classmethod
    def _options_of_vllm(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        check_engine_options(value, max_length=info.data.get("max_length"))
        return value
