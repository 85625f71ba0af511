"""Blocks of layers: one slice written once, repeated over the layers of the models."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from evomerge.checkpoints import open_checkpoint
from evomerge.documents import Origin
from evomerge.errors import SpaceError, nearest

__all__ = ["count_layers", "expand_blocks", "num_blocks"]

_KEYS = ("every", "sources", "base_model", "parameters")


def count_layers(model: str) -> int:
    """Return the number of layers of a checkpoint.

    Raises:
        CheckpointError: if it is not at hand.
        SpaceError: if it has no stack of layers.
    """
    count = open_checkpoint(model).layers.count
    if count == 0:
        raise SpaceError(f"{model}: no stack of layers was found in it, so it cannot be cut")
    return count


def num_blocks(layers: int, every: int) -> int:
    """Return how many blocks of `every` layers there are; the last one may be shorter."""
    return -(-layers // every)


def expand_blocks(
    recipe: Mapping[str, Any], origin: Origin, count: Callable[[str], int] = count_layers
) -> dict[str, Any]:
    """Return a recipe whose `slices: {every: N, sources: [...]}` are slices of N layers each.

    Each slice is a copy, so that what is searched in it is searched for each block; expressions
    with a `name` are the same in all of them.

    Args:
        recipe: A recipe with its holes, and names of models that the working directory needs.
        origin: Of the recipe, for messages.
        count: Model -> number of its layers; the first source's is asked for.

    Raises:
        SpaceError: if the template is wrong.
        CheckpointError: if the first model is not at hand.
    """
    template = recipe.get("slices")
    if not isinstance(template, dict) or "every" not in template:
        return dict(recipe)
    for key in template:
        if key not in _KEYS:
            raise SpaceError(
                f"{origin.where('slices', key)}: unknown key {key!r} beside 'every'; "
                f"{nearest(str(key), _KEYS)}"
            )
    every, sources = template["every"], template.get("sources")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise SpaceError(
            f"{origin.where('slices', 'every')}: 'every' is the number of layers of a block, got "
            f"{every!r}"
        )
    if not isinstance(sources, list) or not sources or not all(_is_source(s) for s in sources):
        raise SpaceError(
            f"{origin.where('slices', 'sources')}: the sources of a block are a list of "
            "{model, parameters}, without layer_range"
        )
    layers = count(_first_model(sources[0]["model"]))
    slices = []
    for start in range(0, layers, every):
        block = copy.deepcopy({key: value for key, value in template.items() if key != "every"})
        stop = min(start + every, layers)
        block["sources"] = [
            {"model": source["model"], "layer_range": [start, stop], **source}
            for source in block["sources"]
        ]
        slices.append(block)
    return {**recipe, "slices": slices}


def _is_source(data: Any) -> bool:
    return isinstance(data, dict) and "model" in data and "layer_range" not in data


def _first_model(model: Any) -> str:
    """Return a model's name, or the first option of a choice."""
    if isinstance(model, dict) and isinstance(model.get("choice"), list) and model["choice"]:
        model = model["choice"][0]
    return str(model)
