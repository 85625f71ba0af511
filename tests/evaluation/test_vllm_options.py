"""Which engine options a space may give."""

import pytest

from evomerge.documents import Origin, validate
from evomerge.errors import SpaceError
from evomerge.evaluation import EvaluationSettings, TaskSet, TaskSettings
from evomerge.evaluation.vllm_options import RESOURCES


def settings(**keys):
    return validate(EvaluationSettings, keys, Origin("space"), SpaceError)


def test_engine_options_are_passed_on():
    options = {"gpu_memory_utilization": 0.5, "max_model_len": 512, "tensor_parallel_size": 2}
    assert settings(backend="vllm", vllm=options).vllm == options
    assert settings(vllm={"quantization": None}).vllm == {"quantization": None}


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("dtype", "set evaluation.dtype"),
        ("trust_remote_code", "never run"),
        ("data_parallel_size", "--workers"),
        ("load_format", "from memory"),
    ],
)
def test_what_evomerge_decides_is_refused(option, instead):
    with pytest.raises(SpaceError, match=rf"vllm: '{option}' cannot be set .*{instead}"):
        settings(vllm={option: "x"})


def test_quantization_is_a_proxy_that_does_not_decide():
    options = {"quantization": "online", "quantization_config": {"b": 1}, "max_model_len": 64}
    chosen = settings(backend="vllm", vllm=options)
    assert chosen.proxy == 'quantization online {"b": 1}'
    assert chosen.deciding() == settings(backend="vllm", vllm={"max_model_len": 64})
    assert chosen.deciding().proxy is None
    assert settings(vllm=options).proxy is None  # hf has no use for vLLM's options
    assert settings(backend="vllm", vllm={"quantization": None}).proxy is None


def test_one_name_for_the_length():
    with pytest.raises(SpaceError, match="two names of one setting"):
        settings(max_length=128, vllm={"max_model_len": 128})


def test_what_says_how_memory_is_used_forgets_no_result(task_dir):
    def key(**options):
        chosen = settings(backend="vllm", task_dirs=[str(task_dir)], search_items=20, vllm=options)
        wanted = [TaskSettings(name="gen", metric="exact_match")]
        return TaskSet.load(wanted, chosen, seed=0).keys(device="cuda")

    assert key(**dict.fromkeys(RESOURCES, 1)) == key(gpu_memory_utilization=0.5) == key()
    for other in ({"max_model_len": 64}, {"kv_cache_dtype": "fp8"}, {"enforce_eager": True}):
        assert key(**other) != key()
