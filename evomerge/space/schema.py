"""The keys of a search space file."""

from typing import Any, Literal

from pydantic import Field, field_validator

from evomerge.documents import Document
from evomerge.evaluation.settings import EvaluationSettings, TaskSettings

__all__ = ["SearchSettings", "SpaceDocument"]


class SearchSettings(Document):
    """How the space is searched.

    Attributes:
        optimizer: The proposer.
        trials: Trials in all, baselines included.
        seed: The one seed: proposals, item splits, masks and few-shot choice come from it.
        ordered: Tell results in the order of asking, so that a run with several workers repeats.
        sigma: First step size of CMA-ES, as a share of each range.
        population: Population of CMA-ES; by default 4 + 3 ln(dimensions).
        finalists: Candidates that are scored again on the held-out items.
    """

    optimizer: Literal["cma", "tpe", "random"] = "cma"
    trials: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0)
    ordered: bool = False
    sigma: float = Field(default=0.2, gt=0, le=1)
    population: int | None = Field(default=None, ge=2)
    finalists: int = Field(default=5, ge=1)


class SpaceDocument(Document):
    """A whole space file; the recipe is checked once its holes are filled."""

    recipe: dict[str, Any]
    tasks: list[TaskSettings] = Field(min_length=1)
    search: SearchSettings = SearchSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: list[TaskSettings]) -> list[TaskSettings]:
        names = [task.name for task in tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"every task is listed once; {', '.join(twice)} stands here twice")
        return tasks
