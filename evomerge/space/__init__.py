"""Search spaces: recipes with holes, and the way from a point to a recipe."""

from evomerge.space.anchors import mixture_point, usual_point
from evomerge.space.climbing import ClimbSettings, climb_obstacle
from evomerge.space.constraints import BASELINE_WORDS
from evomerge.space.dimensions import Condition, Dimension, Point, Value
from evomerge.space.holes import Hole
from evomerge.space.loading import load_file, load_space, parse_space
from evomerge.space.optimizers import (
    AUTO,
    OPTIMIZERS,
    Optimizer,
    check_optimizer,
    check_optimizer_name,
    is_user_class,
)
from evomerge.space.racing import RacingSettings
from evomerge.space.schema import (
    ConstraintSettings,
    ObjectiveSettings,
    SearchSettings,
    SpaceDocument,
)
from evomerge.space.space import Space
from evomerge.space.stages import LEVELS, Level
from evomerge.space.starting import nearest_point, with_starts
from evomerge.space.writing import convert_genome

__all__ = [
    "AUTO",
    "BASELINE_WORDS",
    "LEVELS",
    "OPTIMIZERS",
    "ClimbSettings",
    "Condition",
    "ConstraintSettings",
    "Dimension",
    "Hole",
    "Level",
    "ObjectiveSettings",
    "Optimizer",
    "Point",
    "RacingSettings",
    "SearchSettings",
    "Space",
    "SpaceDocument",
    "Value",
    "check_optimizer",
    "check_optimizer_name",
    "climb_obstacle",
    "convert_genome",
    "is_user_class",
    "load_file",
    "load_space",
    "mixture_point",
    "nearest_point",
    "parse_space",
    "usual_point",
    "with_starts",
]
