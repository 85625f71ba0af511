"""The keys of a search space file."""

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from evomerge.documents import Document
from evomerge.errors import nearest
from evomerge.evaluation.settings import EvaluationSettings, TaskSettings
from evomerge.space.optimizers import AUTO, check_optimizer_name

__all__ = ["DEFAULT_OBJECTIVE", "ObjectiveSettings", "SearchSettings", "SpaceDocument"]

DEFAULT_OBJECTIVE = "objective"
RULES = ("weighted_sum", "min", "improvement")


class SearchSettings(Document):
    """How the space is searched.

    Attributes:
        optimizer: The proposer: a name of :data:`evomerge.space.OPTIMIZERS`, or a class of the
            user's, ``module:Class``.
        trials: Trials in all, baselines included.
        seed: The one seed: proposals, item splits, masks and few-shot choice come from it.
        ordered: Tell results in the order of asking, so that a run with several workers repeats.
        sigma: First step size of CMA-ES, as a share of each range.
        population: Results in an update of CMA-ES (by default 4 + 3 ln(dimensions)) or in a
            generation of NSGA-II and NSGA-III (20).
        finalists: Candidates that are scored again on the held-out items.
    """

    optimizer: str = AUTO
    trials: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0)
    ordered: bool = False
    sigma: float = Field(default=0.2, gt=0, le=1)
    population: int | None = Field(default=None, ge=2)
    finalists: int = Field(default=5, ge=1)

    @field_validator("optimizer")
    @classmethod
    def _known(cls, value: str) -> str:
        check_optimizer_name(value)
        return value


class ObjectiveSettings(Document):
    """One number that the search raises.

    Attributes:
        kind: ``weighted_sum`` of the task scores, ``min`` (the worst task), ``improvement`` (over
            the best parent of each task, normalized), or a Python function ``module:function``.
        tasks: Its tasks, groups or tags; ``None`` means all of the space.
    """

    kind: str = "weighted_sum"
    tasks: list[str] | None = Field(default=None, min_length=1)

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in RULES and ":" not in value:
            raise ValueError(
                f"an objective is one of {', '.join(RULES)} or module:function; "
                f"{nearest(value, RULES)}"
            )
        return value


class SpaceDocument(Document):
    """A whole space file; the recipe is checked once its holes are filled.

    Attributes:
        recipe: The recipe with its holes.
        tasks: What is scored.
        objective: Name -> objective. In a file also one alone: ``min``, or ``{kind: min}``; or a
            list of tasks, each of which is an objective.
        search: How the space is searched.
        evaluation: How candidates are scored.
    """

    recipe: dict[str, Any]
    tasks: list[TaskSettings] = Field(min_length=1)
    objective: dict[str, ObjectiveSettings] = Field(
        default_factory=lambda: {DEFAULT_OBJECTIVE: ObjectiveSettings()}, min_length=1
    )
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

    @field_validator("objective", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {str(task): {"tasks": [task]} for task in value}
        if isinstance(value, str) or (
            isinstance(value, dict) and set(value) <= set(ObjectiveSettings.model_fields)
        ):
            value = {DEFAULT_OBJECTIVE: value}
        if not isinstance(value, dict):
            return value
        return {
            name: {"kind": each} if isinstance(each, str) else each for name, each in value.items()
        }

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [task.name for task in self.tasks]
        for objective, settings in self.objective.items():
            for task in settings.tasks or ():
                if task not in names:
                    raise ValueError(
                        f"objective {objective!r} names the task {task!r}, which is not one of the "
                        f"space's tasks; {nearest(task, names)}"
                    )
        return self
