"""Compiled formulas give the bits of the blocked kernels; compiled here for real."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from evomerge.engine.compiled import SMALLEST, CompiledFormulas, compiled_formulas
from evomerge.engine.workspace import Workspace
from evomerge.errors import PrerequisiteError
from evomerge.methods.draws import draw_bound
from evomerge.methods.exact import anchors
from evomerge.methods.fields import Sparse, Variance
from evomerge.methods.interface import Threshold
from evomerge.methods.linear import LinearCombination
from evomerge.methods.sce import Energy
from evomerge.methods.sparsifiers import Drop, RankedDrop, Selection, Trim, Window
from evomerge.methods.task_vectors import TaskVectors
from tests.methods.test_formulas import facts_of, models

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompiledFormulas:
    made = CompiledFormulas(CPU, build=True, folder=tmp_path_factory.mktemp("kernels"))
    if not made.build:
        pytest.skip("no C++ compiler")
    return made


def test_every_kind_of_sparsifier_at_once(compiled: CompiledFormulas) -> None:
    for size, magnitude in ((SMALLEST, 0.1), (3 * SMALLEST + 17, 0.07)):
        tensors = models(size, 6, (size,), "bfloat16")
        facts = facts_of(tensors, Workspace(CPU))
        threshold = Threshold(magnitude, size // 2)
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
        workspace = Workspace(CPU)
        wanted = torch.empty(size)
        for start in range(0, size, workspace.block):
            stop = min(start + workspace.block, size)
            workspace.enter(tensors, start, stop)
            kernel(workspace, workspace.result())
            wanted[start:stop] = workspace.result()
        out = torch.empty(size, dtype=torch.bfloat16)
        check = compiled.merge(kernel, tensors, torch.bfloat16, out)
        assert check is not None
        assert torch.equal(out, wanted.bfloat16())
        assert float(check) == 0.0
        tensors[5][7] = 3e38
        larger = dataclasses.replace(kernel, scale=1e9)
        assert math.isnan(float(compiled.merge(larger, tensors, torch.bfloat16, out)))


def test_the_sum_of_what_a_drop_leaves(compiled: CompiledFormulas) -> None:
    tensors = models(5, 2, (50_021,), "plain")
    plain = facts_of(tensors, Workspace(CPU))
    field = Sparse(1, Drop(plain.draws(1), draw_bound(0.3)))
    bound = plain.extreme(0) + plain.extreme(1)
    assert compiled.totals([field], tensors, bound) == [plain.total(field)]
    assert anchors(bound, torch.float32)[0] > bound


def test_the_energies_of_selected_elements(compiled: CompiledFormulas) -> None:
    tensors = models(6, 4, (40_000,), "bfloat16")
    plain = facts_of(tensors, Workspace(CPU))
    inputs = (0, 1, 2, 3)
    selection = Selection(Variance(inputs), plain.threshold(Variance(inputs), 9000))
    fields = [Energy(inputs, i, selection) for i in (1, 2, 3)]
    bound = max(field.bound([plain.extreme(i) for i in inputs]) for field in fields)
    assert compiled.totals(fields, tensors, bound) == plain.totals(fields)


def test_what_it_leaves_alone(compiled: CompiledFormulas) -> None:
    kernel = LinearCombination((0.5, 0.5))
    small = [torch.ones(SMALLEST - 1)] * 2
    assert compiled.merge(kernel, small, torch.float32, torch.empty(SMALLEST - 1)) is None
    wide = [torch.ones(SMALLEST, dtype=torch.float64)] * 2
    assert compiled.merge(kernel, wide, torch.float32, torch.empty(SMALLEST)) is None


def test_a_failing_compiler_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such flag")

    monkeypatch.setattr("evomerge.engine.compiled._compile", fail)
    monkeypatch.setattr("evomerge.engine.compiled._has_compiler", lambda: True)
    made = CompiledFormulas(CPU, build=True, folder=tmp_path)
    inputs = [torch.ones(SMALLEST)] * 2
    goal = torch.empty(SMALLEST)
    for _ in range(2):
        assert made.merge(LinearCombination((0.5, 0.5)), inputs, torch.float32, goal) is None
    assert not made.build
    assert caplog.text.count("the slower way is taken: no such flag") == 1


def test_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVOMERGE_COMPILE", raising=False)
    assert compiled_formulas(CPU, 1_000_000, resident=True) is None
    streamed = compiled_formulas(CPU, 200_000_000, resident=False)
    assert streamed is not None
    assert not streamed.build
    monkeypatch.setenv("EVOMERGE_COMPILE", "never")
    assert compiled_formulas(CPU, 10**10, resident=True) is None
    monkeypatch.setenv("EVOMERGE_COMPILE", "sometimes")
    with pytest.raises(PrerequisiteError, match="want auto, never, always"):
        compiled_formulas(CPU, 1, resident=True)
