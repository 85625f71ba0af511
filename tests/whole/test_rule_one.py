"""Rule 1: what was scored is what is exported."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ENVIRONMENT, ROOT, small_space, succeed

SCORED = """
import json, sys
import torch, yaml
from pathlib import Path
from evomerge.checkpoints import open_checkpoint
from evomerge.engine import Bank, materialize, plan_merge
from evomerge.recipe import load_recipe

recipe = load_recipe(Path(sys.argv[1]))
checkpoints = {name: open_checkpoint(name) for name in recipe.model_names()}
plan = plan_merge(recipe, checkpoints)
live = {o.name: torch.empty(o.shape, dtype=torch.float32) for o in plan.outputs}
materialize(plan, Bank(checkpoints, torch.device("cpu")), live, seed=int(sys.argv[2]))
torch.save(live, sys.argv[3])
"""
LOADED = """
import sys
import torch
from transformers import AutoModelForCausalLM
model, info = AutoModelForCausalLM.from_pretrained(
    sys.argv[1], dtype="auto", output_loading_info=True
)
assert not info["missing_keys"] and not info["unexpected_keys"], info
assert model.dtype == torch.bfloat16
torch.save({k: v.float() for k, v in model.state_dict().items()}, sys.argv[2])
"""


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", ["task_arithmetic", "dare_ties"])
def test_exported_tensors_and_scores_are_those_of_the_trial(tmp_path, method):
    import torch

    from evomerge.evaluation import ItemScores
    from evomerge.search import open_run
    from evomerge.search.evaluate import score_recipe
    from evomerge.space import load_space

    models = ROOT / "search_spaces" / "playground"
    parameters = {"weight": {"search": [0.2, 0.8]}}
    if method == "dare_ties":
        parameters["density"] = {"search": [0.3, 0.9]}
    space = small_space(
        tmp_path / "space.yml",
        recipe={
            "merge_method": method,
            "base_model": str(models / "base"),
            "models": [
                {"model": str(models / name), "parameters": parameters} for name in ("add", "sort")
            ],
            "dtype": "bfloat16",
        },
        search={"trials": 6, "seed": 5, "finalists": 1},
    )
    run = tmp_path / "run"
    succeed("run", space, "--out", run)
    winner = open_run(run).trial()
    succeed("export", run, tmp_path / "merged")

    recipe = tmp_path / "trial.yml"
    recipe.write_text(yaml.safe_dump(dict(winner.recipe)))
    python(SCORED, recipe, 5, tmp_path / "scored.pt")
    python(LOADED, tmp_path / "merged", tmp_path / "loaded.pt")
    scored, loaded = (torch.load(tmp_path / f"{n}.pt") for n in ("scored", "loaded"))
    assert set(scored) <= set(loaded)
    for name, tensor in scored.items():
        assert torch.equal(tensor, loaded[name]), name

    for split in ("search", "holdout"):
        kept = ItemScores.from_parquet(run / "items" / f"{winner.number:05d}.{split}.parquet")
        again, _ = score_recipe(str(tmp_path / "merged"), load_space(space), split=split)
        for task, items in kept.by_task.items():
            assert again.by_task[task] == items


def test_export_writes_recipe_card_and_tokenizer(tmp_path):
    space = small_space(tmp_path / "space.yml", search={"trials": 8, "racing": False})
    run = tmp_path / "run"
    succeed("run", space, "--out", run)
    succeed("export", run, tmp_path / "other", "--trial", 7)
    names = {path.name for path in (tmp_path / "other").iterdir()}
    wanted = {
        "recipe.yml",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert wanted <= names
    card = (tmp_path / "other" / "README.md").read_text()
    assert "| **this model** (trial 7) |" in card
    assert "merge_method: task_arithmetic" in card
    again = succeed("merge", tmp_path / "other" / "recipe.yml", tmp_path / "again", "--seed", 0)
    assert "wrote" in again.stdout
    one, two = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("other", "again"))
    assert one == two
    done = succeed("eval", tmp_path / "again", "--space", space, "--items", "search", "--json")
    from evomerge.search import open_run

    reported = open_run(run).trial(7).search.objective
    assert json.loads(done.stdout)["objective"]["value"] == reported.value
