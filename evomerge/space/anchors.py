"""Points of a space that stand for baselines: where a search may start."""

from collections.abc import Mapping

from evomerge.methods import METHODS
from evomerge.space.conditions import METHOD_PLACE
from evomerge.space.dimensions import Value
from evomerge.space.holes import Hole, owner_of
from evomerge.space.pairs import pair_weight
from evomerge.space.space import Space

__all__ = ["mixture_point", "usual_point"]

_FALLBACK = 0.5


def usual_point(space: Space, method: str | None = None) -> dict[str, Value]:
    """Return the point of a method's usual values, moved into the ranges.

    Args:
        space: The space.
        method: One of its merge methods; by default the first.
    """
    return _fill(space, None, method)


def mixture_point(space: Space, weights: Mapping[str, float]) -> dict[str, Value]:
    """Return the point nearest to a mixture of models.

    A model's ``weight`` becomes its share, ``density`` all, ``t`` the share of the models that are
    not the base; everything else has its usual value. Weights of a simplex are divided by their
    sum; equal if all are 0.

    Args:
        space: The space.
        weights: Model name -> share; models left out have share 0.
    """
    return _fill(space, weights, None)


def _fill(
    space: Space, weights: Mapping[str, float] | None, method: str | None
) -> dict[str, Value]:
    method = method or next(iter(space.methods), None)
    usual = _usual_values(method)
    holes: dict[str, list[Hole]] = {}
    for hole in space.holes:
        for name in hole.dimensions:
            holes.setdefault(name, []).append(hole)
    point: dict[str, Value] = {}
    for dimension in space.dimensions:
        if not dimension.exists(point):
            continue
        # Where holes share a dimension, the last one in the file says what it is for.
        hole = next(each for each in reversed(holes[dimension.name]) if each.exists(point))
        if dimension.kind == "choice":
            of_method = hole.place == METHOD_PLACE and method is not None
            point[dimension.name] = method if of_method else dimension.choices[0]
        else:
            value = _value(space, hole, usual, weights, dimension.high)
            point[dimension.name] = (
                dimension.from_unit(_FALLBACK) if value is None else dimension.clip(value)
            )
    return space.settle(point)


def _value(
    space: Space,
    hole: Hole,
    usual: Mapping[str, float],
    weights: Mapping[str, float] | None,
    high: float,
) -> float | None:
    if weights is not None:
        owner = owner_of(space.document.recipe, hole)
        if hole.parameter == "weight" and owner is not None:
            share = weights.get(owner, 0.0)
            if space.document.select is None:
                return share
            return pair_weight(share, max(weights.values(), default=0.0), high)
        if hole.parameter == "density":
            return 1.0
        if hole.parameter == "t":
            return sum(share for model, share in weights.items() if model != space.base_model())
    return usual.get(hole.parameter or "")


def _usual_values(method: str | None) -> dict[str, float]:
    """Return parameter -> usual value of a method."""
    spec = METHODS.get(method or "")
    if spec is None:
        return {}
    return {
        parameter.name: float(parameter.usual)
        for parameter in spec.parameters
        if isinstance(parameter.usual, int | float)
    }
