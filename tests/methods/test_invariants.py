"""What must hold for every merge, whatever the numbers."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.methods import METHODS
from evomerge.methods.slerp import slerp_factors
from tests.methods.merging import merge

TASK_METHODS = tuple(name for name, spec in METHODS.items() if not spec.base_is_source)
WEIGHTED = tuple(name for name in TASK_METHODS if METHODS[name].parameter("density"))

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
    assert slerp_factors(0.3, 1.0, 0.9996, 1.0) == (0.7, 0.3)


@given(seeds, sizes, st.floats(-2, 2))
def test_passthrough_scales(seed: int, size: int, scale: float) -> None:
    (x,) = tensors(seed, 1, size)
    assert torch.equal(merge("passthrough", [x]), x)
    assert torch.equal(merge("passthrough", [x], scale=scale), x * torch.tensor(scale))


def usual(method: str, **changes: Any) -> dict[str, Any]:
    return {p.name: p.usual for p in METHODS[method].parameters} | changes


@given(seeds, sizes, st.sampled_from(TASK_METHODS))
def test_zero_task_vectors_return_the_base(seed: int, size: int, method: str) -> None:
    (base,) = tensors(seed, 1, size)
    assert torch.equal(merge(method, [base, base, base], base=True, **usual(method)), base)


@given(seeds, sizes, st.sampled_from(WEIGHTED), st.floats(0.2, 0.8))
def test_any_density_keeps_the_base(seed: int, size: int, method: str, density: float) -> None:
    (base,) = tensors(seed, 1, size)
    options = usual(method, weight=[0.7, 0.4], density=density)
    assert torch.equal(merge(method, [base, base, base], **options), base)


@given(seeds, sizes, st.sampled_from(tuple(METHODS)), st.integers(2, 4))
def test_equal_models_without_a_base_return_themselves(
    seed: int, size: int, method: str, count: int
) -> None:
    spec = METHODS[method]
    if not spec.base_is_source and spec.base == "required":
        return
    (x,) = tensors(seed, 1, size)
    xs = [x] * min(count, spec.max_models or count)
    assert close(merge(method, xs, **usual(method)), x)


@given(seeds, st.integers(8, 300), st.sampled_from(["karcher", "model_stock", "sce", "ram"]))
def test_methods_without_weights_do_not_depend_on_the_order(
    seed: int, size: int, method: str
) -> None:
    base, x, y, z = tensors(seed, 4, size)
    options = usual(method)
    forward = merge(method, [base, x, y, z], names="abcd", **options)
    assert close(forward, merge(method, [base, z, x, y], names="adbc", **options), 1e-4)


@given(seeds, st.integers(2, 200), st.sampled_from(["karcher", "multislerp", "nuslerp"]))
def test_means_on_the_sphere_keep_the_length(seed: int, size: int, method: str) -> None:
    x, y = tensors(seed, 2, size)
    x, y = x / x.norm(), y / y.norm()
    if abs(float(x @ y)) > 0.99:
        return
    assert float(merge(method, [x, y], **usual(method)).norm()) == pytest.approx(1.0, abs=1e-4)


@given(seeds, st.integers(2, 200))
def test_means_on_the_sphere_of_two_models_agree(seed: int, size: int) -> None:
    x, y = tensors(seed, 2, size)
    x, y = x / x.norm(), y / y.norm()
    if float(x @ y) < -0.9:
        return
    half = merge("slerp", [x, y], t=0.5)
    for method in ("karcher", "multislerp", "nuslerp"):
        assert close(merge(method, [x, y], **usual(method)), half, 1e-4), method


@pytest.mark.parametrize("method", ["karcher", "multislerp", "nuslerp", "model_stock", "slerp"])
@pytest.mark.parametrize("other", [-1.0, 0.0, 1.0])
def test_opposed_and_zero_vectors_are_finite(method: str, other: float) -> None:
    x = torch.tensor([1.0, 2.0, -0.5])
    xs = [torch.zeros(3), x, other * x] if method == "model_stock" else [x, other * x]
    merged = merge(method, xs, **usual(method))
    assert bool(torch.isfinite(merged).all())


@given(seeds, st.integers(1, 20), st.integers(2, 20), st.booleans())
def test_nuslerp_of_rows_is_nuslerp_of_each_row(
    seed: int, rows: int, columns: int, across: bool
) -> None:
    x, y = (t.view(rows, columns) for t in tensors(seed, 2, rows * columns))
    options = usual("nuslerp", weight=[0.3, 0.6], nuslerp_flatten=False)
    merged = merge("nuslerp", [x, y], **(options | {"nuslerp_row_wise": across}))
    if across:
        x, y, merged = x.T, y.T, merged.T
    for a, b, line in zip(x, y, merged, strict=True):
        flat = usual("nuslerp", weight=[0.3, 0.6])
        alone = merge("nuslerp", [a.contiguous(), b.contiguous()], **flat)
        assert close(line, alone, 1e-4)


@given(seeds, st.integers(2, 12), st.integers(2, 20))
def test_model_stock_of_filters_is_model_stock_of_each(seed: int, rows: int, columns: int) -> None:
    xs = [t.view(rows, columns) for t in tensors(seed, 4, rows * columns)]
    merged = merge("model_stock", xs, filter_wise=True)
    for i in range(rows):
        alone = merge("model_stock", [x[i].clone() for x in xs], filter_wise=False)
        assert close(merged[i], alone, 1e-3)


@given(seeds, sizes, st.floats(0, 1), st.floats(0, 0.5))
def test_breadcrumbs_keeps_a_window(seed: int, size: int, density: float, gamma: float) -> None:
    (x,) = tensors(seed, 1, size)
    merged = merge("breadcrumbs", [torch.zeros(size), x], weight=1.0, density=density, gamma=gamma)
    kept = int(density * size)
    cut = min(int(gamma * size), size - kept)
    order = sorted(range(size), key=lambda i: (-abs(float(x[i])), i))
    wanted = torch.zeros(size)
    wanted[order[cut : cut + kept]] = x[order[cut : cut + kept]]
    assert torch.equal(merged, wanted)


@given(seeds, st.integers(2, 30))
def test_della_keeps_large_elements_more_often(seed: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = 400
    x = torch.rand((rows, columns), generator=generator) + 0.1
    merged = merge(
        "della_linear",
        [torch.zeros_like(x), x],
        weight=1.0,
        density=0.5,
        epsilon=0.3,
        rescale=False,
        seed=seed,
    )
    kept = (merged != 0).gather(1, x.argsort(1))
    error = 5 * (0.25 / rows) ** 0.5
    assert abs(float(kept[:, 0].double().mean()) - 0.2) < error
    assert abs(float(kept[:, -1].double().mean()) - 0.8) < error
    rescaled = merge(
        "della_linear", [torch.zeros_like(x), x], weight=1.0, density=0.5, epsilon=0.3, seed=seed
    )
    assert float(rescaled.sum()) == pytest.approx(float(x.sum()), rel=1e-4)


def test_della_refuses_probabilities_outside_0_and_1() -> None:
    for density, epsilon in ((0.9, 0.2), (0.1, 0.1), (0.85, 0.15)):
        with pytest.raises(RecipeError, match="must lie between 0 and 1"):
            merge("della", tensors(0, 2, 9), weight=1.0, density=density, epsilon=epsilon)


@given(seeds, sizes, st.floats(0, 2))
def test_nearswap_steps_are_short(seed: int, size: int, t: float) -> None:
    base, x = tensors(seed, 2, size)
    merged = merge("nearswap", [base, x], t=t)
    assert float((merged - base).abs().max()) <= t * 1.0001 + 1e-6
    near = (x - base).abs() <= t
    assert close(merged[near], x[near])


@given(seeds, st.integers(8, 300))
def test_arcee_fusion_takes_whole_elements(seed: int, size: int) -> None:
    base, x = tensors(seed, 2, size)
    merged = merge("arcee_fusion", [base, x])
    taken = merged != base
    assert close(merged[taken], x[taken])
    # One row: the importance is the change times a constant. Half of the elements are below the
    # median, so they are never taken.
    change = (x - base).abs()
    assert int(taken.sum()) <= (size + 1) // 2
    if taken.any():
        assert float(change[taken].min()) >= float(change[~taken].max())


def test_ram_averages_what_is_shared() -> None:
    base = torch.zeros(5)
    x = torch.tensor([1.0, 2.0, 0.0, 0.0, 3.0])
    y = torch.tensor([3.0, 0.0, 4.0, 0.0, 5.0])
    assert merge("ram", [base, x, y]).tolist() == [2.0, 2.0, 4.0, 0.0, 4.0]
    # Two shared changes for one of their own each: rho = 2, and the factor is 1 + 0.5 min(2, 1).
    enlarged = merge("ramplus_tl", [base, x, y], r=0.5, alpha=1.0)
    assert enlarged.tolist() == [2.0, 3.0, 6.0, 0.0, 4.0]


@given(seeds, sizes, st.floats(0, 1))
def test_sce_selects_where_models_differ_most(seed: int, size: int, share: float) -> None:
    base, x, y = tensors(seed, 3, size)
    merged = merge("sce", [base, x, y], select_topk=share)
    kept = int(share * size)
    distance = (x - y).abs()
    changed = merged != base
    assert int(changed.sum()) <= kept
    if 0 < kept < size:
        smallest = float(distance.sort(descending=True).values[kept - 1])
        assert float(distance[changed].min()) >= smallest * (1 - 1e-5)


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
