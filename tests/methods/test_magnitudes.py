"""Exact thresholds, however many elements and equal magnitudes there are."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.engine.magnitudes import BinnedMagnitudes, Blocks, SortedMagnitudes


def deltas(x: torch.Tensor, block: int = 50) -> Blocks:
    def blocks(first: int) -> Iterator[tuple[int, torch.Tensor]]:
        for start in range(first, x.numel(), block):
            yield start, x[start : start + block].clone()

    return blocks


@given(
    st.integers(0, 2**32),
    st.integers(1, 400),
    st.floats(0, 1),
    st.sampled_from(["random", "equal", "coarse", "zeros", "bfloat16"]),
)
def test_both_ways_agree_with_sorting(seed: int, size: int, share: float, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=generator)
    if kind == "equal":
        x = x.sign()
    elif kind == "coarse":
        x = (x * 2).round() / 2
    elif kind == "zeros":
        x[torch.rand(size, generator=generator) < 0.7] = 0.0
    elif kind == "bfloat16":
        x = x.bfloat16().float()
    kept = max(1, int(share * size))
    sorted_way = SortedMagnitudes(deltas(x)).threshold(kept)
    assert BinnedMagnitudes(deltas(x)).threshold(kept) == sorted_way
    order = sorted(range(size), key=lambda i: (-abs(float(x[i])), i))[:kept]
    assert sorted_way.magnitude == pytest.approx(abs(float(x[order[-1]])), abs=0)
    equal = int((x.abs() == sorted_way.magnitude).sum())
    inside = sum(abs(float(x[i])) == sorted_way.magnitude for i in order)
    if inside < equal and sorted_way.magnitude > 0:
        assert sorted_way.last_index == order[-1]
    else:
        assert sorted_way.last_index is None
