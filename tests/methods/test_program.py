"""Programs do what kernels do, in every bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.engine.facts import FactStore, TensorFacts
from evomerge.engine.workspace import Workspace
from evomerge.methods import METHODS
from evomerge.methods.draws import draw_bound, draw_key
from evomerge.methods.fields import Sparse, TaskVector
from evomerge.methods.grouped import GroupedCombination
from evomerge.methods.interface import Kernel, Settings
from evomerge.methods.linear import LinearCombination
from evomerge.methods.program import Program, written
from evomerge.methods.sparsifiers import Drop

GROUPED = (
    ("model_stock", {"filter_wise": True}),
    ("nuslerp", {"nuslerp_flatten": False}),
    ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
)
"""Methods with factors for groups of elements, and the settings that make them so."""

NUMPY: dict[str, Any] = {
    "F": np.float32,
    "I": lambda value: np.asarray(value).astype(np.int32),
    "where": np.where,
    "at_least": np.maximum,
    "abs": np.abs,
    "quotient": np.floor_divide,
}
"""The language of programs, for arrays."""


def evaluate(program: Program, tensors: Sequence[torch.Tensor]) -> list[np.ndarray[Any, Any]]:
    """Return the results of a program for all elements, stretch by stretch."""
    numel = tensors[0].numel()
    found = []
    for part in program.parts(numel):
        names = {f"f{i}": number for i, number in enumerate(part.floats)}
        names |= {f"n{i}": np.int64(number) for i, number in enumerate(part.integers)}
        here = slice(part.start, part.stop)
        names |= {f"x{i}": tensors[k][here].float().numpy() for i, k in enumerate(program.inputs)}
        names["index"] = names["i"] = np.arange(part.start, part.stop)
        for i, (tensor, place) in enumerate(zip(program.tensors, program.places, strict=True)):
            numbers = tensor.numpy()[eval(place, NUMPY, names)]  # noqa: S307 - our own
            names[f"t{i}"] = numbers if tensor.is_floating_point() else numbers.astype(np.int64)
        for line in program.lines:
            exec(line, NUMPY, names)  # noqa: S102 - our own lines
        results = [names[name] for name in program.results]
        found.append([np.broadcast_to(value, part.stop - part.start) for value in results])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def facts_of(
    tensors: Sequence[torch.Tensor], workspace: Workspace, *, keep: bool = True
) -> TensorFacts:
    return TensorFacts(
        FactStore(keep=keep),
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
    st.sampled_from(sorted(METHODS)),
    st.integers(1, 40),
    st.sampled_from(["plain", "bfloat16", "sparse"]),
    st.booleans(),
)
@settings(max_examples=300)
def test_a_program_equals_its_kernel(
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
    program = written(kernel)
    assert program is not None
    (merged,) = evaluate(program, flat)
    assert np.array_equal(merged, wanted.numpy())


@pytest.mark.parametrize(("method", "flags"), GROUPED)
def test_groups_of_elements(method: str, flags: dict[str, bool]) -> None:
    tensors = models(4, 3, (5, 13), "plain")
    space = Workspace(torch.device("cpu"))
    kernel = kernel_of(method, facts_of(tensors, space), 3, **flags)
    assert isinstance(kernel, GroupedCombination)
    flat, wanted = [tensor.reshape(-1) for tensor in tensors], torch.empty(65)
    space.enter(flat, 0, 65)
    kernel(space, wanted)
    program = written(kernel)
    assert program is not None
    (merged,) = evaluate(program, flat)
    assert np.array_equal(merged, wanted.numpy())


def test_what_cannot_be_written() -> None:
    assert written(LinearCombination((1.0,)), object()) is None


@given(st.integers(0, 2**32), st.integers(1, 5000), st.floats(0.05, 0.95))
def test_fields_equal_what_is_added_up(seed: int, size: int, density: float) -> None:
    tensors = models(seed, 2, (size,), "plain")
    facts = facts_of(tensors, Workspace(torch.device("cpu"), 64))
    for field in (TaskVector(1), Sparse(1, Drop(facts.draws(1), draw_bound(density)))):
        program = written(field)
        assert program is not None
        (values,) = evaluate(program, tensors)
        exact = float(np.abs(values.astype(np.float64)).sum())
        assert facts.total(field) == pytest.approx(exact, rel=1e-9)


def test_one_form_serves_all_numbers() -> None:
    programs = [written(LinearCombination(weights)) for weights in ((0.5, 0.5), (0.3, 0.7))]
    keys = [program.key() for program in programs if program is not None]
    assert keys[0] == keys[1]
    other = written(LinearCombination((0.5, 0.0)))
    assert other is not None
    assert other.key() != keys[0]
