"""The keys of a search space file."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from evomerge.documents import Document
from evomerge.errors import nearest
from evomerge.evaluation.settings import EvaluationSettings, TaskSettings
from evomerge.space.climbing import ClimbChoice
from evomerge.space.optimizers import AUTO, check_optimizer_name
from evomerge.space.racing import Estimator, RacingSettings
from evomerge.space.stages import StageSettings

__all__ = [
    "DEFAULT_OBJECTIVE",
    "ConstraintSettings",
    "ObjectiveSettings",
    "SearchSettings",
    "SpaceDocument",
]

DEFAULT_OBJECTIVE = "objective"
DEFAULT_TRIALS = 100
RULES = ("weighted_sum", "min", "improvement")


class SearchSettings(Document):
    """How the space is searched.

    Attributes:
        optimizer: The proposer: a name of :data:`evomerge.space.OPTIMIZERS`, or a class of the
            user's, ``module:Class``.
        trials: Trials in all, baselines included; 100 where no other budget is given.
        items: Item evaluations on the search items in all, the baselines' included; the held-out
            items of the finalists come on top.
        seconds: Seconds of searching in all, over all sessions; the held-out items come on top.
        patience: Trials without a significantly better one after which the search ends.
        seed: The one seed: proposals, item splits, masks and few-shot choice come from it.
        ordered: Tell results in the order of asking, so that a run with several workers repeats.
        sigma: First step size of CMA-ES, as a share of each range; a quarter of it after a climb.
        population: Results in an update of CMA-ES (by default 4 + 3 ln(dimensions)) or in a
            generation of NSGA-II and NSGA-III (20).
        finalists: Candidates that are scored again on the held-out items.
        racing: When a candidate is stopped early; ``false`` scores every one on all items.
        estimator: How the score of a candidate that stopped early is estimated: ``plain``, which is
            unbiased, or ``irt``, a model of item difficulties.
        from_baselines: Start from what the baselines show; ``false`` starts from the middle.
        climb: Steps along the slope of the expected score before the search; ``auto``
            where that is possible and the budget is large enough, ``false`` never.
        stages: From coarse to fine: levels at which values move together, or their shares of the
            budget; ``auto`` chooses by dimensions and budget, ``false`` searches all at once.
    """

    optimizer: str = AUTO
    trials: int | None = Field(default=None, ge=1)
    items: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    patience: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    ordered: bool = False
    sigma: float = Field(default=0.2, gt=0, le=1)
    population: int | None = Field(default=None, ge=2)
    finalists: int = Field(default=5, ge=1)
    racing: RacingSettings | Literal[False] = RacingSettings()
    estimator: Estimator = "plain"
    from_baselines: bool = True
    climb: ClimbChoice = "auto"
    stages: StageSettings = "auto"

    @field_validator("racing", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {} if value is True else value

    @property
    def trial_limit(self) -> int | None:
        """Trials in all; None where another budget is given instead."""
        if self.trials is None and self.items is None and self.seconds is None:
            return DEFAULT_TRIALS
        return self.trials

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


def _check_reference(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, str) or (is_number and math.isfinite(value)):
        return value
    raise ValueError(
        "a score is at least that of a baseline (base, average, best_parent or a model's name), or "
        "a number"
    )


Reference = Annotated[str | float, BeforeValidator(_check_reference)]
"""A baseline's name, or a score."""


class ConstraintSettings(Document):
    """What a candidate must hold to win.

    Attributes:
        at_least: Task, group or tag -> what its score is at least as good as: ``base``,
            ``average``, ``best_parent``, a model of the recipe, or a number in the metric's unit.
    """

    at_least: dict[str, Reference] = Field(default_factory=dict)


class SpaceDocument(Document):
    """A whole space file; the recipe is checked once its holes are filled.

    Attributes:
        recipe: The recipe with its holes.
        simplex: Names of search expressions whose values sum to 1; in a file also the names of one
            simplex alone.
        select: ``heaviest_pair``: slerp between the two models with the largest ``weight``.
        tasks: What is scored.
        objective: Name -> objective. In a file also one alone: ``min``, or ``{kind: min}``; or a
            list of tasks, each of which is an objective.
        constraints: What a candidate must hold to win.
        start: Recipes that are scored first, as paths, as recipes or as ``{name, recipe}``; the
            search starts from the best of them and of the baselines.
        search: How the space is searched.
        evaluation: How candidates are scored.
    """

    recipe: dict[str, Any]
    simplex: list[list[str]] = Field(default_factory=list)
    select: Literal["heaviest_pair"] | None = None
    tasks: list[TaskSettings] = Field(min_length=1)
    objective: dict[str, ObjectiveSettings] = Field(
        default_factory=lambda: {DEFAULT_OBJECTIVE: ObjectiveSettings()}, min_length=1
    )
    constraints: ConstraintSettings = ConstraintSettings()
    start: list[str | dict[str, Any]] = Field(default_factory=list)
    search: SearchSettings = SearchSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: list[TaskSettings]) -> list[TaskSettings]:
        names = [task.name for task in tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"every task is listed once; {', '.join(twice)} stands here twice (a task file "
                "with 'include:' and a name of its own makes a second task with other settings)"
            )
        return tasks

    @field_validator("simplex", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        alone = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return [value] if alone and value else value

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
