"""The keys of a file of mergekit-evolve: `genome:` and `tasks:`.

Fields, defaults and rules: mergekit's docs/evolve.md, and the schema that mergekit 0.1.5 shows when
it is run.
"""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from evomerge.documents import Document
from evomerge.errors import nearest
from evomerge.evaluation.settings import TaskSettings
from evomerge.recipe import ModelName

__all__ = ["SPARSE", "Genome", "GenomeFile", "GenomeTask"]

SPARSE = ("ties", "dare_ties")
"""Methods with a density."""

_METHODS = ("linear", "dare_ties", "task_arithmetic", "ties", "slerp")
_NORMALIZED = ("linear", "ties", "dare_ties")
_TASK_VECTORS = ("task_arithmetic", "ties", "dare_ties")


class Genome(Document):
    """The `genome` section.

    Attributes:
        models: What is merged.
        merge_method: One of those that mergekit-evolve knows.
        base_model: The base of task vectors.
        tokenizer_source: As in a recipe.
        layer_granularity: Layers that have values of their own; 0 for all layers together.
        normalize: Whether weights are divided by their sum; by default with linear, ties and
            dare_ties.
        allow_negative_weights: Whether weights may be below 0.
        filters: Parts of tensor names that have values of their own, beside all other tensors.
        smooth: Interpolate between the values of neighbouring groups of layers.
    """

    models: list[ModelName] = Field(min_length=1)
    merge_method: str
    base_model: ModelName | None = None
    tokenizer_source: str | None = None
    layer_granularity: int = 0
    normalize: bool | None = None
    allow_negative_weights: bool = False
    filters: list[str] | None = None
    smooth: bool = False

    @field_validator("merge_method")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in _METHODS:
            raise ValueError(
                f"a genome's merge_method is one that mergekit-evolve knows; "
                f"{nearest(value, _METHODS)}; a search space of evomerge may have any other"
            )
        return value

    @field_validator("layer_granularity", mode="before")
    @classmethod
    def _all_layers(cls, value: Any) -> Any:
        return 0 if value is None else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        twice = sorted({name for name in self.models if self.models.count(name) > 1})
        if twice:
            raise ValueError(f"every model is listed once; {', '.join(twice)} stands here twice")
        if self.merge_method == "slerp":
            self._check_slerp()
        if self.merge_method in _TASK_VECTORS:
            if self.base_model is None:
                raise ValueError(f"{self.merge_method} needs a base_model")
        elif self.base_model not in (None, *self.models):
            raise ValueError(
                f"{self.merge_method} takes only models that have a weight, and a genome gives the "
                f"base_model {self.base_model!r} none: list it under models, or leave it out"
            )
        return self

    def _check_slerp(self) -> None:
        for key, given in (("smooth", self.smooth), ("filters", bool(self.filters))):
            if given:
                raise ValueError(
                    f"slerp and {key!r} do not go together in a genome; in a search space of "
                    "evomerge 't' may have filters and layers"
                )
        if len(self.models) < 2:
            raise ValueError("slerp takes at least 2 models, got 1")

    @property
    def normalized(self) -> bool:
        """Whether only the weights' proportions matter."""
        return self.merge_method in _NORMALIZED if self.normalize is None else self.normalize


class GenomeTask(TaskSettings):
    """One of its `tasks`, with its defaults; other settings of a task may be added."""

    metric: str = Field(default="acc,none", min_length=1)
    weight: float | None = Field(default=1.0, allow_inf_nan=False)


def _task(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class GenomeFile(Document):
    """A whole file of mergekit-evolve, with sections of a search space that may be added.

    Attributes:
        genome: What is merged and what is searched.
        tasks: What is scored; a name alone is a task too.
        limit: Documents of each task that are looked at.
        num_fewshot: Examples in the prompt.
        shuffle: Take random documents, not the first.
        random_init: Start from a random point.
        apply_chat_template: Prompts go through the chat template.
        fewshot_as_multiturn: With a chat template: each example is a turn of its own.
        objective: As in a search space, like the following ones.
        constraints: What a candidate must hold to win.
        search: How the space is searched.
        evaluation: How candidates are scored; goes before what the file says above.
    """

    genome: Genome
    tasks: list[Annotated[GenomeTask, BeforeValidator(_task)]] = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)
    num_fewshot: int | None = Field(default=None, ge=0)
    shuffle: bool = False
    random_init: bool = False
    apply_chat_template: bool = True
    fewshot_as_multiturn: bool = True
    objective: Any = None
    constraints: Any = None
    search: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
