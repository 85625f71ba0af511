"""Recipes: mergekit's YAML as frozen data, and the numbers it means for each tensor."""

from evomerge.recipe.document import (
    InputModel,
    ModelName,
    Module,
    Recipe,
    Slice,
    Source,
    TokenizerSettings,
    TokenRow,
    TokenSettings,
    model_name,
)
from evomerge.recipe.loading import load_recipe, parse_recipe, without_effect
from evomerge.recipe.parameters import ParameterValue, resolve_rule
from evomerge.recipe.stages import Stage, load_stages, parse_stages

__all__ = [
    "InputModel",
    "ModelName",
    "Module",
    "ParameterValue",
    "Recipe",
    "Slice",
    "Source",
    "Stage",
    "TokenRow",
    "TokenSettings",
    "TokenizerSettings",
    "load_recipe",
    "load_stages",
    "model_name",
    "parse_recipe",
    "parse_stages",
    "resolve_rule",
    "without_effect",
]
