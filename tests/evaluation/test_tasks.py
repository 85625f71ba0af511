"""Loading tasks: what is found, what is refused, and where the data comes from."""

import json
import os
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from evomerge.errors import EvaluationError
from evomerge.evaluation import EvaluationSettings, TaskSet, TaskSettings, shadowed_names
from tests.evaluation.conftest import documents, metric, task, write_jsonl


def load(
    task_dir: Path,
    *tasks: tuple[str, str],
    folder: Path = Path(),
    confirmed: bool = False,
    **keys: object,
) -> TaskSet:
    settings = EvaluationSettings(
        **{"task_dirs": [str(task_dir)], "search_items": 20, "holdout_items": 30, **keys}
    )
    wanted = [TaskSettings(name=name, metric=metric) for name, metric in tasks]
    return TaskSet.load(wanted, settings, seed=0, folder=folder, code_confirmed=confirmed)


def write_task(folder: Path, entry: dict, rows: list[dict] | None = None) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{entry['task']}.yaml"
    path.write_text(yaml.safe_dump(entry, sort_keys=False), encoding="utf-8")
    if rows is not None:
        write_jsonl(folder / "rows.jsonl", rows)


def simple_task(name: str, **keys: object) -> dict:
    keys = {"output_type": "generate_until", "metric_list": [metric("exact_match")], **keys}
    entry = task(name, "rows.jsonl", **keys)
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
        ("gen", "acc,none", r"no metric 'acc'; \(valid: exact_match, chrf\)"),
        ("gen", "exact_match,strict", r"no filter 'strict'; .*valid: none"),
        ("gen_filters", "exact_match", "for 2 filters; .*exact_match,strict, exact_match,letter"),
        ("gen_filters", "exact_match,lettr", "did you mean 'letter'"),
        ("rolling", "local", "aggregation 'inner'.*metrics of the task that work: nats, pair"),
        (
            "runs_code",
            "exact_match",
            "allow_code_execution: true in the space's .* and give --allow",
        ),
    ],
)
def test_refusals(task_dir, name, wanted, message):
    with pytest.raises(EvaluationError, match=message):
        load(task_dir, (name, wanted))


def test_code_may_be_allowed(task_dir):
    wanted = ("runs_code", "exact_match")
    with pytest.raises(EvaluationError, match="to allow it, give --allow-code-execution"):
        load(task_dir, wanted, allow_code_execution=True)
    with pytest.raises(EvaluationError, match="to allow it, set allow_code_execution: true in"):
        load(task_dir, wanted, confirmed=True)
    tasks = load(task_dir, wanted, allow_code_execution=True, confirmed=True)
    assert list(tasks.tasks) == ["runs_code"]


def test_a_task_twice(task_dir):
    with pytest.raises(
        EvaluationError, match="'last_word' is there twice, by 'playground_tag' and"
    ):
        load(task_dir, ("playground_tag", "acc"), ("last_word", "acc"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (metric("exact_mach"), r"'exact_mach' is none of lm-eval's.* did you mean 'exact_match'\?"),
        (
            metric("exact_match", "meen"),
            "'exact_match' has an aggregation that lm-eval does not kn",
        ),
    ],
)
def test_metrics_that_lm_eval_cannot_call(tmp_path, entry, message):
    write_task(tmp_path, simple_task("odd", metric_list=[entry]), documents(60, seed=0))
    with pytest.raises(EvaluationError, match=message):
        load(tmp_path, ("odd", entry["metric"]))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("odd.yaml", "task: odd\n  bad: [\n", "'odd' cannot be loaded: ScannerError.*odd.yaml"),
        ("odd.yaml", "task: odd\ninclude: nowhere\n", "'odd' cannot be loaded.*/nowhere'"),
        ("odd.yml", "task: odd\n", "odd.yml: lm-eval reads task files that end in .yaml only"),
    ],
)
def test_a_file_that_the_index_skips_is_named(tmp_path, file, text, message):
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=f"(?s){message}"):
        load(tmp_path, ("odd", "exact_match"))


def test_a_name_of_two_files_is_refused(tmp_path):
    rows = documents(60, seed=0)
    write_task(tmp_path / "one", simple_task("odd"), rows)
    write_task(tmp_path / "two", simple_task("odd", doc_to_text="{{text}}?"), rows)
    wanted = ("odd", "exact_match")
    twice = r"'odd' is defined twice .* in \S+/one/odd.yaml and in \S+/two/odd.yaml; give one"
    with pytest.raises(EvaluationError, match=twice):
        load(tmp_path, wanted)
    with pytest.raises(EvaluationError, match=twice):
        load(tmp_path / "two", wanted, task_dirs=[str(tmp_path / "two"), str(tmp_path / "one")])
    # The same file by two ways is one file; a double name that nobody asks for harms nobody.
    load(tmp_path, wanted, task_dirs=[str(tmp_path / "one"), f"{tmp_path}/two/../one"])
    write_task(tmp_path / "one", simple_task("even"))
    load(tmp_path, ("even", "exact_match"))
    for file in ("g", "h"):
        group = {"group": "both", "task": ["even"], "group_alias": file}
        (tmp_path / f"{file}.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    with pytest.raises(EvaluationError, match="'both' is defined twice"):
        load(tmp_path, ("both", "exact_match"))
    (tmp_path / "h.yaml").unlink()
    (tmp_path / "third.yaml").write_text("include: one/even.yaml\ndoc_to_text: '{{text}}'\n")
    with pytest.raises(EvaluationError, match="'even' is defined twice .*third.yaml"):
        load(tmp_path, ("even", "exact_match"))


def test_a_tag_of_two_folders_stands_for_the_tasks_of_both(tmp_path):
    for name in ("one", "two"):
        write_task(tmp_path / name, simple_task(name, tag="mine"), documents(60, seed=0))
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert list(load(tmp_path, ("mine", "exact_match"), task_dirs=folders).tasks) == ["one", "two"]


def test_a_task_named_as_one_of_lm_evals_is_the_users(tmp_path):
    write_task(tmp_path, simple_task("gsm8k"), documents(60, seed=0))
    write_task(tmp_path, simple_task("mine"))
    tasks = load(tmp_path, ("gsm8k", "exact_match"), ("mine", "exact_match"))
    assert {row["answer"] for row in documents(60, seed=0)} >= {
        tasks.tasks["gsm8k"].document(item)["answer"] for item in tasks.items("search")["gsm8k"]
    }
    shadowed = shadowed_names(list(tasks.tasks), tasks.settings, Path())
    assert shadowed == {"gsm8k": tmp_path / "gsm8k.yaml"}


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


def test_a_model_that_thinks_is_asked_for_answers_only(task_dir):
    told = {"model_args": {"enable_thinking": True, "think_end_token": "</think>"}}
    assert load(task_dir, ("gen", "exact_match")).tasks["gen"].smooth is not None
    assert load(task_dir, ("gen", "exact_match"), lm_eval=told).tasks["gen"].smooth is None
    with pytest.raises(EvaluationError, match="task 'choice' asks for log-likelihoods, and a mod"):
        load(task_dir, ("choice", "acc"), lm_eval=told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_gen_toks": 0}, "an answer has at least one token, got 0; put it right in eval"),
        ({"max_new_tokens": "many"}, "task 'gen': invalid literal .*'many'; put it right"),
        ({"temperature": "warm"}, "task 'gen': could not convert string to float: 'warm'"),
        ({"until": 3}, "until is a text or a list of texts, got 3"),
        ({"until": ["a", None]}, r"a list of texts, got \['a', None\]"),
    ],
)
def test_values_that_generation_cannot_have(task_dir, options, message):
    load(task_dir, ("choice", "acc"), gen_kwargs=options)  # nothing is generated
    with pytest.raises(EvaluationError, match=message):
        load(task_dir, ("gen", "exact_match"), gen_kwargs=options)


def test_how_long_answers_may_be(task_dir, tmp_path):
    wanted = (("gen", "exact_match"), ("choice", "acc"))
    assert load(task_dir, *wanted).answers == {"gen": 4}
    assert load(task_dir, *wanted, gen_kwargs={"max_gen_toks": 7}).answers == {"gen": 7}
    # Whatever it is called, the space's word wins over the task's.
    assert load(task_dir, *wanted, gen_kwargs={"max_new_tokens": 9}).answers == {"gen": 9}
    write_task(tmp_path, simple_task("plain"), documents(60, seed=0))
    assert load(tmp_path, ("plain", "exact_match")).answers == {"plain": 256}  # lm-eval's


def test_a_limit_keeps_the_first_documents(task_dir):
    tasks = load(task_dir, ("gen", "exact_match"), limit=52)
    chosen = [
        tasks.tasks["gen"].index(item)
        for s in ("search", "holdout")
        for item in tasks.items(s)["gen"]
    ]
    assert sorted(chosen) == sorted(set(chosen))
    assert max(chosen) < 52
    with pytest.raises(EvaluationError, match="task 'gen' has 45 different documents"):
        load(task_dir, ("gen", "exact_match"), limit=0.75)


def test_options_of_simple_evaluate_are_passed_on(task_dir, tmp_path):
    shots = {"num_fewshot": 2, "lm_eval": {"fewshot_random_seed": 7}}
    prompts = {}
    for name, keys in {"seven": shots, "seed": {"num_fewshot": 2}}.items():
        tasks = load(task_dir, ("choice", "acc"), **keys)
        task = tasks.tasks["choice"]
        built = task.build(tasks.items("search")["choice"], None)
        prompts[name] = [requests[0].args[0] for requests in built.values()]
    assert prompts["seven"] != prompts["seed"]
    meta = load(task_dir, ("gen", "exact_match"), lm_eval={"metadata": {"flavour": "mild"}})
    assert meta.tasks["gen"]._task.config.metadata["flavour"] == "mild"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"predict_only": True},
            "'predict_only' is not passed on to lm-eval: a search needs scores",
        ),
        ({"limit": 3}, "'limit' is not passed on .* write it there"),
        ({"use_cache": "x"}, "--cache shares them"),
        ({"fewshot_seed": 3}, "no option 'fewshot_seed'; did you mean 'fewshot_random_seed'"),
        ({"random_seed": None}, "'random_seed' is a whole number: a run must be repeatable"),
        ({"metadata": 3}, "'metadata' is a mapping, got 3"),
        ({"model_args": "dtype=float16"}, "'model_args' is a mapping, got 'dtype=float16'"),
        ({"model_args": {"enable_thinking": True}}, "enable_thinking needs think_end_token, which"),
        ({"model_args": {"dtype": "float16"}}, "model_args: 'dtype' is not .* 'evaluation' has"),
        ({"model_args": {"enable_thinkin": 1}}, "did you mean 'enable_thinking'"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_the_reason(options, message):
    with pytest.raises(ValidationError, match=message):
        EvaluationSettings(lm_eval=options)


def test_every_option_of_simple_evaluate_is_known():
    import inspect

    from lm_eval import simple_evaluate

    from evomerge.evaluation import passthrough

    known = {*passthrough.PASSED, *passthrough._REFUSED}
    assert set(inspect.signature(simple_evaluate).parameters) <= known


def load_one(task_dir, **keys):
    settings = EvaluationSettings(task_dirs=[str(task_dir)])
    task = TaskSettings(name="gen", metric="exact_match", **keys)
    return TaskSet.load([task], settings, seed=0, folder=task_dir)


def contents(tasks, side):
    return {tasks.tasks["gen"].document(item)["text"] for item in tasks.items(side)["gen"]}


def rows(path):
    return {row["text"] for row in map(json.loads, path.read_text().splitlines())}


def test_splits_of_the_data_set(task_dir, monkeypatch):
    monkeypatch.chdir(task_dir)
    tasks = load_one(task_dir, search_split="train", holdout_split="test")
    assert contents(tasks, "search") == rows(task_dir / "data" / "shots.jsonl")
    assert contents(tasks, "holdout") == rows(task_dir / "data" / "test.jsonl")
    both = [item for side in ("search", "holdout") for item in tasks.items(side)["gen"]]
    built = tasks.tasks["gen"].build(both, None)
    for item, requests in built.items():
        assert requests[0].args[0] == f"{tasks.tasks['gen'].document(item)['text']}>"
    with pytest.raises(EvaluationError, match="no split 'tran'; did you mean 'train'"):
        load_one(task_dir, search_split="tran")
    with pytest.raises(EvaluationError, match="an example must never be an item"):
        load_one(task_dir, search_split="train", num_fewshot=1)


def test_lists_of_items(task_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(task_dir)
    usual = load_one(task_dir)
    some = usual.items("search")["gen"][:4]
    names = tmp_path / "search.txt"
    names.write_text("# mine\n" + "\n".join(some) + "\n\n0  # lm-eval's first\n")
    tasks = load_one(task_dir, search_list=str(names))
    first = tasks.tasks["gen"].sides["search"].ids[0]
    assert set(tasks.items("search")["gen"]) == {*some, first}
    assert len(tasks.items("holdout")["gen"]) == 60 - len({*some, first})
    names.write_text("0\n60\n")
    with pytest.raises(EvaluationError, match=r"search\.txt:2: task 'gen' has no item '60'"):
        load_one(task_dir, search_list=str(names))
    with pytest.raises(EvaluationError, match=r"list of items 'gone\.txt' is neither here nor in"):
        load_one(task_dir, holdout_list="gone.txt")
    names.write_text("0\n1\n")
    with pytest.raises(EvaluationError, match="is named for the search and for the held-out"):
        load_one(task_dir, search_list=str(names), holdout_list=str(names))


def test_settings_are_checked():
    with pytest.raises(ValidationError, match="a whole number of documents, or a share below 1"):
        EvaluationSettings(limit=2.5)
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


def prompts_of(tasks, name):
    """Return the prompt of each item of both sides."""
    items = [*tasks.items("search")[name], *tasks.items("holdout")[name]]
    return {
        item: [each.args for each in requests]
        for item, requests in tasks.tasks[name].build(items, None).items()
    }


def few_shot(folder, sampler="default", shots=6):
    entry = simple_task("shots", training_split="train", num_fewshot=2)
    entry["fewshot_config"] = {"sampler": sampler}
    entry["dataset_kwargs"] = {"data_files": {"test": "rows.jsonl", "train": "shots.jsonl"}}
    write_task(folder, entry, documents(60, seed=1))
    write_jsonl(folder / "shots.jsonl", documents(12, seed=8)[:shots])
    return folder


def keys_and_prompts(folder, **keys):
    tasks = load(folder, ("shots", "exact_match"), **keys)
    return tasks.keys(device="cpu")["shots"], prompts_of(tasks, "shots")


def test_a_few_shot_key_is_that_of_the_prompts_and_not_of_the_sides(tmp_path):
    few_shot(tmp_path)
    key, prompts = keys_and_prompts(tmp_path, search_items=20, holdout_items=None)
    moved = keys_and_prompts(tmp_path, search_items=25, holdout_items=None)
    assert moved == (key, prompts)  # the same documents, divided otherwise
    other_key, other = keys_and_prompts(tmp_path, search_items=20, holdout_items=30)
    changed = [item for item in other if other[item] != prompts[item]]
    assert changed  # examples are drawn in turn, so one document less moves those behind it
    assert other_key != key


def test_examples_that_are_the_same_for_all_items_need_no_other_items(tmp_path):
    few_shot(tmp_path, "first_n")
    key, prompts = keys_and_prompts(tmp_path, search_items=20, holdout_items=30)
    other_key, other = keys_and_prompts(tmp_path, search_items=10, holdout_items=44)
    shared = prompts.keys() & other.keys()
    assert len(shared) > 40
    assert all(other[item] == prompts[item] for item in shared)
    assert other_key == key


@pytest.mark.parametrize("sampler", ["default", "first_n"])
def test_other_examples_or_another_order_of_them_are_another_key(tmp_path, sampler):
    few_shot(tmp_path, sampler)
    key, prompts = keys_and_prompts(tmp_path)
    rows = documents(12, seed=8)[:6]
    write_jsonl(tmp_path / "shots.jsonl", [*rows[1:], rows[0]])
    reordered, other = keys_and_prompts(tmp_path)
    assert other != prompts
    assert reordered != key
    few_shot(tmp_path, sampler, shots=7)
    assert keys_and_prompts(tmp_path)[0] not in (key, reordered)


def test_documents_that_are_no_items_change_no_key(tmp_path):
    rows = documents(60, seed=0)
    write_task(tmp_path / "here", simple_task("odd"), rows)
    key = load(tmp_path / "here", ("odd", "exact_match")).keys(device="cpu")
    (tmp_path / "here").rename(tmp_path / "there")
    write_jsonl(tmp_path / "there" / "rows.jsonl", documents(70, seed=0))
    assert load(tmp_path / "there", ("odd", "exact_match")).keys(device="cpu") == key


def test_what_makes_another_task(tmp_path):
    def identity(name="here", **keys):
        return load(tmp_path / name, ("odd", "exact_match"), **keys).identities()["odd"]

    def write(count=60, text="def answer(doc):\n    return doc['answer']\n", **keys):
        write_task(tmp_path / "here", simple_task("odd", **keys), documents(count, seed=0))
        path = tmp_path / "here" / "odd.yaml"
        path.write_text(path.read_text().replace("'{{answer}}'", "!function odd.answer"))
        (tmp_path / "here" / "odd.py").write_text(text)

    write()
    first = identity()
    write(metadata={"version": 2}, tag="other")
    assert identity() == first
    for changed in (
        {"count": 90},
        {"doc_to_text": "{{text}} >"},
        {"description": "Last letters."},
        {"text": "def answer(doc):\n    return doc['answer'] + ' '\n"},
        {"generation_kwargs": {"until": ["a"]}},
    ):
        write(**changed)
        assert identity() != first, changed
    write()
    assert identity() == first
    (tmp_path / "here").rename(tmp_path / "there")
    assert identity("there") == first
    assert identity("there", search_items=19) != first
