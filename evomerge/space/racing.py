"""How races are run: the keys below ``search.racing``."""

from typing import Literal

from pydantic import Field, field_validator

from evomerge.documents import Document

__all__ = ["Estimator", "RacingSettings"]

Estimator = Literal["plain", "irt"]


class RacingSettings(Document):
    """When a candidate is stopped before it was scored on all search items.

    Attributes:
        rungs: Numbers of items, over all tasks, after which a candidate is compared with the best
            so far; by default 32, 64, 128, … and all.
        confidence: How sure a loss must be before the candidate stops.
        order: Draw items on which the baselines differ more often; false draws all alike.
    """

    rungs: list[int] | None = Field(default=None, min_length=1)
    confidence: float = Field(default=0.6, gt=0.5, lt=1)
    order: bool = True

    @field_validator("rungs")
    @classmethod
    def _rising(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and (min(value) < 2 or sorted(set(value)) != value):
            raise ValueError(f"rungs are rising numbers of items from 2 on, got {value}")
        return value
