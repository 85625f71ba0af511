"""A chat template by its name, through a real tokenizer that has two."""

import shutil
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from pydantic import ValidationError
from transformers import AutoTokenizer

from evomerge.errors import EvaluationError
from evomerge.evaluation import EvaluationSettings, Evaluator, TaskSet, TaskSettings
from tests.evaluation.conftest import make_checkpoint
from tests.evaluation.test_hf import build

BRIEF = (
    "{% for m in messages %}<s>{{ m['role'][:1] }}> {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a{{ mark }}> {% endif %}"
    "{% if enable_thinking is false %}no thinking{% endif %}"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = make_checkpoint(tmp_path_factory.mktemp("two"), seed=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"default": tokenizer.chat_template, "brief": BRIEF}
    tokenizer.save_pretrained(folder)
    return folder


def prompts(
    checkpoint: Path, task_dir: Path, template: bool | str, **model_args: object
) -> tuple[list[str], str]:
    """Return the prompts, and the key of their results."""
    keys = {"task_dirs": [str(task_dir)], "search_items": 10, "apply_chat_template": template}
    keys["lm_eval"] = {"model_args": model_args}
    settings = EvaluationSettings(holdout_items=10, **keys)
    tasks = TaskSet.load([TaskSettings(name="gen", metric="exact_match")], settings, seed=0)
    live = build(checkpoint, holdout_items=10, **keys)
    evaluator = Evaluator(tasks, live)
    assert evaluator.score("search").num_items == 10
    by_item = evaluator._requests["gen"]
    asked = [by_item[item][0].args[0] for item in tasks.items("search")["gen"]]
    return asked, tasks.keys(device="cpu")["gen"]


def test_a_name_chooses_the_template(checkpoint, task_dir):
    usual, key = prompts(checkpoint, task_dir, True)
    assert all(text.startswith("user: ") and text.endswith("\nassistant: ") for text in usual)
    assert prompts(checkpoint, task_dir, "default")[0] == usual
    brief, other = prompts(checkpoint, task_dir, "brief")
    assert all(text.startswith("<s>u> ") and text.endswith("\na> ") for text in brief)
    questions = [text.removeprefix("<s>u> ").removesuffix("\na> ") for text in brief]
    assert [
        text.removeprefix("user: ").removesuffix("\nassistant: ") for text in usual
    ] == questions
    assert key != other


def test_what_lm_eval_tells_templates_and_reads_of_answers(checkpoint, task_dir):
    usual, key = prompts(checkpoint, task_dir, "brief")
    silent, other = prompts(checkpoint, task_dir, "brief", enable_thinking=False)
    assert silent == [f"{text}no thinking" for text in usual]
    assert key != other
    marked, _ = prompts(checkpoint, task_dir, "brief", chat_template_args={"mark": "!"})
    assert marked == [text.removesuffix("> ") + "!> " for text in usual]

    keys = {"until": ["?"], "max_gen_toks": 8}
    requests = [Instance("generate_until", {}, (text, keys), 0) for text in usual]
    answers = {
        end: build(
            checkpoint, lm_eval={"model_args": {"think_end_token": end}} if end else {}
        ).lm.generate_until(requests, disable_tqdm=True)
        for end in (None, "a", "e", "o")
    }
    whole = answers.pop(None)
    for end, after in answers.items():
        assert after == [text.split(end)[-1].lstrip() for text in whole]
    assert any(after != whole for after in answers.values())


def test_a_name_that_is_not_there_is_never_a_prompt(checkpoint, checkpoint_a, task_dir):
    with pytest.raises(EvaluationError, match=r"no template 'breif'; did you mean 'brief'\?"):
        prompts(checkpoint, task_dir, "breif")
    with pytest.raises(EvaluationError, match="one chat template, without a name; set .*: true"):
        prompts(checkpoint_a, task_dir, "brief")
    with pytest.raises(ValidationError):
        EvaluationSettings(apply_chat_template="")
    assert EvaluationSettings(apply_chat_template="true").chat_template == "true"


def test_the_usual_template_must_be_there(checkpoint, task_dir, tmp_path):
    def with_templates(name, change):
        folder = shutil.copytree(checkpoint, tmp_path / name)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = change(tokenizer.chat_template)
        shutil.rmtree(folder / "additional_chat_templates")
        (folder / "chat_template.jinja").unlink()
        tokenizer.save_pretrained(folder)
        return folder

    bare = with_templates("bare", lambda _: None)
    with pytest.raises(EvaluationError, match="needs a chat template, and the tokenizer has none"):
        prompts(bare, task_dir, True)
    named = with_templates("named", lambda all_of_them: {"brief": all_of_them["brief"]})
    with pytest.raises(EvaluationError, match=r"takes .* 'default', and the tokenizer has brief;"):
        prompts(named, task_dir, True)
    assert prompts(named, task_dir, "brief")[0]
