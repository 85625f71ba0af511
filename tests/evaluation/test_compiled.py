"""Compiled forward passes: real compilations of a tiny model on the CPU."""

import os
import shutil
import weakref
from pathlib import Path

import pytest
import torch

from evomerge.errors import EvaluationError
from evomerge.evaluation import EvaluationSettings, Evaluator, TaskSet, TaskSettings
from evomerge.evaluation.compiled import MOST_KINDS, compile_forward
from evomerge.workers import WorkerSpec
from evomerge.workers.hf_backend import HfBackend
from tests.conftest import evomerge, small_space
from tests.evaluation.conftest import make_checkpoint
from tests.evaluation.test_hf import build
from tests.evaluation.test_scoring import fill, load_set

# torch's compiler imports a part of torch that torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")

NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler"
)
TASKS = ("gen", "choice", "last_word")
SMALL = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24}


def num_graphs() -> int:
    """Return how much this process has compiled: one graph for each kind of call."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, Path]:
    """Two candidates of one shape, of one layer: compiling takes as long as the code is."""
    return tuple(
        make_checkpoint(tmp_path_factory.mktemp("small"), seed=seed, **SMALL) for seed in (1, 2)
    )


@pytest.fixture(scope="module")
def evaluators(task_dir, small) -> tuple[Evaluator, Evaluator]:
    """A compiled evaluator and one as usual, with the same items."""
    keys = {"task_dirs": [str(task_dir)], "batch_size": 64}
    compiled, usual = (
        Evaluator(load_set(task_dir, TASKS, compile=flag), build(small[0], compile=flag, **keys))
        for flag in (True, False)
    )
    return compiled, usual


@pytest.fixture
def pair(evaluators, small) -> tuple[Evaluator, Evaluator]:
    for each in evaluators:
        fill(each.live_model, small[0])
    return evaluators


def assert_near(compiled, usual) -> None:
    """Compiled code adds in another order: likelihoods differ by rounding, answers do not."""
    assert compiled.by_task.keys() == usual.by_task.keys()
    for name, task in usual.by_task.items():
        assert compiled.by_task[name].items == task.items
        assert compiled.by_task[name].values == pytest.approx(task.values, abs=1e-5), name


@NEEDS_COMPILER
def test_candidates_in_one_model_are_compiled_once(pair, small):
    compiled, usual = pair
    first = compiled.score("search")
    graphs = num_graphs()
    assert 0 < graphs <= MOST_KINDS
    assert_near(first, usual.score("search"))
    for each in pair:
        fill(each.live_model, small[1])
    other = compiled.score("search")
    assert other != first
    assert_near(other, usual.score("search"))
    fill(compiled.live_model, small[0])
    assert compiled.score("search") == first
    assert num_graphs() == graphs


@NEEDS_COMPILER
def test_batches_of_other_sizes_need_no_code_of_their_own(pair):
    compiled, usual = pair
    items = compiled.task_set.items("search")

    def compare(counts):
        for count in counts:
            some = {name: ids[-count:] for name, ids in items.items()}
            assert_near(compiled.score("search", some), usual.score("search", some))

    compare((20, 3))  # with padding and without
    graphs = num_graphs()
    assert graphs <= MOST_KINDS
    compare((19, 15, 11, 8, 5, 4))
    assert num_graphs() == graphs
    one = [{"last_word": items["last_word"][place : place + 1]} for place in (0, 1)]
    assert_near(compiled.score("search", one[0]), usual.score("search", one[0]))
    assert num_graphs() == graphs + 1
    assert_near(compiled.score("search", one[1]), usual.score("search", one[1]))
    assert num_graphs() == graphs + 1


@NEEDS_COMPILER
def test_out_of_memory_and_damaged_weights_are_answered_as_ever(pair):
    compiled, usual = pair
    live = compiled.live_model
    items = {"choice": compiled.task_set.items("search")["choice"]}
    compiled.score("search", items)
    graphs, before = num_graphs(), live.batch_size

    def full(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = live.model.register_forward_pre_hook(full)
    try:
        assert_near(compiled.score("search", items), usual.score("search", items))
    finally:
        hook.remove()
    assert live.batch_size == 16 < before
    live.parameters_by_name()["model.norm.weight"][3] = float("nan")
    with pytest.raises(EvaluationError, match="overflow or are damaged"):
        compiled.score("search", items)
    assert num_graphs() == graphs


@NEEDS_COMPILER
def test_slopes_are_found_uncompiled(task_dir, small):
    def slopes(flag):
        keys = {"task_dirs": [str(task_dir)], "search_items": 20, "compile": flag}
        wanted = [TaskSettings(name="choice", metric="acc", smooth="gold_probability")]
        tasks = TaskSet.load(wanted, EvaluationSettings(**keys), seed=0)
        return Evaluator(tasks, build(small[0], **keys)).gold_gradient("search")

    graphs = num_graphs()
    compiled, usual = slopes(True), slopes(False)
    assert num_graphs() == graphs
    assert compiled.value == usual.value
    assert all(torch.equal(compiled.by_name[name], usual.by_name[name]) for name in usual.by_name)


def test_a_model_that_cannot_be_compiled_says_so(monkeypatch):
    from torch._dynamo.exc import Unsupported

    def compile_nothing(_function, **_options):
        def refuse(*_arguments):
            raise Unsupported("no such operation\n\nSet TORCHDYNAMO_VERBOSE=1 for more")

        return refuse

    monkeypatch.setattr(torch, "compile", compile_nothing)
    model = torch.nn.Linear(2, 2)
    compile_forward(model)
    with pytest.raises(
        EvaluationError, match="Linear cannot be compiled: no such operation; leave"
    ):
        model(torch.ones(2))


def test_a_machine_without_a_compiler_is_told_before_anything_is_written(tmp_path):
    space = small_space(tmp_path / "space.yml", evaluation={"compile": True})
    nowhere = {"CXX": str(tmp_path / "no-such-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = evomerge("run", space, "--out", tmp_path / "run", **nowhere)
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert "evaluation.compile needs a C++ compiler" in message
    assert "no-such-compiler" in message
    assert "leave evaluation.compile out" in message
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    done = evomerge("check", space, **nowhere)
    assert done.returncode == 0
    assert "evaluation.compile needs a C++ compiler" in " ".join(done.stdout.split())


@NEEDS_COMPILER
def test_a_dropped_model_is_freed(small):
    spec = WorkerSpec((), (), EvaluationSettings(compile=True), seed=0, folder=".")
    backend = HfBackend(spec, {})
    backend._live = build(small[0], compile=True)
    gone = weakref.ref(backend._live.model)
    backend.drop()
    assert gone() is None


def test_results_are_kept_apart_from_uncompiled_ones(task_dir):
    usual, compiled = (
        load_set(task_dir, ("gen",), compile=flag).keys(device="cpu") for flag in (False, True)
    )
    assert usual != compiled


def test_vllm_compiles_by_itself():
    with pytest.raises(ValueError, match="vLLM compiles models by itself"):
        EvaluationSettings(backend="vllm", compile=True)
