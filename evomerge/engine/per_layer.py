"""What a config says of single layers, following the layers that a merged model is made of.

It says so in lists with an entry for each layer (`layer_types`), lists of layer numbers
(`mlp_only_layers`), counts of the first or last layers (`first_k_dense_replace`), or by a rule that
only the architecture's code knows (every second layer is an expert layer). transformers writes out
the last kind; what cannot be written down is refused.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from evomerge.engine.described import NotDescribedError, describe_config
from evomerge.errors import RecipeError

__all__ = ["Origin", "follow_layers"]

Origin = tuple[Mapping[str, Any], int]
"""The config of the model that a layer comes from, and its number there."""

Values = Mapping[str, Any]

_PER_LAYER = re.compile(
    r"layer|block|attn|attention|rope|intermediate_size|sparsity_pattern|heads$|ffn_mult|_types$"
)
_NUMBERS = re.compile(r"layer|block|attn")
_OTHERS = re.compile(r"mtp|nextn|vision|visual|image|audio|feature|encoder_|out_indices|rope_scal")
# Texts with a letter for each layer (`hybrid_override_pattern` of Nemotron-H: `M-M*`).
_PATTERN = re.compile(r"_pattern$")
# Lists with an entry for each layer, whatever their entries look like.
_NEVER_NUMBERS = ("no_rope_layers",)
# The number of layers at the start or the end that are of another kind than the rest.
_FIRST = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
_LAST = ("num_kv_shared_layers",)
# Second names of the number of layers (xLSTM).
_ALSO_COUNTS = ("num_blocks",)
_SETTINGS = "per_layer_config"
# The number of the last layer that has experts (Ernie 4.5).
_LAST_NUMBER = "moe_layer_end_index"


def follow_layers(
    config: dict[str, Any], path: tuple[str, ...], origins: Sequence[Origin], count: int
) -> None:
    """Change a config, whose number of layers is the old one, in place.

    Args:
        config: A copy of the donor's config.
        path: Where its number of layers stands.
        origins: Where each layer of the merged model comes from.
        count: The donor's number of layers.

    Raises:
        RecipeError: if the architecture has no way to say which layers are of which kind.
    """
    section = path[:-1]
    filled = _Filled(section)
    donor = copy.deepcopy(config)
    own = _inside(config, section)
    if own.get("hidden_size_per_layer_input"):
        raise RecipeError(
            f"slices do not fit the architecture ({config.get('model_type')}): its embeddings hold "
            "a part for each layer (hidden_size_per_layer_input); merge such models whole, under "
            "'models'"
        )
    for key, value in filled(donor, count).items():
        if own.get(key) is None and filled.is_written(donor, key):
            own[key] = value
    for part in (own, config) if section else (own,):
        _follow_lists(part, section if part is own else (), origins, count, filled)
    _follow_settings(own, section, origins)
    _follow_counts(own, path, origins)
    _follow_steps(own, section, origins)
    _follow_last_number(own, section, origins)
    if "attention_types" in own and isinstance(own.get("attention_layers"), list):
        own["attention_types"] = [[own["attention_layers"], 1]]  # GPT-Neo: kinds and repeats
    for key in (path[-1], *_ALSO_COUNTS):
        if key == path[-1] or own.get(key) == count:
            own[key] = len(origins)
    _check_kinds(config, path, origins, filled)


def _follow_lists(
    part: dict[str, Any],
    section: tuple[str, ...],
    origins: Sequence[Origin],
    count: int,
    filled: "_Filled",
) -> None:
    """Follow the lists that name layers or have an entry for each, and such texts."""

    def theirs(origin: Origin, key: str, default: Sequence[Any]) -> Sequence[Any]:
        found = _inside(origin[0], section).get(key)
        if found is None:
            found = filled(origin[0], count).get(key)
        return found if isinstance(found, list | tuple | str) else default

    for key, values in part.items():
        is_text = isinstance(values, str) and _PATTERN.search(key) is not None
        if not (is_text or isinstance(values, list)) or _OTHERS.search(key):
            continue
        if not is_text and _are_numbers(key, values, count):
            part[key] = [
                i for i, origin in enumerate(origins) if origin[1] in theirs(origin, key, values)
            ]
        elif len(values) == count and (is_text or _PER_LAYER.search(key)):
            kinds = [
                source[origin[1]] if origin[1] < len(source) else values[-1]
                for origin in origins
                for source in (theirs(origin, key, values),)
            ]
            part[key] = "".join(kinds) if is_text else kinds


def _are_numbers(key: str, values: Sequence[Any], count: int) -> bool:
    """Tell whether a list holds numbers of layers: they rise and there are such layers."""
    return (
        bool(_NUMBERS.search(key))
        and key not in _NEVER_NUMBERS
        and all(type(value) is int and 0 <= value < count for value in values)
        and all(a < b for a, b in pairwise(values))
    )


def _follow_settings(
    own: dict[str, Any], section: tuple[str, ...], origins: Sequence[Origin]
) -> None:
    """Follow the settings of single layers, by their numbers (`per_layer_config` of Gemma 4)."""
    settings = {}
    for i, (other, index) in enumerate(origins):
        theirs = _inside(other, section).get(_SETTINGS)
        if isinstance(theirs, Mapping) and str(index) in theirs:
            settings[str(i)] = copy.deepcopy(theirs[str(index)])
    if settings or _SETTINGS in own:
        own[_SETTINGS] = settings


def _follow_counts(own: dict[str, Any], path: tuple[str, ...], origins: Sequence[Origin]) -> None:
    for key in (*_FIRST, *_LAST):
        if type(own.get(key)) is not int or (key in _FIRST and own.get("mlp_layer_types")):
            continue
        at_end = key in _LAST
        marks = []
        for other, index in origins:
            theirs = _inside(other, path[:-1])
            number = theirs.get(key) or 0
            marks.append(index >= theirs[path[-1]] - number if at_end else index < number)
        ordered = marks[::-1] if at_end else marks
        number = ordered.index(False) if False in ordered else len(ordered)
        if any(ordered[number:]) or (at_end and number == len(ordered) > 0):
            raise RecipeError(
                f"these slices do not fit the architecture: its config has a number for the "
                f"{'last' if at_end else 'first'} layers that are of a kind of their own ({key}: "
                f"{own[key]}); keep such layers together at the {'end' if at_end else 'start'}, "
                "and others beside them"
            )
        own[key] = number


def _follow_steps(own: dict[str, Any], section: tuple[str, ...], origins: Sequence[Origin]) -> None:
    """Write `decoder_sparse_step` (Qwen's MoE: every n-th layer has experts) as a list."""
    if type(own.get("decoder_sparse_step")) is not int:
        return

    def dense(origin: Origin) -> bool:
        theirs, index = _inside(origin[0], section), origin[1]
        step = theirs.get("decoder_sparse_step") or 1
        return index in (theirs.get("mlp_only_layers") or ()) or (index + 1) % step != 0

    own["decoder_sparse_step"] = 1
    own["mlp_only_layers"] = [i for i, origin in enumerate(origins) if dense(origin)]


def _follow_last_number(
    own: dict[str, Any], section: tuple[str, ...], origins: Sequence[Origin]
) -> None:
    if type(own.get(_LAST_NUMBER)) is not int or own[_LAST_NUMBER] < 0:
        return
    marks = [index > _inside(other, section).get(_LAST_NUMBER, index) for other, index in origins]
    last = marks.index(True) if True in marks else len(marks)
    if not all(marks[last:]):
        raise RecipeError(
            "these slices do not fit the architecture: its config has the number of the last layer "
            f"with experts ({_LAST_NUMBER}: {own[_LAST_NUMBER]}); keep the layers after it "
            "together at the end"
        )
    own[_LAST_NUMBER] = last - 1


def _check_kinds(
    config: Mapping[str, Any],
    path: tuple[str, ...],
    origins: Sequence[Origin],
    filled: "_Filled",
) -> None:
    """Compare the kinds of layers that transformers sees with those of their origins."""
    merged = filled(config, len(origins))
    for key, kinds in merged.items():
        if len(kinds) != len(origins) or _are_numbers(key, kinds, len(origins)):
            continue
        for i, (other, index) in enumerate(origins):
            theirs = filled(other, int(_inside(other, path[:-1])[path[-1]])).get(key)
            if theirs is None or index >= len(theirs) or theirs[index] == kinds[i]:
                continue
            raise RecipeError(
                f"these slices do not fit the architecture ({config.get('model_type')}): by its "
                f"number, layer {i} of the merged model would be {kinds[i]!r} ({key}), but it "
                f"comes from layer {index}, which is {theirs[index]!r}; choose layer ranges that "
                "keep the order of the kinds"
            )


def _inside(config: Any, section: tuple[str, ...]) -> Any:
    for key in section:
        config = config.get(key) or {}
    return config


class _Filled:
    """The lists about layers that transformers makes of a config, also where it leaves them out."""

    def __init__(self, section: tuple[str, ...]) -> None:
        self._section = section
        self._known: dict[int, tuple[Mapping[str, Any], _Lists]] = {}

    def __call__(self, config: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
        """Return the lists by key; none if transformers does not know the architecture."""
        written, derived = self._lists(config)
        return {
            key: list(values)
            for key, values in {**written, **derived}.items()
            if len(values) == count or _are_numbers(key, values, count)
        }

    def is_written(self, config: Mapping[str, Any], key: str) -> bool:
        """Tell whether a config file may hold this list (a rule of the code may not be set)."""
        return key in self._lists(config)[0]

    def _lists(self, config: Mapping[str, Any]) -> "_Lists":
        if id(config) not in self._known:
            self._known[id(config)] = config, _describe(config, self._section)
        return self._known[id(config)][1]


_Lists = tuple[dict[str, Sequence[Any]], dict[str, Sequence[Any]]]
"""What is stored in a config, and what its class derives from the rest."""


def _describe(config: Mapping[str, Any], section: tuple[str, ...]) -> _Lists:
    try:
        described: Any = describe_config(config)
        for key in section:
            described = getattr(described, key)
    except (NotDescribedError, AttributeError):
        return {}, {}
    kind = type(described)
    properties = [key for key in dir(kind) if isinstance(getattr(kind, key, None), property)]
    return _lists(described, list(vars(described))), _lists(described, properties)


def _lists(described: Any, keys: Sequence[str]) -> dict[str, Sequence[Any]]:
    found: dict[str, Sequence[Any]] = {}
    for key in keys:
        if not _PER_LAYER.search(key) or _OTHERS.search(key) or key.startswith("_"):
            continue
        try:
            value = getattr(described, key)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        if isinstance(value, list | tuple):
            found[key] = value
    return found
