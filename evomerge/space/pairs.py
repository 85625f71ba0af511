"""`select: heaviest_pair`: slerp between the two models of each slice that have most weight.

This is how mergekit-evolve searches slerp (mergekit 0.1.5, found by running it): the heavier of the
two is the slice's base model, and t is the softmax of the two weights at the lighter one,
t = e^w2 / (e^w1 + e^w2), so at most 1/2.
"""

import math
from typing import Any

from evomerge.documents import Origin
from evomerge.errors import SpaceError

__all__ = ["PAIR_PARAMETERS", "choose_pairs", "pair_weight"]

PAIR_PARAMETERS = ("weight",)
"""Parameters that are read here and not by the merge method."""

_RULE = (
    "'select: heaviest_pair' is for merge_method slerp; each model of 'models' or of a slice has a "
    "'weight' that is one number, and t follows from the weights"
)


def choose_pairs(data: dict[str, Any], origin: Origin) -> None:
    """Keep the two heaviest models of each part of a recipe, and set base model and t.

    Args:
        data: A recipe whose holes are filled; it is changed.
        origin: Of the recipe, for messages.

    Raises:
        SpaceError: if the recipe is another kind of merge.
    """
    parts = data.get("slices") or [data]
    key = "sources" if "slices" in data else "models"
    if data.get("merge_method") != "slerp" or "t" in data.get("parameters", {}):
        raise SpaceError(f"{origin.where('merge_method')}: {_RULE}")
    for part in parts:
        listed = part.get(key) if isinstance(part, dict) else None
        if not isinstance(listed, list) or len(listed) < 2:
            raise SpaceError(f"{origin.where(key)}: {_RULE}; a pair takes two models or more")
        # Equal weights: the first one in the file goes before.
        first, second = sorted(listed, key=lambda model: -_weight(model, origin))[:2]
        share = 1.0 / (1.0 + math.exp(_weight(first, origin) - _weight(second, origin)))
        for model in (first, second):
            del model["parameters"]["weight"]
            if not model["parameters"]:
                del model["parameters"]
        part[key] = [first, second]
        part["base_model"] = first["model"]
        part.setdefault("parameters", {})["t"] = share


def pair_weight(share: float, largest: float, high: float) -> float:
    """Return the weight that stands for a model's share of a mixture.

    The softmax of logarithms is the shares themselves, so a mixture of two models is exact where
    the range is wide enough; the heaviest model has the highest weight.

    Args:
        share: The model's share, 0 or more.
        largest: The largest share of the mixture.
        high: Highest weight.
    """
    if largest <= 0:
        return high
    return high + math.log(share / largest) if share > 0 else -math.inf


def _weight(model: Any, origin: Origin) -> float:
    parameters = model.get("parameters") if isinstance(model, dict) else None
    weight = parameters.get("weight") if isinstance(parameters, dict) else None
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise SpaceError(f"{origin.where()}: {_RULE}; got {weight!r} as a weight")
    return float(weight)
