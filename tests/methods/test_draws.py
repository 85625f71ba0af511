"""The random numbers of dropping methods."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.engine.facts import FactStore, TensorFacts
from evomerge.engine.workspace import Workspace
from evomerge.methods.draws import Draws, draw_bound, draw_key, keep
from evomerge.methods.fields import Sparse, TaskVector
from evomerge.methods.sparsifiers import Drop
from tests.methods.merging import merge


def numbers(key: int, start: int, count: int) -> torch.Tensor:
    iota = torch.arange(count, dtype=torch.int32)
    out, scratch = torch.empty_like(iota), torch.empty_like(iota)
    return Draws(key).block(start, iota, out, scratch)


def uniform(key: int, count: int = 1 << 18) -> torch.Tensor:
    return (numbers(key, 0, count).double() + 2.0**31) / 2.0**32


KNOWN = [-1956443446, 2023988159, -1900128262, 1241715356]


def test_known_numbers() -> None:
    """Bits that must never change: a merge of last year has to come out the same."""
    assert draw_key(0, "model.norm.weight", "abc") == 14566846044967701566
    assert numbers(12345678901234567890, 0, 4).tolist() == KNOWN
    assert numbers(12345678901234567890, 2, 2).tolist() == KNOWN[2:]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 64))
def test_a_block_is_a_part_of_the_whole(key: int, start: int, offset: int) -> None:
    start = min(start, (start | 0xFFFFFFFF) - 127)  # a block does not cross a multiple of 2**32
    whole = numbers(key, start, 128)
    assert torch.equal(numbers(key, start + offset, 64), whole[offset : offset + 64])


def test_indices_beyond_32_bits_get_numbers_of_their_own() -> None:
    key = draw_key(0, "t", "s")
    assert not torch.equal(numbers(key, 0, 64), numbers(key, 1 << 32, 64))


@pytest.mark.parametrize("name", ["a", "b", "model.layers.0.mlp.up_proj.weight"])
def test_numbers_are_uniform(name: str) -> None:
    u = uniform(draw_key(7, name, "source"))
    count = u.numel()
    assert abs(float(u.mean()) - 0.5) < 5 * (1 / 12 / count) ** 0.5
    bins = torch.histc(u.float(), bins=64, min=0, max=1)
    chi2 = float(((bins - count / 64) ** 2 / (count / 64)).sum())
    assert chi2 < 63 + 5 * (2 * 63) ** 0.5
    centred = u - 0.5
    for lag in (1, 2, 3, 64, 4096):
        correlation = float((centred[lag:] * centred[:-lag]).mean() * 12)
        assert abs(correlation) < 5 / count**0.5, lag


def test_sources_and_tensors_and_seeds_are_independent() -> None:
    first = uniform(draw_key(0, "t", "a")) - 0.5
    for key in (draw_key(0, "t", "b"), draw_key(0, "u", "a"), draw_key(1, "t", "a")):
        correlation = float((first * (uniform(key) - 0.5)).mean() * 12)
        assert abs(correlation) < 5 / first.numel() ** 0.5


@given(st.integers(0, 2**32), st.floats(0.01, 0.98), st.floats(0.001, 0.3))
def test_a_higher_density_keeps_a_superset(seed: int, density: float, more: float) -> None:
    higher = min(0.99, density + more)
    draw = numbers(draw_key(seed, "t", "s"), 0, 1000)
    masks = []
    for value in (density, higher):
        delta = torch.ones(1000)
        keep(delta, (draw < draw_bound(value)).int())
        masks.append(delta > 0)
    assert bool((masks[1] | ~masks[0]).all())


def test_a_share_of_density_is_kept_and_the_rest_is_exactly_zero() -> None:
    delta = torch.randn(1 << 18)
    before = delta.clone()
    draw = numbers(draw_key(3, "t", "s"), 0, delta.numel())
    keep(delta, (draw < draw_bound(0.3)).int())
    kept = delta != 0
    assert torch.equal(delta[kept], before[kept])
    assert abs(float(kept.double().mean()) - 0.3) < 5 * (0.21 / delta.numel()) ** 0.5


def test_rescaling() -> None:
    x = torch.randn(100_000)
    zero = torch.zeros_like(x)
    options = {"weight": 1.0, "density": 0.4}
    l1 = merge("dare_linear", [zero, x], **options)
    assert float(l1.abs().sum()) == pytest.approx(float(x.abs().sum()), rel=1e-5)
    paper = merge("dare_linear", [zero, x], rescale_norm="density", **options)
    kept = paper != 0
    assert torch.allclose(paper[kept], x[kept] / 0.4)
    plain = merge("dare_linear", [zero, x], rescale=False, **options)
    assert torch.equal(plain[kept], x[kept])
    assert torch.equal(plain != 0, kept)


def test_the_same_draw_for_every_density_and_candidate() -> None:
    x = torch.randn(1000)
    zero = torch.zeros_like(x)
    low = merge("dare_linear", [zero, x], weight=1.0, density=0.3, seed=5)
    high = merge("dare_linear", [zero, x], weight=0.2, density=0.6, seed=5)
    other = merge("dare_linear", [zero, x], weight=1.0, density=0.3, seed=6)
    assert bool(((high != 0) | (low == 0)).all())
    assert not torch.equal(low != 0, other != 0)


def test_facts_do_not_depend_on_threads() -> None:
    """Sums of long tensors are cut into rows, each summed by one thread."""
    torch.manual_seed(0)
    tensors = [torch.randn(300_001) for _ in range(2)]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            space = Workspace(torch.device("cpu"))
            facts = TensorFacts(
                FactStore(keep=False),
                tensors,
                "ab",
                workspace=space,
                draw=lambda i: 99,
                shape=(300_001,),
            )
            dropped = Sparse(1, Drop(facts.draws(1), draw_bound(0.5)))
            found.append((facts.gram((0, 1)), facts.total(TaskVector(1)), facts.total(dropped)))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
