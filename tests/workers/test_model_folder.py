"""The folder from which an engine starts: links where a source will do, else the merge."""

import json

from safetensors import safe_open
from transformers import AutoTokenizer

from evomerge.checkpoints import open_checkpoint
from evomerge.documents import Origin
from evomerge.engine import plan_merge
from evomerge.recipe import parse_recipe
from evomerge.workers.model_folder import make_model_folder
from tests.conftest import ROOT

ADD = str(ROOT / "search_spaces" / "playground" / "add")


def make(folder, data):
    recipe = parse_recipe(data, Origin("test"))
    checkpoints = {ADD: open_checkpoint(ADD)}
    plan = plan_merge(recipe, checkpoints)
    made = make_model_folder(folder, recipe, plan, checkpoints, seed=0)
    with safe_open(made / "model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert shapes == {tensor.name: tensor.shape for tensor in plan.outputs}
    assert json.loads((made / "config.json").read_text()) == plan.config
    return made


def test_weights_of_a_source_are_linked(tmp_path):
    recipe = {
        "merge_method": "linear",
        "models": [{"model": ADD, "parameters": {"weight": 0.5}}],
        "chat_template": "mine {{ messages }}",
        "dtype": "float32",
    }
    made = make(tmp_path, recipe)
    assert (made / "model.safetensors").is_symlink()
    assert (made / "generation_config.json").is_file()
    assert AutoTokenizer.from_pretrained(made).chat_template == "mine {{ messages }}"


def test_other_shapes_are_written(tmp_path):
    source = {"model": ADD, "layer_range": [1, 3]}
    made = make(tmp_path, {"merge_method": "passthrough", "slices": [{"sources": [source]}]})
    assert not (made / "model.safetensors").is_symlink()
