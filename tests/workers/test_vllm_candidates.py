"""Candidate after candidate in one vLLM engine: hf's answers, whatever the engine held before.

Runs in an environment of its own: scripts/test_vllm.sh.
"""

import pytest

from evomerge.workers import Failed
from tests.evaluation.conftest import make_tasks
from tests.workers.vllm_cases import (
    NEEDS_VLLM,
    answers,
    candidates,
    make_models,
    make_worker,
    scaled,
    score,
)

pytestmark = NEEDS_VLLM

TOLERANCE = 1e-4
"""Largest difference of a log-likelihood between the backends, in nats (docs/evaluation.md)."""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return str(make_tasks(tmp_path_factory.mktemp("space") / "tasks"))


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def models(request, tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"), tie_word_embeddings=request.param)


@pytest.fixture(scope="module")
def vllm(models, tasks):
    worker = make_worker("vllm", models, tasks)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def hf(models, tasks):
    return make_worker("hf", models, tasks)


def differences(got, expected):
    """Return how far log-likelihoods are apart, wanting equal texts and equal greedy tokens."""
    assert got.keys() == expected.keys()
    for key, answer in got.items():
        if isinstance(answer, str):
            assert answer == expected[key], key
        elif isinstance(answer, tuple):
            assert answer[1] == expected[key][1], key
            yield abs(answer[0] - expected[key][0])
        else:
            yield abs(answer - expected[key])


def same(one, other):
    """Return whether scores and answers are equal in all bits; a diff would take minutes."""
    return (one[0].by_task, one[1]) == (other[0].by_task, other[1])


def test_the_answers_of_hf_and_the_first_candidate_again_bit_by_bit(vllm, hf, models):
    known = candidates(models)
    first = answers(vllm, known["parent"])
    texts = set()
    for name in (*known, "parent"):
        ours, got = answers(vllm, known[name])
        theirs, expected = answers(hf, known[name])
        assert max(differences(got, expected)) < TOLERANCE, name
        for task, items in ours.by_task.items():
            assert items.items == theirs.by_task[task].items
            assert items.values == pytest.approx(theirs.by_task[task].values, abs=TOLERANCE)
        texts.update(answer for answer in got.values() if isinstance(answer, str))
    assert len(texts) > 10
    assert same((ours, got), first)
    assert vllm._backend.starts == 1
    requests = vllm._evaluator._requests["gen_filters"]
    prompts = [instances[0].args[0] for instances in requests.values()]
    assert min(map(len, prompts)) > 128  # characters are tokens; a block of the prefix cache


def test_weights_in_the_engine_are_those_of_the_export(vllm, models, tmp_path):
    import torch
    from safetensors.torch import load_file

    from evomerge.documents import Origin
    from evomerge.engine import merge_to_disk
    from evomerge.recipe import parse_recipe

    def weights(model):
        """Return every weight; a packed one by what it does to the unit vectors."""
        found = {}
        for name, module in model.named_modules():
            weight = getattr(module, "weight", None)
            if hasattr(module, "cpu_linear"):
                size = SIZES.get(name.rpartition(".")[2], 64)
                found[name] = module.quant_method.apply(module, torch.eye(size)).T
            elif isinstance(weight, torch.nn.Parameter):
                found[name] = weight.clone()
        return found

    answers(vllm, candidates(models)["between"])
    recipe = candidates(models)["random"]
    answers(vllm, recipe)
    # In this process only: functions are not sent to other ones.
    (live,) = vllm._backend._model.lm.engine.apply_model(weights)
    merge_to_disk(parse_recipe(recipe, Origin("test")), tmp_path / "out", seed=3)
    saved = load_file(tmp_path / "out" / "model.safetensors")
    head = "model.embed_tokens.weight"
    compared = set()
    for name, tensor in live.items():
        parts = [f"{name}.weight"]
        for fused, single in FUSED.items():
            if name.endswith(fused):
                parts = [f"{name.replace(fused, part)}.weight" for part in single]
        expected = torch.cat([saved[part if part in saved else head] for part in parts])
        assert torch.equal(tensor[: len(expected)], expected.float()), name
        compared.update(part for part in parts if part in saved)
    assert compared == set(saved)
    assert "lm_head" in live


SIZES = {"down_proj": 96}
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"weight": 1e9, "out_dtype": "float16"}, "values that float16 cannot hold"),
        ({"weight": 1e15}, "logits are NaN or infinite: the candidate's weights overflow"),
    ],
)
def test_a_broken_candidate_fails_and_leaves_nothing_behind(vllm, models, broken, reason):
    good = candidates(models)["mixed"]
    before = answers(vllm, good)
    starts = vllm._backend.starts
    failed = score(vllm, scaled(models, **broken))
    assert isinstance(failed, Failed)
    assert reason in failed.reason
    assert same(answers(vllm, good), before)
    assert vllm._backend.starts == starts


def test_an_engine_that_broke_while_loading_is_replaced(vllm, models, monkeypatch):
    from evomerge.workers.vllm_extension import MergeExtension

    def half(self):
        tensors = list(self.evomerge_sources.merged.items())

        def stop():
            yield from tensors[: len(tensors) // 2]
            raise RuntimeError("the other half is lost")

        self.reload_weights(weights_iterator=stop())

    check_replaced(vllm, models, monkeypatch, MergeExtension, "evomerge_load", half)


def test_an_engine_that_broke_while_scoring_is_replaced(vllm, models, monkeypatch):
    def lost(*_arguments, **_options):
        raise RuntimeError("the other half is lost")

    answers(vllm, candidates(models)["mixed"])
    engine = vllm._backend._model.lm.engine
    check_replaced(vllm, models, monkeypatch, engine, "generate", lost)


def check_replaced(vllm, models, monkeypatch, owner, name, broken):  # noqa: PLR0917
    good = candidates(models)["mixed"]
    before = answers(vllm, good)
    starts = vllm._backend.starts
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        failed = score(vllm, candidates(models)["between"])
    assert isinstance(failed, Failed)
    assert "the other half is lost" in failed.reason
    assert same(answers(vllm, good), before)
    assert vllm._backend.starts == starts + 1
