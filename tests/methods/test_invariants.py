"""What must hold for every merge, whatever the numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.methods import METHODS
from evomerge.methods.slerp import slerp_coefficients
from tests.methods.merging import merge

TASK_METHODS = tuple(name for name, spec in METHODS.items() if not spec.base_is_source)

seeds = st.integers(0, 2**32 - 1)
weights = st.floats(-2, 2).filter(lambda w: abs(w) > 0.01)
densities = st.floats(0.01, 0.99)
sizes = st.integers(1, 300)


def tensors(seed: int, count: int, size: int, *, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) * scale for _ in range(count)]


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    scale = max(1.0, float(b.abs().max())) if b.numel() else 1.0
    return bool(((a - b).abs() <= tolerance * scale).all())


@given(seeds, sizes, weights)
def test_linear_of_one_model_is_that_model(seed: int, size: int, weight: float) -> None:
    (x,) = tensors(seed, 1, size)
    assert torch.equal(merge("linear", [x], weight=weight), x)


@given(seeds, sizes, st.lists(st.floats(0.1, 2), min_size=3, max_size=3))
def test_linear_does_not_depend_on_the_order(seed: int, size: int, own: list[float]) -> None:
    xs = tensors(seed, 3, size)
    forward = merge("linear", xs, weight=own)
    backward = merge("linear", xs[::-1], weight=own[::-1])
    assert close(forward, backward)
    assert close(merge("linear", [xs[0]] * 3, weight=own), xs[0])


def test_linear_refuses_weights_that_sum_to_zero() -> None:
    with pytest.raises(RecipeError, match=r"sum of the weights, which is 0 for \[1\.0, -1\.0\]"):
        merge("linear", tensors(0, 2, 3), weight=[1.0, -1.0])
    merge("linear", tensors(0, 2, 3), weight=[1.0, -1.0], normalize=False)


@given(seeds, sizes)
def test_slerp_ends_at_its_parents(seed: int, size: int) -> None:
    a, b = tensors(seed, 2, size)
    assert torch.equal(merge("slerp", [a, b], t=0), a)
    assert torch.equal(merge("slerp", [a, b], t=1.0), b)


@given(seeds, st.integers(2, 300), st.floats(0, 1), st.floats(0.01, 100))
def test_slerp_is_symmetric_and_scales(seed: int, size: int, t: float, scale: float) -> None:
    a, b = tensors(seed, 2, size)
    merged = merge("slerp", [a, b], t=t)
    assert close(merged, merge("slerp", [b, a], t=1 - t), 1e-4)
    assert close(merge("slerp", [a * scale, b * scale], t=t) / scale, merged, 1e-4)


@pytest.mark.parametrize(
    ("a", "b"), [((1.0, 0.0), (-1.0, 0.0)), ((1.0, 2.0), (0.0, 0.0)), ((0.0, 0.0), (0.0, 0.0))]
)
def test_slerp_of_antiparallel_and_zero_vectors_is_finite(a: tuple[float], b: tuple[float]) -> None:
    merged = merge("slerp", [torch.tensor(a), torch.tensor(b)], t=0.3)
    assert bool(torch.isfinite(merged).all())


def test_slerp_follows_the_arc() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    merged = merge("slerp", [a, b], t=0.25)
    angle = math.pi / 8
    assert torch.allclose(merged, torch.tensor([math.cos(angle), math.sin(angle)]), atol=1e-7)
    assert slerp_coefficients(0.3, 1.0, 0.9996, 1.0) == (0.7, 0.3)


@given(seeds, sizes, st.floats(-2, 2))
def test_passthrough_scales(seed: int, size: int, scale: float) -> None:
    (x,) = tensors(seed, 1, size)
    assert torch.equal(merge("passthrough", [x]), x)
    assert torch.equal(merge("passthrough", [x], scale=scale), x * torch.tensor(scale))


@given(seeds, sizes, st.sampled_from(TASK_METHODS), densities)
def test_zero_task_vectors_return_the_base(
    seed: int, size: int, method: str, density: float
) -> None:
    (base,) = tensors(seed, 1, size)
    options = {"density": density} if METHODS[method].parameter("density") else {}
    assert torch.equal(merge(method, [base, base, base], weight=[0.7, 0.4], **options), base)


@given(seeds, sizes, st.tuples(weights, weights), st.booleans(), st.floats(0.1, 2))
def test_density_one_is_task_arithmetic(
    seed: int, size: int, own: tuple[float, float], normalize: bool, scale: float
) -> None:
    xs = tensors(seed, 3, size)
    options = {"weight": list(own), "normalize": normalize, "lambda": scale}
    plain = merge("task_arithmetic", xs, **options)
    assert torch.equal(merge("dare_linear", xs, density=1.0, **options), plain)
    assert torch.equal(
        merge("dare_ties", xs, density=1.0, **options), merge("ties", xs, density=1.0, **options)
    )


@given(seeds, sizes, densities)
def test_ties_of_one_model_keeps_its_largest(seed: int, size: int, density: float) -> None:
    base, x = tensors(seed, 2, size)
    delta = merge("ties", [torch.zeros(size), x - base], weight=1.0, density=density)
    kept = max(1, int(density * size))
    assert int((delta != 0).sum()) == kept
    assert float(delta.abs().sum()) == pytest.approx(
        float((x - base).abs().sort(descending=True).values[:kept].sum()), rel=1e-5
    )


@given(seeds, st.integers(2, 300), densities, st.integers(1, 4))
def test_ties_among_equals_keeps_the_first(
    seed: int, size: int, density: float, levels: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(1, levels + 1, (size,), generator=generator).float()
    delta = merge("ties", [torch.zeros(size), x], weight=1.0, density=density)
    kept = max(1, int(density * size))
    order = sorted(range(size), key=lambda i: (-float(x[i]), i))[:kept]
    wanted = torch.zeros(size)
    wanted[order] = x[order]
    assert torch.equal(delta, wanted)


@given(seeds, sizes, weights, weights)
def test_ties_does_not_depend_on_the_order(seed: int, size: int, w1: float, w2: float) -> None:
    base, x, y = tensors(seed, 3, size)
    for method in ("ties", "dare_ties", "dare_linear", "task_arithmetic"):
        options = {} if method == "task_arithmetic" else {"density": [0.5, 0.3]}
        swapped = {} if method == "task_arithmetic" else {"density": [0.3, 0.5]}
        forward = merge(method, [base, x, y], weight=[w1, w2], names="abc", **options)
        backward = merge(method, [base, y, x], weight=[w2, w1], names="acb", **swapped)
        assert close(forward, backward, 1e-5)


@given(seeds, sizes)
def test_opposed_task_vectors_cancel_to_one_side(seed: int, size: int) -> None:
    base, d = tensors(seed, 2, size)
    zero = torch.zeros_like(base)
    merged = merge("ties", [zero, d, -d], weight=1.0, normalize=False)
    assert torch.equal(merged, d.abs())  # the sum is 0, and 0 counts as plus


@given(seeds, st.integers(1, 200), st.sampled_from(tuple(METHODS)))
@settings(max_examples=50)
def test_blocks_do_not_change_a_bit(seed: int, size: int, method: str) -> None:
    spec = METHODS[method]
    count = spec.max_models or 4
    xs = tensors(seed, count, size * 97)
    options = {p.name: p.usual for p in spec.parameters}
    whole = merge(method, xs, **options)
    for block in (64, 1024, 8192):
        for keep in (True, False):
            assert torch.equal(merge(method, xs, block=block, keep=keep, **options), whole)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3, 4)])
def test_any_shape(method: str, shape: tuple[int, ...]) -> None:
    spec = METHODS[method]
    xs = [torch.randn(shape) for _ in range(spec.max_models or 3)]
    options = {p.name: p.usual for p in spec.parameters}
    merged = merge(method, xs, **options)
    assert merged.shape == shape
    assert bool(torch.isfinite(merged).all())


@pytest.mark.parametrize("method", METHODS)
def test_huge_magnitudes(method: str) -> None:
    spec = METHODS[method]
    xs = [torch.randn(5000) * 1e36 for _ in range(spec.max_models or 3)]
    options = {p.name: p.usual for p in spec.parameters}
    assert bool(torch.isfinite(merge(method, xs, **options)).all())
