"""From what a recipe says about a parameter to the number that one tensor gets.

A value is a scalar, a gradient (a list that is interpolated over the layers of a slice), or a list
of `{filter, value}` entries of which the first whose filter is part of the tensor's name counts.
A list without a match falls through to the next level: source, slice, module, global.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from evomerge.errors import nearest
from evomerge.methods import ParameterSpec

__all__ = ["ParameterValue", "Rule", "check_value", "resolve_rule"]

ParameterValue = float | int | bool | str
_ALL = "*"
_ENTRY_KEYS = ("filter", "value")


@dataclass(frozen=True, slots=True)
class _Entry:
    filter: str | None
    values: tuple[ParameterValue, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """All that a recipe says about one parameter, for one model if each has its own.

    The most specific comes first.

    Attributes:
        entries: Filtered gradients in the order in which they are tried.
        constant: The value if it is the same for every tensor, else None.
    """

    entries: tuple[_Entry, ...]
    constant: ParameterValue | None

    def value(self, name: str, position: float | None) -> ParameterValue | None:
        """Return the value for one tensor, or None if the recipe gives none.

        Args:
            name: What filters see: where each model has a value of its own, the tensor's name in
                that model, wherever the value stands; else its name in the merged model.
            position: Place in the slice from 0 to 1; None for a tensor outside the layers.
        """
        if self.constant is not None:
            return self.constant
        for entry in self.entries:
            if entry.filter is None or entry.filter in name:
                return _interpolate(entry.values, 0.0 if position is None else position)
        return None


def resolve_rule(name: str, levels: Sequence[Mapping[str, Any]]) -> Rule:
    """Collect what the `parameters` of all levels, most specific first, say about one of them."""
    entries: list[_Entry] = []
    for parameters in levels:
        value = parameters.get(name)
        if value is None:
            continue
        for item in _as_entries(value):
            wanted = item.get("filter")
            wanted = None if wanted == _ALL else wanted
            entries.append(_Entry(wanted, _as_gradient(item["value"])))
            if wanted is None:
                return _rule(entries)
    return _rule(entries)


def _rule(entries: list[_Entry]) -> Rule:
    first = entries[0] if entries else None
    fixed = first is not None and first.filter is None and len(first.values) == 1
    return Rule(tuple(entries), first.values[0] if first is not None and fixed else None)


def _as_entries(value: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        return (value,)
    if _is_list(value) and value and isinstance(value[0], Mapping):
        return value
    return ({"value": value},)


def _as_gradient(value: Any) -> tuple[ParameterValue, ...]:
    values = value if _is_list(value) else (value,)
    return tuple(_as_scalar(item) for item in values)


def _as_scalar(value: Any) -> ParameterValue:
    """Turn `1e-9`, which YAML reads as text, into the number it is meant to be."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    number: ParameterValue = value
    return number


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _interpolate(values: tuple[ParameterValue, ...], position: float) -> ParameterValue:
    last = len(values) - 1
    if last == 0:
        return values[0]
    place = position * last
    left = min(int(place), last - 1)
    share = place - left
    return (1.0 - share) * float(values[left]) + share * float(values[left + 1])


def check_value(spec: ParameterSpec, value: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """Return what is wrong with the value of a parameter: places inside it and messages."""
    if isinstance(value, Mapping):
        return _check_entry(spec, value)
    if _is_list(value):
        if not value:
            return [((), f"{spec.name} is an empty list: give at least one value")]
        if any(isinstance(item, Mapping) for item in value):
            problems = []
            for i, item in enumerate(value):
                found = (
                    _check_entry(spec, item)
                    if isinstance(item, Mapping)
                    else [((), "a list holds either numbers or {filter, value} entries, not both")]
                )
                problems += [((i, *place), text) for place, text in found]
            return problems
        return [((i,), text) for i, item in enumerate(value) for text in _check_scalar(spec, item)]
    return [((), text) for text in _check_scalar(spec, value)]


def _check_entry(
    spec: ParameterSpec, entry: Mapping[Any, Any]
) -> list[tuple[tuple[str | int, ...], str]]:
    for key in entry:
        if key not in _ENTRY_KEYS:
            return [((str(key),), f"unknown key {key!r}; {nearest(str(key), _ENTRY_KEYS)}")]
    if "value" not in entry:
        return [((), "the key 'value' is required")]
    wanted = entry.get("filter")
    if wanted is not None and not isinstance(wanted, str):
        return [(("filter",), f"a filter is a part of a tensor name, got {wanted!r}")]
    value = entry["value"]
    if isinstance(value, Mapping) or (
        _is_list(value) and any(isinstance(v, Mapping) for v in value)
    ):
        return [(("value",), "filters cannot be nested")]
    return [(("value", *place), text) for place, text in check_value(spec, value)]


def _check_scalar(spec: ParameterSpec, value: Any) -> list[str]:
    value = _as_scalar(value)
    if spec.kind == "choice":
        if value in spec.choices:
            return []
        return [f"unknown {spec.name} {value!r}; {nearest(str(value), spec.choices)}"]
    if not isinstance(value, bool | int | float):
        return [f"{spec.name} is a number, got {value!r}"]
    if not math.isfinite(value):
        return [f"{spec.name} is a finite number, got {value!r}"]
    if spec.kind == "bool" and value not in (0, 1):
        return [f"{spec.name} is true or false, got {value!r}"]
    if spec.low is not None and value < spec.low:
        return [f"{spec.name} is at least {spec.low:g}, got {value!r}"]
    if spec.high is not None and value > spec.high:
        return [f"{spec.name} is at most {spec.high:g}, got {value!r}"]
    return []
