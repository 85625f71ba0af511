"""Layers that hold other tensors in another place.

The first layer of ModernBERT lacks a norm that the others have, the first of RWKV has one more:
what a place asks for stands in the architecture's code alone. So models without memory are made
from the configs, and what a layer holds where it comes from is compared with what it must hold
where it goes. Names in files play no part: they may be others than those of the model's modules.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.checkpoints import find_layers
from evomerge.engine.described import DescribedModel, NotDescribedError, describe_model
from evomerge.engine.per_layer import Origin
from evomerge.errors import RecipeError

__all__ = ["check_places"]

Shapes = dict[str, tuple[int, ...]]

_MAX_NAMES = 3


class _Places:
    """What a model holds, layer by layer.

    Attributes:
        layers: Of each layer the names inside it and their sizes.
        outside: The rest.
        sharers: Layer -> one whose tensors serve in it, too.
    """

    def __init__(self, model: DescribedModel, config: Mapping[str, Any]) -> None:
        sizes = ((name, math.prod(shape)) for name, shape in model.shapes.items())
        stack = find_layers(sizes, config)
        self.layers: list[Shapes] = [{} for _ in range(stack.count)]
        self.outside: Shapes = {}
        for name, shape in model.shapes.items():
            split = stack.split(name)
            if split is not None and split[0] < stack.count:
                self.layers[split[0]][split[1]] = shape
            else:
                self.outside[name] = shape
        pairs = [(stack.split(name), stack.split(other)) for name, other in model.tied.items()]
        self.sharers = {own[0]: other[0] for own, other in pairs if own and other}


def check_places(
    config: Mapping[str, Any], donor: Mapping[str, Any], origins: Sequence[Origin]
) -> None:
    """Check that a model made of other layers is what the architecture makes of its config.

    Args:
        config: The merged model's config.
        donor: The one that it was made from.
        origins: Where each of its layers comes from.

    Raises:
        RecipeError: if a layer does not hold what its place asks for, or what is beside the layers
            depends on their number. Nothing is checked where transformers does not know the
            architecture.
    """
    configs = {id(each): each for each in (donor, *(theirs for theirs, _ in origins))}
    try:
        known = {key: _Places(describe_model(each), each) for key, each in configs.items()}
    except NotDescribedError:
        return
    kind = f"these slices do not fit the architecture ({config.get('model_type')})"
    try:
        merged = _Places(describe_model(config), config)
    except NotDescribedError as exc:
        raise RecipeError(f"{kind}: transformers makes no model of their config: {exc}") from exc
    before = known[id(donor)].outside
    if before != merged.outside:
        raise RecipeError(
            f"{kind}: beside its layers, a model of {len(origins)} layers "
            f"{_difference(before, merged.outside)}; merge such models whole, under 'models'"
        )
    taken = {(id(theirs), index) for theirs, index in origins}
    for i, (theirs, index) in enumerate(origins):
        places = known[id(theirs)]
        if index >= len(places.layers) or i >= len(merged.layers):
            continue
        sharer = places.sharers.get(index)
        if sharer is not None and (id(theirs), sharer) not in taken:
            raise RecipeError(
                f"{kind}: layer {index} uses tensors of layer {sharer}, which no slice takes; "
                "take that one, too"
            )
        if places.layers[index] != merged.layers[i]:
            raise RecipeError(
                f"{kind}: layer {i} of the merged model comes from layer {index}, and a layer in "
                f"its new place {_difference(places.layers[index], merged.layers[i])}; leave such "
                "layers in their places (the first one first, the last one last), and repeat or "
                "drop others"
            )


def _difference(before: Shapes, after: Shapes) -> str:
    lost = [name for name in before if name not in after]
    wanted = [name for name in after if name not in before]
    if wanted:
        return f"needs {_some(wanted)}, which is not there"
    if lost:
        return f"has no room for {_some(lost)}"
    name = next(name for name in before if before[name] != after[name])
    return f"has {name} of the shape {list(after[name])} in the place of {list(before[name])}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else "")
