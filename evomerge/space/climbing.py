"""How a search climbs before it searches: the key ``search.climb``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from evomerge.documents import Document
from evomerge.evaluation.settings import TaskSettings
from evomerge.space.dimensions import Dimension

if TYPE_CHECKING:
    from evomerge.space.schema import SpaceDocument

__all__ = ["ClimbChoice", "ClimbSettings", "climb_obstacle"]

_CLIMBED = ("auto", "blend", "gold_probability")


class ClimbSettings(Document):
    """A climb along the slope of the expected score.

    Attributes:
        steps: Steps of Adam; the points after the last half of them are averaged.
        items: Search items a task and step.
        rate: Length of a step along each searched value, as a share of its range.
    """

    steps: int = Field(default=25, ge=2)
    items: int = Field(default=32, ge=1)
    rate: float = Field(default=0.03, gt=0, lt=1)


def _read(value: Any) -> Any:
    if value is True:
        return {}
    if value is False or isinstance(value, dict | ClimbSettings) or value == "auto":
        return value
    raise ValueError(
        "climb is auto, false, or settings such as {steps: 25, items: 32, rate: 0.03}; got "
        f"{value!r}"
    )


ClimbChoice = Annotated[Literal["auto", False] | ClimbSettings, BeforeValidator(_read)]


def climb_obstacle(document: "SpaceDocument", dimensions: Sequence[Dimension]) -> str | None:
    """Return why a space cannot be climbed, as far as the file says; or None."""
    if document.evaluation.backend != "hf":
        return f"evaluation.backend: {document.evaluation.backend} has no gradients, hf has"
    for dimension in dimensions:
        if dimension.kind != "float":
            what = "a whole number" if dimension.kind == "int" else "a choice"
            return f"{dimension.name} is {what}, and only continuous values have a slope"
        if dimension.condition is not None:
            return f"{dimension.name} exists only with {dimension.condition}"
    kinds = [each.kind for each in document.objective.values()]
    if kinds != ["weighted_sum"]:
        return f"the objective is {' and '.join(kinds)}, and only one weighted_sum is climbed"
    if not document.search.from_baselines:
        return "search.from_baselines is false, and a climb begins at the best baseline"
    return next((_without_slope(task) for task in document.tasks if _without_slope(task)), None)


def _without_slope(task: TaskSettings) -> str | None:
    if task.smooth in _CLIMBED:
        return None
    smooth = "false" if task.smooth is None else task.smooth
    return (
        f"task {task.name!r} has smooth: {smooth}, and what is climbed is the probability of the "
        f"gold answer ({', '.join(_CLIMBED)})"
    )
