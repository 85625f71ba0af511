"""Bad input: one clear message that names the place, exit code 2, no traceback, nothing written."""

import shutil
from importlib.util import find_spec

import pytest
import yaml

from tests.conftest import ROOT, evomerge, small_space, succeed

MODELS = ROOT / "search_spaces" / "playground"


def refuse(*arguments, **options):
    """Run a command that must refuse its input; return the message."""
    done = evomerge(*arguments, **options)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("error: "), done.stderr
    return done.stderr


@pytest.fixture
def space(tmp_path):
    """Write a space with changes, and return its path."""

    def write(change):
        path = small_space(tmp_path / "space.yml")
        data = yaml.safe_load(path.read_text())
        change(data)
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path

    return write


@pytest.fixture
def damaged(tmp_path):
    """Copy a checkpoint, change it, and return its path."""

    def copy(change):
        path = tmp_path / "damaged"
        shutil.copytree(MODELS / "sort", path)
        change(path)
        return str(path)

    return copy


def set_model(data, model):
    data["recipe"]["models"][2]["model"] = model


def run_refused(tmp_path, path):
    message = refuse("run", path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return message


def test_unknown_key(tmp_path, space):
    message = run_refused(tmp_path, space(lambda d: d["search"].update(optimiser="cma")))
    assert "space.yml:" in message
    assert "unknown key 'optimiser'; did you mean 'optimizer'?" in message


def test_unknown_key_in_the_recipe(tmp_path, space):
    message = run_refused(tmp_path, space(lambda d: d["recipe"].update(merge_methd="ties")))
    assert "recipe.merge_methd: unknown key" in message
    assert "did you mean 'merge_method'?" in message


def test_unknown_method(tmp_path, space):
    message = run_refused(tmp_path, space(lambda d: d["recipe"].update(merge_method="tise")))
    assert "recipe.merge_method" in message
    assert "did you mean 'ties'?" in message


def test_missing_model_directory(tmp_path, space):
    message = run_refused(tmp_path, space(lambda d: set_model(d, "models/nowhere/at/all")))
    assert "models/nowhere/at/all" in message
    assert "no such folder" in message


def test_shape_mismatch(tmp_path, space, damaged):
    import torch
    from safetensors.torch import load_file, save_file

    def change(path):
        tensors = load_file(path / "model.safetensors")
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = torch.zeros(7, tensors[name].shape[1], dtype=torch.bfloat16)
        save_file(tensors, path / "model.safetensors")

    model = damaged(change)
    message = run_refused(tmp_path, space(lambda d: set_model(d, model)))
    assert "model.layers.1.mlp.up_proj.weight" in message
    assert "7" in message


def test_truncated_shard(tmp_path, space, damaged):
    def change(path):
        file = path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])

    model = damaged(change)
    message = run_refused(tmp_path, space(lambda d: set_model(d, model)))
    assert f"{model}/model.safetensors" in message


def test_unknown_task(tmp_path, space):
    message = run_refused(tmp_path, space(lambda d: d["tasks"][0].update(name="playground_ad")))
    assert "playground_ad" in message
    assert "playground_add" in message


def test_tasks_of_an_included_path_and_code_that_both_must_allow(tmp_path, space):
    folder = tmp_path / "mine"
    folder.mkdir()
    task = yaml.safe_load((ROOT / "tasks" / "playground" / "playground_add.yaml").read_text())
    task |= {"task": "runs_code", "unsafe_code": True}
    task["dataset_kwargs"]["data_files"]["test"] = str(ROOT / "tasks" / "playground" / "add.jsonl")
    (folder / "runs_code.yaml").write_text(yaml.safe_dump(task))

    def change(data):
        data["tasks"] = [{"name": "runs_code", "metric": "exact_match"}]
        data["evaluation"]["allow_code_execution"] = True

    path = space(change)
    assert "no lm-eval task is named 'runs_code'" in run_refused(tmp_path, path)
    arguments = (path, "--include-path", folder)
    message = refuse("run", *arguments, "--out", tmp_path / "run")
    assert "to allow it, give --allow-code-execution at the command line" in message
    done = succeed("check", *arguments, "--allow-code-execution")
    assert "task runs_code: 40 search items, 60 held-out items" in done.stdout


def test_no_chat_template(tmp_path, space):
    path = space(lambda d: d["evaluation"].update(apply_chat_template=True))
    message = "no candidate could be scored: apply_chat_template: true needs a chat template"
    assert message in run_refused(tmp_path, path)


def test_unknown_metric(tmp_path, space):
    message = run_refused(tmp_path, space(lambda d: d["tasks"][0].update(metric="exact_macth")))
    assert "exact_macth" in message
    assert "exact_match" in message


def test_too_few_items(tmp_path, space):
    message = run_refused(tmp_path, space(lambda d: d["evaluation"].update(holdout_items=10**6)))
    assert "playground_add" in message
    assert "1000000" in message.replace(",", "").replace("_", "")


def test_options_of_vllm_that_evomerge_decides(tmp_path, space):
    def change(data):
        data["evaluation"].update(backend="vllm", vllm={"dtype": "float16"})

    message = run_refused(tmp_path, space(change))
    assert "evaluation.vllm: 'dtype' cannot be set" in message
    assert "set evaluation.dtype" in message


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_vllm_is_a_prerequisite_of_its_backend(tmp_path, space):
    message = run_refused(tmp_path, space(lambda d: d["evaluation"].update(backend="vllm")))
    assert "pip install 'evomerge[vllm]'" in message


def test_range_upside_down(tmp_path, space):
    def change(data):
        data["recipe"]["models"][0]["parameters"] = {"weight": {"search": [1.0, 0.2]}}

    message = run_refused(tmp_path, space(change))
    assert "recipe.models[0].parameters.weight.search" in message
    assert "low below high, got [1.0, 0.2]" in message


def test_a_file_that_is_not_there_or_no_yaml(tmp_path):
    assert "nothing.yml: cannot be read" in refuse("run", tmp_path / "nothing.yml")
    (tmp_path / "bad.yml").write_text("recipe: [1, 2\ntasks: x\n")
    assert "bad.yml:2: not valid YAML" in refuse("check", tmp_path / "bad.yml")
    for kind in ("recipe", "genome"):
        (tmp_path / "twice.yml").write_text(
            f"{kind}: {{merge_method: linear}}\ntasks: []\n{kind}: 2"
        )
        message = refuse("check", tmp_path / "twice.yml")
        assert f"twice.yml:3: not valid YAML: the key '{kind}' is there twice" in message


def test_merge_leaves_nothing_half_written(tmp_path, damaged):
    model = damaged(lambda path: (path / "model.safetensors").write_bytes(b"nonsense"))
    recipe = {
        "merge_method": "linear",
        "models": [
            {"model": name, "parameters": {"weight": 1.0}} for name in (str(MODELS / "add"), model)
        ],
    }
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    before = sorted(tmp_path.iterdir())
    assert "model.safetensors" in refuse("merge", tmp_path / "recipe.yml", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_merge_does_not_overwrite(tmp_path):
    recipe = {"merge_method": "passthrough", "models": [{"model": str(MODELS / "add")}]}
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    assert "out" in refuse("merge", tmp_path / "recipe.yml", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious.txt"]


def test_export_of_no_run_and_of_no_trial(tmp_path):
    assert "not a run directory" in refuse("export", tmp_path, tmp_path / "out")


def test_methods_and_eval():
    assert "did you mean 'slerp'" in refuse("methods", "slrep")
    message = refuse("eval", "models/none", "--space", "search_spaces/quickstart.yml", cwd=ROOT)
    assert "models/none" in message


def test_a_bad_worker_start_is_one_message_with_ray_too(tmp_path, space):
    path = space(lambda d: d["tasks"][0].update(name="playground_ad"))
    message = refuse("run", path, "--out", tmp_path / "run", "--workers", 2)
    assert "playground_add" in message
