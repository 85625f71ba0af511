"""The merged model's config: the donor's, following the layers that were taken."""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evomerge.checkpoints import Checkpoint, num_layers_key

__all__ = ["merged_config", "with_dtype"]

_PER_LAYER = re.compile(r"layer|block|attn|attention|rope")


def merged_config(
    donor: Checkpoint, origins: Sequence[tuple[Mapping[str, Any], int]], *, tied: bool
) -> dict[str, Any]:
    """Return the donor's config for a model made of other layers.

    The number of layers and every list with one entry a layer (`layer_types`, …) follow.

    Args:
        donor: The checkpoint whose config is taken.
        origins: For each layer of the merged model the config of the model it comes from and its
            number there.
        tied: Whether the merged model has no head of its own.
    """
    config = copy.deepcopy(dict(donor.config))
    count = donor.layers.count
    if count and [index for _, index in origins] != list(range(count)):
        path = num_layers_key(config)
        if path is not None:
            for inner in _parts(config, path):
                inner[path[-1]] = len(origins)
        sections = [(), *((key,) for key, value in config.items() if isinstance(value, dict))]
        for section in sections:
            _follow(config, section, origins, count)
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if "tie_word_embeddings" in part:
            part["tie_word_embeddings"] = tied
    if donor.tied != tied:
        config["tie_word_embeddings"] = tied
    return config


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


def _parts(config: dict[str, Any], path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    yield inner


def _follow(
    config: dict[str, Any],
    section: tuple[str, ...],
    origins: Sequence[tuple[Mapping[str, Any], int]],
    count: int,
) -> None:
    own: dict[str, Any] = config[section[0]] if section else config
    for key, values in own.items():
        if not (isinstance(values, list) and len(values) == count and _PER_LAYER.search(key)):
            continue
        followed = []
        for other, index in origins:
            theirs = other.get(section[0], {}) if section else other
            source = theirs.get(key, values)
            followed.append(source[index] if index < len(source) else values[-1])
        own[key] = followed
