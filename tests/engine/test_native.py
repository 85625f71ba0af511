"""Native loops give the bits of the blocked kernels and facts; compiled here for real."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from evomerge.engine import Bank, materialize, merge_to_disk, plan_merge
from evomerge.engine.divergence import FLOOR, row_divergence
from evomerge.engine.facts import FactStore
from evomerge.engine.magnitudes import STRETCH, row_ranks
from evomerge.engine.native import Native, magnitudes, native_loops, ranks, runs, sums
from evomerge.engine.native import divergence as divergences
from evomerge.engine.native.merging import begin_merge
from evomerge.engine.products import inner_products
from evomerge.engine.scan import FieldScan
from evomerge.engine.workspace import Workspace
from evomerge.errors import EvaluationError, PrerequisiteError
from evomerge.methods import METHODS
from evomerge.methods.draws import draw_bound, level_bound
from evomerge.methods.fields import Sparse, TaskVector, Variance
from evomerge.methods.interface import Kernel, Threshold
from evomerge.methods.linear import LinearCombination
from evomerge.methods.sce import Energy
from evomerge.methods.sparsifiers import Drop, RankedDrop, Selection, Trim, Window
from evomerge.methods.task_vectors import TaskVectors
from evomerge.recipe import Recipe, parse_recipe
from tests.engine import reference
from tests.methods.test_program import GROUPED, facts_of, kernel_of, models

CPU = torch.device("cpu")
SIZES = (1, 65, 40_021, 2_200_003)


@pytest.fixture(scope="module")
def native(request: pytest.FixtureRequest) -> Native:
    # Kept from run to run: what is there is still used, so that loading is tested too.
    return Native(Path(request.config.cache.mkdir("loops")))


def blocked(kernel: Kernel, tensors: list[torch.Tensor]) -> torch.Tensor:
    workspace = Workspace(CPU)
    wanted = torch.empty(tensors[0].numel())

    def merge(space: Workspace) -> None:
        kernel(space, space.result())
        wanted[space.start : space.start + space.result().numel()] = space.result()

    workspace.each(tensors, merge)
    return wanted


def fused(
    native: Native, kernel: Kernel, tensors: list[torch.Tensor], dtype: torch.dtype
) -> torch.Tensor:
    out = torch.empty(tensors[0].numel(), dtype=dtype)
    merging = begin_merge(native, kernel, tensors, dtype, out)
    assert merging is not None
    assert merging.wait() == (True, True)
    return out


@pytest.mark.parametrize(
    ("method", "flags"), [*((method, {}) for method in sorted(METHODS)), *GROUPED]
)
def test_every_method(native: Native, method: str, flags: dict[str, bool]) -> None:
    spec = METHODS[method]
    count = spec.max_models or 4
    count += 1 if spec.base == "optional" and not spec.base_is_source else 0
    tensors = models(3, count, (907, 67), "bfloat16")
    flat = [tensor.reshape(-1) for tensor in tensors]
    kernels = [
        kernel_of(
            method,
            facts_of(tensors, Workspace(CPU, native=loops)),
            count,
            **{"select_topk": 0.4, **flags},
        )
        for loops in (native, None)
    ]
    wanted = blocked(kernels[1], flat)
    assert torch.equal(fused(native, kernels[0], flat, torch.bfloat16), wanted.bfloat16())


@pytest.mark.parametrize("size", SIZES)
def test_every_kind_of_sparsifier_at_once(native: Native, size: int) -> None:
    tensors = models(size, 6, (size,), "bfloat16")
    facts = facts_of(tensors, Workspace(CPU))
    threshold = Threshold(0.1, size // 2)
    kernel = TaskVectors(
        weights=(0.5, 0.4, 0.3, -0.2, 0.1),
        gains=(0.5, 0.8, 0.6, -0.2, 0.1),
        sparsifiers=(
            Trim(threshold),
            Window(Trim(Threshold(0.05, None)), threshold),
            Drop(facts.draws(3), draw_bound(0.4)),
            RankedDrop(facts.draws(4), facts.ranks(4), draw_bound(0.2), 100),
            None,
        ),
        elect=True,
        normalize=True,
        scale=1.3,
    )
    wanted = blocked(kernel, tensors)
    assert torch.equal(fused(native, kernel, tensors, torch.bfloat16), wanted.bfloat16())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rounded", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("out", [torch.float32, torch.bfloat16, torch.float16])
def test_types(native: Native, kind: torch.dtype, rounded: torch.dtype, out: torch.dtype) -> None:
    numbers = torch.randn(1000) * 2.0 ** torch.randint(-30, 10, (1000,))
    source = numbers.to(kind)
    goal = torch.empty(1000, dtype=out)
    merging = begin_merge(native, LinearCombination((1.7,)), [source], rounded, goal)
    assert merging is not None
    assert merging.wait() == (True, True)
    wanted = (source.float() * 1.7).to(rounded).to(out)
    assert torch.equal(goal.view(-1), wanted)


def test_what_a_type_cannot_hold(native: Native) -> None:
    source = torch.full((70_000,), 60_000.0)
    source[69_999] = 40_000.0
    for factor, holds in ((1.0, True), (1.1, False)):
        goal = torch.empty(70_000, dtype=torch.float16)
        merging = begin_merge(native, LinearCombination((factor,)), [source], torch.float16, goal)
        assert merging is not None
        assert merging.wait() == (True, holds)


def test_largest(native: Native) -> None:
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        tensor = torch.randn(50_000).to(kind)
        assert magnitudes.largest(native, tensor) == float(tensor.float().abs().max())
    tensor[777] = float("-inf")
    assert magnitudes.largest(native, tensor) == float("inf")
    tensor[40_000] = float("nan")
    assert np.isnan(magnitudes.largest(native, tensor))


def test_sums(native: Native) -> None:
    tensors = models(5, 4, (50_021,), "plain")
    plain, fast = (facts_of(tensors, Workspace(CPU, native=loops)) for loops in (None, native))
    field = Sparse(1, Drop(plain.draws(1), draw_bound(0.3)))
    inputs = (0, 1, 2, 3)
    selection = Selection(Variance(inputs), plain.threshold(Variance(inputs), 9000))
    energies = [Energy(inputs, i, selection) for i in (1, 2, 3)]
    fields = [TaskVector(2), field, *energies]
    assert fast.totals(fields) == plain.totals(fields)
    # 0.25 is a level of the tables.
    level = Sparse(1, Drop(plain.draws(1), level_bound(1024)))
    assert fast.total(level) == plain.total(level)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("kind", ["plain", "bfloat16", "sparse"])
def test_thresholds(native: Native, kind: str, keep: bool) -> None:
    tensors = models(8, 3, (90_001,), kind)
    plain, fast = (
        facts_of(tensors, Workspace(CPU, native=loops), keep=keep) for loops in (None, native)
    )
    for field in (TaskVector(1), Variance((0, 1, 2))):
        for kept in (1, 2, 450, 45_000, 90_000, 90_001):
            assert fast.threshold(field, kept) == plain.threshold(field, kept)


@pytest.mark.parametrize("kind", ["plain", "bfloat16", "equal"])
@pytest.mark.parametrize("numel", [1, STRETCH, STRETCH + 1, 300_001])
def test_runs(native: Native, numel: int, kind: str) -> None:
    tensors = models(5, 2, (numel,), "plain" if kind == "plain" else "bfloat16")
    if kind == "equal":
        tensors[1] = tensors[0]
    for field in (TaskVector(1), Variance((0, 1))):
        found = runs.of_stretches(native, field, tensors, STRETCH)
        assert found is not None
        plain = FieldScan(field, tensors, Workspace(CPU))
        assert np.array_equal(runs.rising(native, field, tensors), plain.rising())
        wanted = plain.runs()
        for mine, other in zip(found, wanted, strict=True):
            assert mine[0] == other[0]
            assert np.array_equal(mine[1], other[1])
            assert np.array_equal(mine[2], other[2])


@pytest.mark.parametrize("kind", ["plain", "bfloat16", "outlier", "tiny", "equal", "huge"])
@pytest.mark.parametrize("deltas", [True, False])
def test_inner_products(native: Native, deltas: bool, kind: str) -> None:
    tensors = models(5, 3, (300_001,), "plain" if kind == "plain" else "bfloat16")
    if kind == "outlier":
        tensors[1][123_456] = 1e4
    elif kind == "tiny":
        tensors = [tensor * 1e-25 for tensor in tensors]
    elif kind == "equal":
        tensors[1] = tensors[0]
    elif kind == "huge":  # no float32 holds these products
        tensors = [tensor * 1e30 for tensor in tensors]
    pairs = [(0, 0), (1, 1), (1, 2), (2, 2)]
    fast = inner_products(pairs, tensors, Workspace(CPU, native=native), deltas=deltas)
    assert inner_products(pairs, tensors, Workspace(CPU), deltas=deltas) == fast
    assert sums.products(native, pairs, tensors, deltas=deltas) == fast or kind == "huge"
    vectors = [x.float() - tensors[0].float() if deltas else x for x in tensors]
    wanted = [float(vectors[i].double().dot(vectors[j].double())) for i, j in pairs]
    scale = [float(vectors[i].double().norm() * vectors[j].double().norm()) for i, j in pairs]
    off = 1e-30 if kind == "tiny" else 0.0  # the finest grid
    for found, exact, size in zip(fast, wanted, scale, strict=True):
        assert found == pytest.approx(exact, rel=0.0, abs=1e-7 * size + off)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inner_products_of_what_is_not_finite(native: Native, value: float) -> None:
    tensors = models(5, 2, (300_001,), "bfloat16")
    tensors[1][299_999] = value
    for loops in (native, None):
        (found,) = inner_products([(1, 1)], tensors, Workspace(CPU, native=loops), deltas=True)
        assert not np.isfinite(found)


@pytest.mark.parametrize("kind", ["plain", "bfloat16", "outlier", "tiny", "nothing"])
@pytest.mark.parametrize("row", [1, 5, 767, 40_000])
def test_ranks(native: Native, row: int, kind: str) -> None:
    tensors = models(9, 2, (3, row), "plain" if kind == "plain" else "bfloat16")
    if kind == "outlier":  # all others are in one bin
        tensors[1][1, row // 2] = 1e30
    elif kind == "tiny":
        tensors = [tensor * 1e-36 for tensor in tensors]
    elif kind == "nothing":
        tensors[1] = tensors[0]
    flat = [tensor.reshape(-1) for tensor in tensors]
    found = ranks.of_task_vector(native, 1, flat, row)
    assert found is not None
    wanted = row_ranks((flat[1].float() - flat[0].float()).abs(), row)
    assert found.dtype == wanted.dtype
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("row", [1, 2, 5, 64, 767, 40_000])
@pytest.mark.parametrize("size", [0.02, 3.0, 60_000.0, 1e38])
def test_divergence(native: Native, size: float, row: int, kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(row)
    noise = [torch.randn(7, row, generator=generator).clamp_(-3.0, 3.0) for _ in range(2)]
    largest = torch.finfo(kind).max
    x = (noise[0] * size).clamp_(-largest, largest).to(kind)
    y = (noise[0] * size + noise[1] * size / 10).clamp_(-largest, largest).to(kind)
    blocks = row_divergence(x, y)
    found = divergences.of_rows(native, 0, 1, [x.reshape(-1), y.reshape(-1)], row)
    assert found is not None
    assert torch.equal(found, blocks)
    p, q = (torch.softmax(z.double(), 1) + FLOOR for z in (x, y))
    assert torch.allclose(blocks.double(), (p * (p / q).log()).sum(1), rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("loops", [True, False])
def test_magnitudes_in_order(native: Native, loops: bool, keep: bool) -> None:
    tensors = models(8, 2, (90_001,), "bfloat16")
    facts = facts_of(tensors, Workspace(CPU, native=native if loops else None), keep=keep)
    places = [0, 1, 22_500, 45_000, 89_999, 90_000]
    wanted = (tensors[1].float() - tensors[0].float()).abs().sort().values[places]
    for _ in range(2):
        assert facts.ordered(TaskVector(1), places) == wanted.tolist()


def test_what_it_leaves_alone(native: Native) -> None:
    kernel = LinearCombination((0.5, 0.5))
    wide = [torch.ones(9, dtype=torch.float64)] * 2
    assert begin_merge(native, kernel, wide, torch.float32, torch.empty(9)) is None
    gaps = [torch.ones(18)[::2]] * 2
    assert begin_merge(native, kernel, gaps, torch.float32, torch.empty(9)) is None
    empty = [torch.ones(0)] * 2
    assert begin_merge(native, kernel, empty, torch.float32, torch.empty(0)) is None


@pytest.mark.parametrize("place", ["source", "rounded", "out"])
def test_a_processor_without_float16(
    native: Native, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def merge() -> object:
        kinds = {
            name: torch.float16 if name == place else torch.float32
            for name in ("source", "rounded", "out")
        }
        sources = [torch.ones(9, dtype=kinds["source"])] * 2
        goal = torch.empty(9, dtype=kinds["out"])
        return begin_merge(native, LinearCombination((0.5, 0.5)), sources, kinds["rounded"], goal)

    assert merge() is not None
    monkeypatch.setattr("evomerge.engine.native.jobs.has_half", lambda: False)
    assert merge() is None


def test_code_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    kernel, tensors = LinearCombination((0.5, 0.25)), [torch.ones(9), torch.ones(9)]
    for _ in range(2):
        assert fused(Native(tmp_path), kernel, tensors, torch.float32).tolist() == [0.75] * 9
        (file,) = tmp_path.glob("*.o")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    loops = Native(tmp_path / "file" / "loops")
    kernel, tensors = LinearCombination((0.5, 0.125)), [torch.ones(9), torch.ones(9)]
    assert fused(loops, kernel, tensors, torch.float32).tolist() == [0.625] * 9


def test_kept_code_needs_no_compiler(tmp_path: Path) -> None:
    text = """
import sys, torch
from pathlib import Path
from evomerge.engine.native import Native
from evomerge.engine.native.merging import begin_merge
from evomerge.methods.linear import LinearCombination
out = torch.empty(9)
tensors = [torch.ones(9), torch.ones(9)]
native = Native(Path(sys.argv[1]))
print(*begin_merge(native, LinearCombination((0.5, 0.5)), tensors, out.dtype, out).wait())
print(out.tolist() == [1.0] * 9, "numba" in sys.modules)
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", text, str(tmp_path)], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert outputs == [["True", "True", "True", "True"], ["True", "True", "True", "False"]]


def test_a_failing_compiler_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such flag")

    monkeypatch.setattr("evomerge.engine.native.code._compile", fail)
    loops = Native(tmp_path)
    inputs, goal = [torch.ones(9)] * 2, torch.empty(9)
    for _ in range(2):
        assert (
            begin_merge(loops, LinearCombination((0.5, 0.5)), inputs, torch.float32, goal) is None
        )
    assert caplog.text.count("the slower way is taken: no such flag") == 1


def test_a_failed_candidate_leaves_nothing_running(native: Native) -> None:
    recipe = reference.simple("task_arithmetic", out_dtype="float16")
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    bank = Bank(checkpoints, "cpu")
    bank.workspace.native = native
    name = plan.outputs[3].inputs[1]
    bank.tensor(*name).view(-1)[5] = float("nan")
    out = {tensor.name: torch.empty(tensor.shape) for tensor in plan.outputs}
    with pytest.raises(EvaluationError, match="NaN or infinite"):
        materialize(plan, bank, out, seed=0)


def fitting(method: str) -> Recipe:
    """Return a recipe for as many of three models as a method takes."""
    spec = METHODS[method]
    data = reference.simple("ties").to_dict() | {"merge_method": method}
    if spec.base != "required":
        del data["base_model"]
    room = spec.max_models or 3
    data["models"] = data["models"][: room - ("base_model" in data)]
    if method in ("slerp", "nearswap"):
        data["parameters"] = {"t": 0.3}
    return parse_recipe(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("choice", ["never", "always"])
@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_source_is_named(
    method: str, choice: str, value: float, monkeypatch: pytest.MonkeyPatch, native: Native
) -> None:
    monkeypatch.setenv("EVOMERGE_COMPILE", choice)
    monkeypatch.setenv("EVOMERGE_CACHE", str(native.folder.parent))
    recipe = fitting(method)
    checkpoints = reference.checkpoints(recipe)
    plan = plan_merge(recipe, checkpoints)
    out = {each.name: torch.empty(each.shape) for each in plan.outputs}
    for model, name in plan.outputs[3].inputs:
        for keep in (True, False):
            bank = Bank(checkpoints, "cpu")
            bank.facts = FactStore(keep=keep)
            bank.tensor(model, name).view(-1)[5] = value
            with pytest.raises(EvaluationError, match=f"{name}.* of {model} has 1 values that are"):
                materialize(plan, bank, out, seed=0)


def test_a_damaged_source_that_takes_no_part_is_named(
    monkeypatch: pytest.MonkeyPatch, native: Native
) -> None:
    monkeypatch.setenv("EVOMERGE_COMPILE", "always")
    monkeypatch.setenv("EVOMERGE_CACHE", str(native.folder.parent))
    data = fitting("linear").to_dict()
    data["models"][1]["parameters"] = {"weight": 0.0}
    recipe = parse_recipe(data)
    checkpoints = reference.checkpoints(recipe)
    plan, bank = plan_merge(recipe, checkpoints), Bank(checkpoints, "cpu")
    model, name = plan.outputs[3].inputs[1]
    bank.tensor(model, name).view(-1)[5] = float("nan")
    out = {each.name: torch.empty(each.shape) for each in plan.outputs}
    with pytest.raises(EvaluationError, match=f"{name}.* of {model} has 1 values"):
        materialize(plan, bank, out, seed=0)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "della", "model_stock", "sce"])
def test_memory_and_disk(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: Native
) -> None:
    recipe = reference.simple(method, out_dtype="bfloat16")
    results: list[dict[str, Any]] = []
    for choice in ("never", "always"):
        monkeypatch.setenv("EVOMERGE_COMPILE", choice)
        monkeypatch.setenv("EVOMERGE_CACHE", str(native.folder.parent))
        checkpoints = reference.checkpoints(recipe)
        plan = plan_merge(recipe, checkpoints)
        bank = Bank(checkpoints, "cpu")
        assert (bank.workspace.native is None) is (choice == "never")
        out = {t.name: torch.empty(t.shape, dtype=torch.bfloat16) for t in plan.outputs}
        materialize(plan, bank, out, seed=3)
        merge_to_disk(recipe, tmp_path / choice, seed=3)
        results += [out, load_file(tmp_path / choice / "model.safetensors")]
    for other in results[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in results[0].items())


def test_when_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVOMERGE_COMPILE", raising=False)
    assert native_loops(CPU, 1_000_000) is None
    assert native_loops(CPU, 200_000_000) is not None
    monkeypatch.setenv("EVOMERGE_COMPILE", "always")
    assert native_loops(CPU, 1) is not None
    monkeypatch.setenv("EVOMERGE_COMPILE", "never")
    assert native_loops(CPU, 10**10) is None
    monkeypatch.setenv("EVOMERGE_COMPILE", "sometimes")
    with pytest.raises(PrerequisiteError, match="want auto, never, always"):
        native_loops(CPU, 1)
