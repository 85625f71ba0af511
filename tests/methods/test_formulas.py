"""Formulas do what kernels do, in every bit."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.engine.facts import FactStore, TensorFacts
from evomerge.engine.workspace import Workspace
from evomerge.methods import METHODS
from evomerge.methods.draws import draw_bound, draw_key
from evomerge.methods.exact import anchors
from evomerge.methods.fields import Sparse, TaskVector
from evomerge.methods.formulas import fields_formula, formula, sums
from evomerge.methods.interface import Kernel, Settings
from evomerge.methods.sparsifiers import Drop

FUSED = (
    "linear",
    "slerp",
    "task_arithmetic",
    "ties",
    "dare_ties",
    "dare_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "sce",
    "model_stock",
    "nuslerp",
    "multislerp",
    "karcher",
    "passthrough",
)


def facts_of(tensors: Sequence[torch.Tensor], workspace: Workspace) -> TensorFacts:
    return TensorFacts(
        FactStore(keep=True),
        [tensor.reshape(-1) for tensor in tensors],
        "abcdefgh"[: len(tensors)],
        workspace=workspace,
        draw=lambda i: draw_key(1, "tensor", str(i)),
        shape=tuple(tensors[0].shape),
    )


def kernel_of(method: str, facts: TensorFacts, count: int, **changes: Any) -> Kernel:
    spec = METHODS[method]
    has_base = not spec.base_is_source
    values = {p.name: changes.get(p.name, p.usual) for p in spec.parameters}
    shared = {p.name: values[p.name] for p in spec.parameters if not p.per_model}
    own = {p.name: values[p.name] for p in spec.parameters if p.per_model}
    sources = count - has_base
    each = tuple(
        {name: v[i] if isinstance(v, tuple) else v for name, v in own.items()}
        for i in range(sources)
    )
    return spec.load()(Settings(shared, each, has_base), facts)


def models(seed: int, count: int, shape: tuple[int, ...], kind: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    near = [base + 0.1 * torch.randn(shape, generator=generator) for _ in range(count - 1)]
    tensors = [base, *near]
    if kind == "bfloat16":
        return [tensor.bfloat16() for tensor in tensors]
    if kind == "sparse":
        return [base, *(torch.where(x > base, x, base) for x in near)]
    return tensors


@given(
    st.integers(0, 2**32),
    st.sampled_from(FUSED),
    st.integers(1, 40),
    st.sampled_from(["plain", "bfloat16", "sparse"]),
    st.booleans(),
)
@settings(max_examples=300)
def test_a_formula_equals_its_kernel(
    seed: int, method: str, rows: int, kind: str, normalize: bool
) -> None:
    spec = METHODS[method]
    count = spec.max_models or 4
    count += 1 if spec.base == "optional" and not spec.base_is_source else 0
    tensors = models(seed, count, (rows, 13), kind)
    workspace = Workspace(torch.device("cpu"))
    facts = facts_of(tensors, workspace)
    kernel = kernel_of(method, facts, count, normalize=normalize, select_topk=0.4)
    flat = [tensor.reshape(-1) for tensor in tensors]
    wanted = torch.empty(flat[0].numel())
    workspace.enter(flat, 0, wanted.numel())
    kernel(workspace, wanted)
    found = formula(kernel)
    assert found is not None
    inputs = [flat[i].float() for i in found.inputs]
    merged = torch.cat(
        [
            found.function(
                [x[start:stop] for x in inputs], [t[start:stop] for t in found.tensors], *numbers
            )
            for start, stop, *numbers in found.parts(wanted.numel())
        ]
    )
    assert torch.equal(merged, wanted)


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(FUSED)))
def test_other_methods_have_none(method: str) -> None:
    tensors = models(0, METHODS[method].max_models or 3, (4, 5), "plain")
    facts = facts_of(tensors, Workspace(torch.device("cpu")))
    assert formula(kernel_of(method, facts, len(tensors))) is None


@given(st.integers(0, 2**32), st.integers(1, 5000), st.floats(0.05, 0.95))
def test_sums_of_a_formula_equal_the_fact(seed: int, size: int, density: float) -> None:
    tensors = models(seed, 2, (size,), "plain")
    facts = facts_of(tensors, Workspace(torch.device("cpu"), 64))
    for field in (TaskVector(1), Sparse(1, Drop(facts.draws(1), draw_bound(density)))):
        found = fields_formula([field])
        assert found is not None
        values = found.function(tensors, list(found.tensors), found.floats, found.integers)
        bound = facts.extreme(0) + facts.extreme(1)
        grids = torch.tensor(anchors(bound, torch.float32))
        coarse, fine = sums(values, grids).tolist()
        assert coarse + fine == facts.total(field)
        exact = float(values.abs().double().sum())
        assert facts.total(field) == pytest.approx(exact, rel=1e-9)
