"""Which changes of a space leave a study its own."""

import pytest
import yaml

from evomerge.errors import StudyError
from evomerge.evaluation.vllm_options import RESOURCES
from evomerge.search import Study, open_storage
from evomerge.search.identity import claim, claim_tasks
from evomerge.space import load_space
from tests.conftest import small_space


@pytest.fixture
def claimed(tmp_path):
    """Claim one study by a space with these evaluation settings."""
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")

    def claimed(evaluation, search=None):
        file = small_space(tmp_path / "space.yml", evaluation=evaluation, search=search)
        space = load_space(file)
        study = Study(storage, "s", space.dimensions)
        claim(study, space, {"m": "f00"})
        return yaml.safe_load(file.read_text())

    return claimed


def engine(**options):
    return {"backend": "vllm", "vllm": options}


def test_how_much_memory_an_engine_takes_may_change(claimed):
    claimed(engine(max_model_len=512, gpu_memory_utilization=0.5))
    claimed(engine(max_model_len=512, max_num_seqs=16, kv_cache_memory_bytes=1 << 30))
    claimed(engine(max_model_len=512, **dict.fromkeys(RESOURCES, 1)))
    claimed(engine(max_model_len=512), search={"trials": 13})


def test_a_study_without_engine_options_may_get_some(claimed):
    claimed({"backend": "vllm"})
    claimed(engine(gpu_memory_utilization=0.5))


def test_what_only_takes_memory_or_says_where_tasks_are_may_change(claimed, tmp_path):
    claimed({"batch_size": 8})
    claimed({"batch_size": "auto", "allow_code_execution": True})
    claimed({"task_dirs": [str(tmp_path)]})
    claimed({})


@pytest.mark.parametrize(
    "other",
    [
        engine(max_model_len=256),
        engine(max_model_len=512, kv_cache_dtype="fp8"),
        engine(max_model_len=512, enforce_eager=True),
        engine(max_model_len=512, tensor_parallel_size=2),
        {"backend": "hf", "vllm": {"max_model_len": 512}},
    ],
)
def test_what_may_change_a_score_may_not(claimed, other):
    claimed(engine(max_model_len=512))
    with pytest.raises(StudyError, match=r"another version of this space file \(evaluation\."):
        claimed(other)


def test_compiled_and_uncompiled_scores_are_two_studies(claimed):
    claimed({"compile": True})
    with pytest.raises(StudyError, match="another version of this space"):
        claimed({})


def test_tasks_stay_what_they_were(claimed, tmp_path):
    claimed({})
    space = load_space(tmp_path / "space.yml")
    study = Study(open_storage(f"sqlite:///{tmp_path / 'study.db'}"), "s", space.dimensions)
    claim_tasks(study, {"one": "1", "two": "2", "three": "3"})
    claim_tasks(study, {"one": "1", "two": "2", "three": "3"})
    with pytest.raises(StudyError, match=r"documents, prompts or metrics in three, two, and"):
        claim_tasks(study, {"one": "1", "two": "0", "three": "0"})


@pytest.mark.parametrize(
    ("evaluation", "search", "change"),
    [
        ({"search_items": 41}, {}, "evaluation.search_items: 40 then, 41 now"),
        ({}, {"optimizer": "tpe"}, 'search.optimizer: not given then, "tpe" now'),
        ({"num_fewshot": 2}, {}, "evaluation.num_fewshot: not given then, 2 now"),
    ],
)
def test_a_changed_space_is_told_where_it_differs(claimed, evaluation, search, change):
    claimed({})
    with pytest.raises(StudyError, match=rf"this space file \({change}\); give another --out"):
        claimed(evaluation, search)


def test_of_a_study_that_kept_no_document_only_the_fact_is_known(claimed, tmp_path):
    claimed({})
    study = Study(open_storage(f"sqlite:///{tmp_path / 'study.db'}"), "s")
    kept = study.attributes["identity"]
    del kept["document"]
    study.set_attribute("identity", kept)
    with pytest.raises(StudyError, match="this space file; give another --out"):
        claimed({"search_items": 41})
