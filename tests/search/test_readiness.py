"""What would fail for every candidate is one message of `check` and of `run`, before any score."""

import shutil

import pytest
import yaml

from evomerge.errors import EvaluationError
from evomerge.evaluation import EvaluationSettings, check_readiness
from evomerge.search import inspect_file, run
from evomerge.space import load_space
from tests.conftest import ROOT, small_space

MODELS = ROOT / "search_spaces" / "playground"


@pytest.fixture
def refused(tmp_path):
    """Want a message from `check` and from `run`, and nothing written."""

    def refused(message, **evaluation):
        path = small_space(tmp_path / "space.yml", evaluation=evaluation)
        (problem,) = inspect_file(path).problems
        assert message in problem
        with pytest.raises(EvaluationError) as caught:
            run(load_space(path), tmp_path / "run", device="cpu")
        assert str(caught.value) == problem
        assert not (tmp_path / "run").exists()

    return refused


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            True,
            "no candidate could be scored: apply_chat_template: true needs a chat template, and",
        ),
        (
            "brief",
            "no candidate could be scored: apply_chat_template: 'brief' is a template's name",
        ),
    ],
)
def test_no_chat_template(refused, wanted, message):
    refused(message, apply_chat_template=wanted)


@pytest.mark.parametrize(
    ("changes", "room"),
    [
        ({"gen_kwargs": {"max_gen_toks": 128}}, 128),
        ({"gen_kwargs": {"max_new_tokens": 70}, "max_length": 64}, 64),
    ],
)
def test_answers_longer_than_the_model(refused, changes, room):
    refused(
        f"'playground_add' asks for answers of up to {sum(changes['gen_kwargs'].values())} tokens, "
        f"and the model takes {room}, prompt included; set evaluation.gen_kwargs",
        **changes,
    )


def test_room_of_an_engine(tmp_path):
    def check(answer, **keys):
        check_readiness({}, tmp_path, EvaluationSettings(backend="vllm", **keys), {"one": answer})

    check(300)  # the config does not say
    check(127, vllm={"max_model_len": 128})
    with pytest.raises(EvaluationError, match="up to 128 tokens, and the model takes 128, prompt"):
        check(128, vllm={"max_model_len": 128})


def test_options_and_values_of_generation(refused):
    unknown = "evaluation.gen_kwargs: hf generates with no option 'temprature'; did you mean 'temp"
    refused(unknown, gen_kwargs={"temprature": 0.5})
    refused("no option 'stop_strings'", gen_kwargs={"stop_strings": ["x"]})
    refused("task 'playground_add': until is a text or a list", gen_kwargs={"until": 3})


def test_a_task_of_two_files(refused, tmp_path):
    folder = shutil.copytree(ROOT / "tasks" / "playground", tmp_path / "tasks")
    shutil.copy(folder / "playground_add.yaml", folder / "copy.yaml")
    message = f"'playground_add' is defined twice in evaluation.task_dirs, in {folder}/copy.yaml"
    refused(message, task_dirs=[str(folder)])


def test_a_task_in_the_place_of_lm_evals_is_noted(tmp_path):
    folder = shutil.copytree(ROOT / "tasks" / "playground", tmp_path / "tasks")
    file = folder / "playground_add.yaml"
    file.write_text(file.read_text().replace("task: playground_add", "task: gsm8k"))
    path = small_space(
        tmp_path / "space.yml",
        tasks=[{"name": "gsm8k", "metric": "exact_match"}],
        evaluation={"task_dirs": [str(folder)]},
    )
    found = inspect_file(path)
    assert not found.problems
    assert f"gsm8k is the one of {file}, and not lm-eval's own of that name" in found.notes


def test_parents_without_a_chat_template_are_noted(tmp_path):
    model = shutil.copytree(MODELS / "sort", tmp_path / "chat")
    parents = [MODELS / name for name in ("add", "reverse", "sort")]
    (model / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    path = small_space(tmp_path / "space.yml", evaluation={"apply_chat_template": True})
    data = yaml.safe_load(path.read_text())
    data["recipe"]["base_model"] = str(model)
    path.write_text(yaml.safe_dump(data))
    found = inspect_file(path)
    assert not found.problems
    notes = [note for note in found.notes if "will fail" in note]
    reason = "apply_chat_template: true needs a chat template, and the tokenizer has none; set it"
    for name, note in zip((*map(str, parents), "average"), notes, strict=True):
        assert note.startswith(f"baseline {name} will fail: {reason}")
    result = run(load_space(path).with_search(trials=8), tmp_path / "run", device="cpu")
    states = {trial.label: trial.state for trial in result.trials if trial.is_baseline}
    assert states[str(model)] == "complete"
    assert states[str(MODELS / "add")] == "failed"
