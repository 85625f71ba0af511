"""A worker: nothing that a candidate does ends it."""

import pytest

from evomerge.evaluation import EvaluationSettings
from evomerge.search import worker_spec
from evomerge.search.baselines import parent_recipe
from evomerge.space import load_space
from evomerge.workers import Assignment, Failed, Scored, WorkerSpec, open_pool
from tests.conftest import ROOT, small_space

ADD = str(ROOT / "search_spaces" / "playground" / "add")


@pytest.fixture
def pool(tmp_path):
    space = load_space(small_space(tmp_path / "space.yml"))
    with open_pool(worker_spec(space, device="cpu")) as pool:
        yield pool


def score(pool, recipe, number=0):
    pool.submit(Assignment(number, recipe, "search"))
    return pool.wait()


def test_it_says_what_it_loaded(pool):
    assert pool.info.items["search"] == {"playground_add": 40, "playground_sort": 40}
    assert pool.info.items["holdout"] == {"playground_add": 60, "playground_sort": 60}
    assert pool.info.objective == {"playground_add": 0.5, "playground_sort": 0.5}
    assert pool.info.bank_bytes >= 4 * 680_000


@pytest.mark.parametrize(
    ("device", "backend", "gpus"), [("cpu", "vllm", 0), ("cuda", "vllm", 4), ("cuda:0", "hf", 1)]
)
def test_a_tensor_parallel_worker_takes_several_gpus(device, backend, gpus):
    evaluation = EvaluationSettings(backend=backend, vllm={"tensor_parallel_size": 4})
    assert WorkerSpec((), (), evaluation, 0, ".", device).num_gpus == gpus


def test_one_assignment_at_a_time(pool):
    assert pool.num_free() == 1
    pool.submit(Assignment(0, parent_recipe(ADD), "search"))
    assert (pool.num_free(), pool.num_busy()) == (0, 1)
    with pytest.raises(RuntimeError, match="trial 0 is under way"):
        pool.submit(Assignment(1, parent_recipe(ADD), "search"))
    assert isinstance(pool.wait(), Scored)
    with pytest.raises(RuntimeError, match="nothing is under way"):
        pool.wait()


def test_a_candidate_that_raises_fails_and_the_next_one_is_scored_as_ever(pool, monkeypatch):
    before = score(pool, parent_recipe(ADD))
    evaluator = pool._worker._evaluator

    def broken(split, items):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(evaluator, "score", broken)
    failed = score(pool, parent_recipe(ADD), number=7)
    assert isinstance(failed, Failed)
    assert (failed.number, failed.reason) == (7, "RuntimeError: out of luck")
    after = score(pool, parent_recipe(ADD))
    assert after.scores.by_task == before.scores.by_task


def test_parents_and_merges_share_the_live_model(pool):
    base = str(ROOT / "search_spaces" / "playground" / "base")
    mixed = {
        "merge_method": "linear",
        "models": [{"model": m, "parameters": {"weight": 0.5}} for m in (base, ADD)],
        "dtype": "float16",
    }
    used = set()
    for recipe in (parent_recipe(ADD), parent_recipe(base), mixed):
        assert isinstance(score(pool, recipe), Scored)
        used.add(id(pool._worker._evaluator.live_model))
    assert len(used) == 1


def test_a_recipe_that_cannot_be_planned_fails_with_its_reason(pool):
    recipe = {"merge_method": "slerp", "models": [{"model": ADD}], "parameters": {"t": 0.5}}
    failed = score(pool, recipe)
    assert isinstance(failed, Failed)
    assert "base_model" in failed.reason


def test_a_tokenizer_and_chat_template_made_for_the_recipe_reach_the_live_model(pool):
    tokens = {"<new>": {"source": {"kind": "zero"}}}
    recipe = {
        **parent_recipe(ADD),
        "tokenizer": {"source": "base", "tokens": tokens},
        "chat_template": "mine {{ messages }}",
    }
    plain = score(pool, parent_recipe(ADD))
    assert isinstance(plain, Scored)
    size = len(pool._worker._evaluator.live_model.lm.tokenizer)
    assert isinstance(score(pool, recipe), Scored)
    live = pool._worker._evaluator.live_model
    assert live.lm.tokenizer.get_vocab()["<new>"] == size
    assert live.lm.tokenizer.chat_template == "mine {{ messages }}"
    assert live.model.get_input_embeddings().weight.shape[0] == size + 1
    assert score(pool, parent_recipe(ADD)).scores.by_task == plain.scores.by_task
