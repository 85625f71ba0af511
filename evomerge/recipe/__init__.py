"""Recipes: mergekit's YAML as frozen data, and the numbers it means for each tensor."""

from evomerge.recipe.document import (
    InputModel,
    Module,
    Recipe,
    Slice,
    Source,
    TokenizerSettings,
)
from evomerge.recipe.loading import load_recipe, parse_recipe
from evomerge.recipe.parameters import Level, ParameterValue, resolve_rule

__all__ = [
    "InputModel",
    "Level",
    "Module",
    "ParameterValue",
    "Recipe",
    "Slice",
    "Source",
    "TokenizerSettings",
    "load_recipe",
    "parse_recipe",
    "resolve_rule",
]
