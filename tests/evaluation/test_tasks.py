"""Loading tasks: what is found, what is refused, and where the data comes from."""

import os
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from evomerge.errors import EvaluationError
from evomerge.evaluation import EvaluationSettings, TaskSet, TaskSettings
from tests.evaluation.conftest import documents, metric, task, write_jsonl


def load(task_dir: Path, *tasks: tuple[str, str], folder: Path = Path(), **keys: object) -> TaskSet:
    settings = EvaluationSettings(
        **{"task_dirs": [str(task_dir)], "search_items": 20, "holdout_items": 30, **keys}
    )
    wanted = [TaskSettings(name=name, metric=metric) for name, metric in tasks]
    return TaskSet.load(wanted, settings, seed=0, folder=folder)


def write_task(folder: Path, entry: dict, rows: list[dict] | None = None) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{entry['task']}.yaml"
    path.write_text(yaml.safe_dump(entry, sort_keys=False), encoding="utf-8")
    if rows is not None:
        write_jsonl(folder / "rows.jsonl", rows)


def simple_task(name: str, **keys: object) -> dict:
    entry = task(
        name,
        "rows.jsonl",
        output_type="generate_until",
        metric_list=[metric("exact_match")],
        **keys,
    )
    entry["dataset_kwargs"] = {"data_files": {"test": "rows.jsonl"}}
    return entry


def test_items_of_each_side(task_dir):
    tasks = load(task_dir, ("gen", "exact_match"), ("choice", "acc"))
    assert {name: len(ids) for name, ids in tasks.items("search").items()} == {
        "gen": 20,
        "choice": 20,
    }
    assert tasks.items("search")["gen"] == tasks.items("search")["choice"]  # the same documents
    assert tasks.objective.weights == {"gen": 0.5, "choice": 0.5}
    again = load(task_dir, ("gen", "exact_match"), ("choice", "acc"))
    assert again.items("holdout") == tasks.items("holdout")
    with pytest.raises(ValueError, match="'search' or 'holdout'"):
        tasks.items("test")


def test_task_dirs_are_relative_to_the_space_file(task_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load(Path("tasks"), ("gen", "exact_match"), folder=task_dir.parent)
    with pytest.raises(EvaluationError, match="'nowhere' is a folder neither here nor in"):
        load(Path("nowhere"), ("gen", "exact_match"), folder=task_dir.parent)


def test_a_task_of_the_current_folder_comes_first(task_dir, tmp_path, monkeypatch):
    write_task(tmp_path / "tasks", simple_task("gen"), documents(50, seed=5))
    monkeypatch.chdir(tmp_path)
    here = load(Path("tasks"), ("gen", "exact_match"), folder=task_dir.parent)
    there = load(task_dir, ("gen", "exact_match"))
    assert not set(here.items("search")["gen"]) & set(there.items("search")["gen"])


def test_unknown_task_names_the_nearest(task_dir):
    with pytest.raises(EvaluationError, match=r"named 'choise' .*did you mean 'choice'"):
        load(task_dir, ("choise", "acc"))


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("choice", "acccc", r"no metric 'acccc'; did you mean 'acc'\? \(valid: acc, acc_norm\)"),
        ("gen", "acc,none", r"no metric 'acc'; \(valid: exact_match\)"),
        ("gen", "exact_match,strict", r"no filter 'strict'; .*valid: none"),
        ("gen_filters", "exact_match", "for 2 filters; .*exact_match,strict, exact_match,letter"),
        ("gen_filters", "exact_match,lettr", "did you mean 'letter'"),
        ("last_word", "perplexity", "'perplexity' is not a mean over items"),
        ("rolling", "pair", "'pair' is not a mean over items .*'weighted_perplexity'"),
        ("runs_code", "exact_match", "runs code that the model wrote.*allow_code_execution: true"),
    ],
)
def test_refusals(task_dir, name, wanted, message):
    with pytest.raises(EvaluationError, match=message):
        load(task_dir, (name, wanted))


def test_code_may_be_allowed(task_dir):
    tasks = load(task_dir, ("runs_code", "exact_match"), allow_code_execution=True)
    assert list(tasks.tasks) == ["runs_code"]


def test_a_task_twice(task_dir):
    with pytest.raises(EvaluationError, match="'gen' is there twice"):
        load(task_dir, ("gen", "exact_match"), ("gen", "exact_match"))


def test_a_tag_stands_for_its_tasks(task_dir):
    tasks = load(task_dir, ("playground_tag", "acc"), ("gen", "exact_match"))
    assert list(tasks.tasks) == ["last_word", "gen"]


def test_a_group_shares_its_weight(tmp_path):
    rows = documents(60, seed=0)
    for name in ("one", "two"):
        entry = simple_task(name)
        entry["dataset_kwargs"] = {"data_files": {"test": str(tmp_path / "rows.jsonl")}}
        write_task(tmp_path, entry, rows)
    group = {"group": "both", "task": ["one", "two"]}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    tasks = load(tmp_path, ("both", "exact_match"))
    assert tasks.objective.weights == {"one": 0.5, "two": 0.5}


def test_too_few_documents(task_dir):
    with pytest.raises(EvaluationError, match="task 'gen' has 60 different documents"):
        load(task_dir, ("gen", "exact_match"), search_items=40)


def test_examples_never_come_from_the_items(task_dir, tmp_path):
    with pytest.raises(EvaluationError, match="few-shot examples from the documents"):
        load(task_dir, ("gen", "exact_match"), num_fewshot=2)
    entry = task("shots", "rows.jsonl", training_split="train", num_fewshot=2)
    entry["dataset_kwargs"] = {"data_files": {"test": "rows.jsonl", "train": "shots.jsonl"}}
    entry["metric_list"] = [metric("exact_match")]
    rows = documents(60, seed=0)
    write_task(tmp_path, entry, rows)
    write_jsonl(tmp_path / "shots.jsonl", rows[:10])
    tasks = load(tmp_path, ("shots", "exact_match"), search_items=None, holdout_items=None)
    assert sum(len(tasks.items(side)["shots"]) for side in ("search", "holdout")) == 50


def test_data_files_are_found_from_the_task_file_and_its_parents(tmp_path, monkeypatch):
    folder = tmp_path / "tasks"
    entry = simple_task("deep")
    entry["dataset_kwargs"]["data_files"] = "folder/rows.jsonl"
    entry["test_split"] = "train"
    write_task(folder / "inner", entry)
    (tmp_path / "folder").mkdir()
    write_jsonl(tmp_path / "folder" / "rows.jsonl", documents(60, seed=0))
    load(folder, ("deep", "exact_match"))

    monkeypatch.chdir(tmp_path / "tasks")
    entry["dataset_kwargs"]["data_files"] = "fold*/missing.jsonl"
    write_task(folder / "inner", entry)
    with pytest.raises(EvaluationError, match=r"deep\.yaml: the data file 'fold\*/missing\.jsonl'"):
        load(folder, ("deep", "exact_match"))


def test_an_edited_data_file_is_read_anew_whatever_its_time_stamp(tmp_path):
    write_task(tmp_path, simple_task("fresh"), documents(60, seed=0))
    before = load(tmp_path, ("fresh", "exact_match"))
    stamp = (tmp_path / "rows.jsonl").stat().st_mtime_ns
    write_jsonl(tmp_path / "rows.jsonl", documents(60, seed=1))
    os.utime(tmp_path / "rows.jsonl", ns=(stamp, stamp))
    after = load(tmp_path, ("fresh", "exact_match"))
    assert not set(before.items("search")["fresh"]) & set(after.items("search")["fresh"])


def test_a_task_that_cannot_load_is_named(tmp_path):
    write_task(tmp_path, simple_task("broken", doc_to_text="{{text"), documents(60, seed=0))
    with pytest.raises(
        EvaluationError, match="task 'broken' cannot be loaded: TemplateSyntaxError"
    ):
        load(tmp_path, ("broken", "exact_match"))


def test_a_dataset_of_the_hub_that_is_not_there(tmp_path):
    entry = simple_task("hub")
    entry |= {"dataset_path": "nobody/nothing", "dataset_kwargs": {}}
    write_task(tmp_path, entry)
    with pytest.raises(EvaluationError, match=r"task 'hub' cannot be loaded: .*nobody/nothing"):
        load(tmp_path, ("hub", "exact_match"))


def test_settings_are_checked():
    with pytest.raises(ValidationError, match="weight 0"):
        TaskSettings(name="gen", metric="acc", weight=0)
    with pytest.raises(ValidationError):
        EvaluationSettings(batch_size="big")
    assert EvaluationSettings(task_dirs="tasks").task_dirs == ["tasks"]
    assert EvaluationSettings(batch_size="auto").batch_size == "auto"


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("gsm8k", "exact_match,strict-match", "task 'gsm8k' cannot be loaded: .*openai/gsm8k"),
        ("mmlu_anatomy", "acc", "task 'mmlu_anatomy' cannot be loaded: .*mmlu"),
        ("humaneval_plus", "pass@1", "'humaneval_plus' runs code that the model wrote"),
    ],
)
def test_tasks_of_lm_eval_are_found_by_name(task_dir, name, wanted, message):
    """Offline, the message that names the data set is the proof that the task was found."""
    with pytest.raises(EvaluationError, match=message):
        load(task_dir, (name, wanted))
