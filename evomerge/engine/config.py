"""The merged model's config: the donor's, following the layers that were taken."""

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from evomerge.checkpoints import Checkpoint, num_layers_key, text_section
from evomerge.engine.per_layer import follow_layers
from evomerge.engine.places import check_places
from evomerge.errors import RecipeError

__all__ = ["counted_config", "merged_config", "with_dtype", "with_tied"]

_DECODER_COUNTS = frozenset({"decoder_layers", "num_decoder_layers"})
_COUNT = "num_hidden_layers"


@lru_cache(maxsize=64)
def counted_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return a checkpoint's config with the number of layers, which some leave to a default."""
    config = checkpoint.config
    if num_layers_key(config) is not None or not checkpoint.layers.count:
        return config
    result = dict(config)
    section = text_section(config)
    if section is None:
        result[_COUNT] = checkpoint.layers.count
    else:
        result[section] = {**config[section], _COUNT: checkpoint.layers.count}
    return MappingProxyType(result)


def merged_config(
    donor: Checkpoint, origins: Sequence[tuple[Mapping[str, Any], int]], *, tied: bool
) -> dict[str, Any]:
    """Return the donor's config for a model made of other layers.

    The number of layers and all that the config says of single layers (`layer_types`,
    `mlp_only_layers`, …) follow.

    Args:
        donor: The checkpoint whose config is taken.
        origins: For each layer of the merged model the `counted_config` of the model it comes from
            and its number there. Not read if the config counts other layers than the donor's.
        tied: Whether the merged model has no head of its own.

    Raises:
        RecipeError: if the architecture's config cannot describe a model of these layers.
    """
    config = copy.deepcopy(dict(donor.config))
    count = donor.layers.count
    counted = counted_config(donor)
    unmoved = [(counted, i) for i in range(count)]
    moved = len(origins) != count or any(
        own[0] is not other[0] or own[1] != other[1]
        for own, other in zip(origins, unmoved, strict=True)
    )
    if count and moved and donor.layers_in_config:
        config = copy.deepcopy(dict(counted))
        path = num_layers_key(config)
        # A decoder alone may have the config of both (Bart's for language modelling).
        if config.get("is_encoder_decoder") or not _DECODER_COUNTS.isdisjoint(config):
            # Which of two stacks a list in the config is about cannot be told.
            if [number for _, number in origins] != list(range(count)):
                raise RecipeError(
                    f"slices choose layers of one stack, and {donor.name} has two, an encoder and "
                    "a decoder; merge such models whole, under 'models'"
                )
        elif path is not None:
            follow_layers(config, path, origins, count)
            check_places(config, counted, origins)
    return with_tied(config, donor, tied=tied)


def with_tied(config: Mapping[str, Any], donor: Checkpoint, *, tied: bool) -> dict[str, Any]:
    """Return the config with the word whether the head is the embedding, wherever it stands.

    Args:
        config: The config.
        donor: The checkpoint that it comes from.
        tied: Whether the merged model has no head of its own.
    """
    result = copy.deepcopy(dict(config))
    for part in (result, *(value for value in result.values() if isinstance(value, dict))):
        if "tie_word_embeddings" in part:
            part["tie_word_embeddings"] = tied
    if donor.tied != tied:
        result["tie_word_embeddings"] = tied
    return result


def with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return the config with another type, wherever the type stands."""
    result = copy.deepcopy(dict(config))
    sections = [value for value in result.values() if isinstance(value, dict)]
    for part in (result, *sections):
        for key in ("dtype", "torch_dtype"):
            if isinstance(part.get(key), str):
                part[key] = dtype
    if "torch_dtype" not in result:
        result["dtype"] = dtype
    return result
