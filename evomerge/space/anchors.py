"""Points of a space that stand for baselines: where a search may start."""

from collections.abc import Mapping

from evomerge.methods import METHODS
from evomerge.space.dimensions import Dimension, Value
from evomerge.space.space import Hole, Space

__all__ = ["mixture_point", "usual_point"]

_FALLBACK = 0.5


def usual_point(space: Space) -> dict[str, Value]:
    """Return the point of the methods' usual values, moved into the ranges."""
    return _fill(space, None)


def mixture_point(space: Space, weights: Mapping[str, float]) -> dict[str, Value]:
    """Return the point nearest to a mixture of models.

    A model's ``weight`` becomes its share, ``density`` all, ``t`` the share of the models that are
    not the base; everything else has its usual value.

    Args:
        space: The space.
        weights: Model name -> share; models left out have share 0.
    """
    return _fill(space, weights)


def _fill(space: Space, weights: Mapping[str, float] | None) -> dict[str, Value]:
    recipe = space.document.recipe
    usual = _usual_values(recipe.get("merge_method"))
    base = recipe.get("base_model")
    by_name = {dimension.name: dimension for dimension in space.dimensions}
    point: dict[str, Value] = {}
    for hole in space.holes:
        for name in hole.dimensions:
            dimension = by_name[name]
            if dimension.kind == "choice":
                point[name] = dimension.choices[0]
                continue
            value = usual.get(hole.parameter or "")
            if weights is not None:
                owner = _owner(recipe, hole)
                if hole.parameter == "weight" and owner is not None:
                    value = weights.get(owner, 0.0)
                elif hole.parameter == "density":
                    value = 1.0
                elif hole.parameter == "t":
                    value = sum(share for model, share in weights.items() if model != base)
            point[name] = _near(dimension, value)
    return point


def _near(dimension: Dimension, value: float | None) -> Value:
    if value is None:
        return dimension.from_unit(_FALLBACK)
    return dimension.clip(value)


def _usual_values(merge_method: object) -> dict[str, float]:
    """Return parameter -> usual value, of the recipe's method or of the first of a choice."""
    if isinstance(merge_method, dict):
        options = merge_method.get("choice") or [None]
        merge_method = options[0]
    spec = METHODS.get(str(merge_method))
    if spec is None:
        return {}
    return {
        parameter.name: float(parameter.usual)
        for parameter in spec.parameters
        if isinstance(parameter.usual, int | float)
    }


def _owner(recipe: object, hole: Hole) -> str | None:
    """Return the model whose own parameter a hole is."""
    node = recipe
    owner = None
    for key in hole.place:
        if isinstance(node, dict):
            model = node.get("model")
            owner = model if isinstance(model, str) else owner
            node = node.get(str(key))
        elif isinstance(node, list) and isinstance(key, int):
            node = node[key]
    return owner
