"""Exact thresholds, however many elements and equal magnitudes there are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.engine.facts import FactStore, TensorFacts
from evomerge.engine.magnitudes import row_ranks
from evomerge.engine.workspace import Workspace
from evomerge.methods.fields import TaskVector
from evomerge.methods.interface import Threshold


def threshold(x: torch.Tensor, kept: int, *, keep: bool, block: int = 64) -> Threshold:
    facts = TensorFacts(
        FactStore(keep=keep),
        [torch.zeros_like(x), x],
        "ab",
        workspace=Workspace(torch.device("cpu"), block),
        draw=lambda i: i,
        shape=tuple(x.shape),
    )
    return facts.threshold(TaskVector(1), kept)


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
    sorted_way = threshold(x, kept, keep=True)
    assert threshold(x, kept, keep=False) == sorted_way
    order = sorted(range(size), key=lambda i: (-abs(float(x[i])), i))[:kept]
    assert sorted_way.magnitude == pytest.approx(abs(float(x[order[-1]])), abs=0)
    equal = int((x.abs() == sorted_way.magnitude).sum())
    inside = sum(abs(float(x[i])) == sorted_way.magnitude for i in order)
    if inside < equal and sorted_way.magnitude > 0:
        assert sorted_way.last_index == order[-1]
    else:
        assert sorted_way.last_index is None


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 40))
def test_ranks_of_rows(seed: int, rows: int, row: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 9, (rows, row), generator=generator).float()
    ranks = row_ranks(x.reshape(-1), row).view(rows, row)
    assert torch.equal(ranks.long(), x.argsort(dim=1, stable=True).argsort(dim=1))


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_a_sample_that_misleads_costs_another_look(spread: float) -> None:
    """All large elements stand where no sample is taken."""
    x = torch.full((1 << 18,), spread)
    x[5000:7000] = torch.linspace(2, 3, 2000)
    for kept in (1, 1000, 1999, 2000, 2001, 100_000):
        low = threshold(x, kept, keep=False, block=1 << 16)
        assert low == threshold(x, kept, keep=True, block=1 << 16)
