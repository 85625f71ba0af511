"""Search spaces: recipes with holes, and the way from a point to a recipe."""

from evomerge.space.anchors import mixture_point, usual_point
from evomerge.space.dimensions import Condition, Dimension, Point, Value
from evomerge.space.optimizers import (
    AUTO,
    OPTIMIZERS,
    Optimizer,
    check_optimizer,
    check_optimizer_name,
    is_user_class,
)
from evomerge.space.schema import ObjectiveSettings, SearchSettings, SpaceDocument
from evomerge.space.space import Hole, Space, load_space, parse_space

__all__ = [
    "AUTO",
    "OPTIMIZERS",
    "Condition",
    "Dimension",
    "Hole",
    "ObjectiveSettings",
    "Optimizer",
    "Point",
    "SearchSettings",
    "Space",
    "SpaceDocument",
    "Value",
    "check_optimizer",
    "check_optimizer_name",
    "is_user_class",
    "load_space",
    "mixture_point",
    "parse_space",
    "usual_point",
]
