"""From what a recipe says to the number a tensor gets."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.recipe import resolve_rule


def value(levels: list[dict[str, Any]], position: float | None = 0.0) -> Any:
    return resolve_rule("w", levels).value("in.attn", position)


@pytest.mark.parametrize(
    ("position", "wanted"),
    [(0.0, 1.0), (0.25, 2.0), (0.5, 3.0), (0.75, 5.0), (1.0, 7.0), (None, 1)],
)
def test_gradients(position: float | None, wanted: float) -> None:
    assert value([{"w": [1, 3, 7]}], position) == wanted


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0, 1))
def test_a_gradient_stays_between_its_values(values: list[float], position: float) -> None:
    found = value([{"w": values}], position)
    assert min(values) - 1e-9 <= found <= max(values) + 1e-9
    assert value([{"w": values}], 0.0) == values[0]
    assert value([{"w": values}], 1.0) == values[-1]


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        ([{"w": 1}, {"w": 2}, {"w": 3}], 1),
        ([{}, {"w": 2}, {"w": 3}], 2),
        ([{"w": None}, {}, {"w": 3}], 3),
        ([{}, {}, {}], None),
        ([{"w": [{"filter": "attn", "value": 1}]}, {"w": 2}], 1),
        ([{"w": [{"filter": "mlp", "value": 1}]}, {"w": 2}], 2),
        ([{"w": {"filter": "mlp", "value": 1}}, {"w": [{"filter": "attn", "value": 5}]}], 5),
        ([{"w": [{"filter": "in", "value": 1}, {"filter": "attn", "value": 2}]}], 1),
        ([{"w": [{"filter": "*", "value": 4}, {"filter": "attn", "value": 2}]}], 4),
        ([{"w": [{"filter": "x", "value": 4}, {"value": [2, 6]}]}], 2),
        ([{"w": "1e-2"}], 0.01),
        ([{"w": "l1"}], "l1"),
        ([{"w": 0}, {"w": 2}], 0),
        ([{"w": False}, {"w": True}], False),
    ],
)
def test_precedence_and_filters(levels: list[dict[str, Any]], wanted: Any) -> None:
    assert value(levels) == wanted


def test_constants_are_known_beforehand() -> None:
    assert resolve_rule("w", [{"w": 0.5}]).constant == 0.5
    assert resolve_rule("w", [{"w": [1, 2]}]).constant is None
    assert resolve_rule("w", [{"w": [{"value": 3}]}]).constant == 3
