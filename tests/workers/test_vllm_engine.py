"""Starting vLLM: prerequisites, refusals, samples, quantization.

Runs in an environment of its own: scripts/test_vllm.sh.
"""

import pytest

from evomerge.errors import EvaluationError, PrerequisiteError
from evomerge.evaluation import TaskSettings
from evomerge.workers import Assignment
from tests.evaluation.conftest import make_tasks
from tests.workers.vllm_cases import (
    ENGINE,
    NEEDS_VLLM,
    TASKS,
    answers,
    candidates,
    make_models,
    make_worker,
    score,
)

pytestmark = NEEDS_VLLM


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return str(make_tasks(tmp_path_factory.mktemp("space") / "tasks"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"), tie_word_embeddings=False)


def test_what_cannot_run_is_said_before_anything_starts(models, tasks):
    def refuse(error, match, **settings):
        with pytest.raises(error, match=match):
            make_worker("vllm", models, tasks, **settings)

    refuse(PrerequisiteError, "CUDA_VISIBLE_DEVICES=1", device="cuda:1")
    refuse(PrerequisiteError, "the installed vLLM runs on 'cpu'", device="cuda")
    refuse(EvaluationError, "did you mean 'max_model_len'", vllm={"max_modellen": 128})
    refuse(
        EvaluationError,
        "vllm generates with no option 'temprature'; did you mean 'temperature'",
        gen_kwargs={"temprature": 1.0},
    )


def test_an_engine_that_never_starts_is_tried_once(models, tasks):
    engine = {**ENGINE, "max_model_len": 10_000}
    worker = make_worker("vllm", models, tasks, vllm=engine)
    reasons = [score(worker, recipe).reason for recipe in candidates(models).values()]
    assert "vLLM did not start" in reasons[0]
    assert "max_model_len" in reasons[0]
    assert len(set(reasons)) == 1


def test_samples_and_weights_that_no_source_has(models, tasks):
    """Fewer layers than every source: the engine starts from the merge itself."""
    sampled = {"do_sample": True, "temperature": 1.5}
    worker = make_worker("vllm", models, tasks, wanted=TASKS[:1], gen_kwargs=sampled)

    def cut(model):
        source = {"model": models[model], "layer_range": [1, 2]}
        return {"merge_method": "passthrough", "slices": [{"sources": [source]}]}

    _, first = answers(worker, cut("a"))
    assert len(set(first.values())) > 6
    assert answers(worker, cut("b"))[1] != first
    assert answers(worker, cut("a"))[1] == first
    assert worker._backend.starts == 1
    worker.close()


def test_a_chat_template_by_its_name_makes_the_prompts_and_answers_of_hf(tasks, tmp_path):
    from transformers import AutoTokenizer

    models = make_models(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(models["a"])
    brief = "{% for m in messages %}u{{ mark }}> {{ m['content'] }}\na> {% endfor %}"
    tokenizer.chat_template = {"default": tokenizer.chat_template, "brief": brief}
    tokenizer.save_pretrained(models["a"])
    texts = (TaskSettings(name="gen", metric="exact_match", smooth=None),)
    told = {"apply_chat_template": "brief"}
    told["lm_eval"] = {"model_args": {"chat_template_args": {"mark": "!"}}}
    found = {}
    for backend in ("hf", "vllm"):
        worker = make_worker(backend, models, tasks, wanted=texts, **told)
        found[backend] = answers(worker, candidates(models)["parent"])
        requests = worker._evaluator._requests["gen"].values()
        assert all(first.args[0].startswith("u!> ") for (first,) in requests)
        worker.close()
    assert found["vllm"][1] == found["hf"][1]
    assert len(set(found["hf"][1].values())) > 1


def test_a_quantized_engine_scores_search_items_and_decides_nothing(models, tasks):
    def values(worker, split, name="mixed"):
        outcome = worker.evaluate(Assignment(0, candidates(models)[name], split))
        return outcome.scores.by_task["rolling"].values.tolist()

    def worker_of(**options):
        engine = {**ENGINE, **options}
        return make_worker("vllm", models, tasks, wanted=TASKS[-1:], dtype="bfloat16", vllm=engine)

    plain = worker_of()
    expected = {split: values(plain, split) for split in ("search", "holdout")}
    plain.close()
    proxy = worker_of(quantization="fp8_per_channel")
    quantized = values(proxy, "search")
    assert quantized != expected["search"]
    assert quantized == pytest.approx(expected["search"], rel=0.05)
    assert values(proxy, "search", "parent") != quantized
    assert values(proxy, "search") == quantized  # the quantized weights follow the candidate
    assert values(proxy, "holdout") == expected["holdout"]
    proxy.close()
