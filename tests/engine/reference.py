"""The reference merges of `tests/golden`, read for comparison."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from evomerge.checkpoints import Checkpoint, open_checkpoint
from evomerge.recipe import Recipe, load_recipe, parse_recipe

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = tuple(sorted(path.name for path in (GOLDEN / "cases").iterdir()))

_files: dict[str, dict[str, torch.Tensor]] = {}
_checkpoints: dict[str, Checkpoint] = {}


def meta(case: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((GOLDEN / "cases" / case / "meta.json").read_text())
    return data


def recipe(case: str) -> Recipe:
    """Read a case's recipe; its relative paths stay, the tests run inside the golden folder."""
    return load_recipe(GOLDEN / "cases" / case / "config.yml")


def recipe_data(case: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((GOLDEN / "cases" / case / "config.yml").read_text())
    return data


def checkpoints(wanted: Recipe) -> dict[str, Checkpoint]:
    for name in wanted.model_names():
        if name not in _checkpoints:
            _checkpoints[name] = open_checkpoint(name)
    return {name: _checkpoints[name] for name in wanted.model_names()}


def expected(case: str) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a reference merge, or None if they are not kept."""
    information = meta(case)
    twin = information.get("same_as")
    dropped = information.get("tensors_dropped", "")
    if twin is None and "equal to case " in dropped:
        twin = dropped.rpartition("case ")[2]
    if twin in CASES:
        return expected(twin)
    equal = information.get("equal_to")
    if equal is None:
        return None
    tensors = {name: _stored(place) for name, place in equal.items()}
    own = GOLDEN / "cases" / case / "merged" / "model.safetensors"
    return {**tensors, **(load_file(own) if own.is_file() else {})}


def _stored(place: str) -> torch.Tensor:
    file, _, name = place.partition(":")
    if file not in _files:
        _files[file] = load_file(GOLDEN / file)
    return _files[file][name]


def simple(method: str, **changes: Any) -> Recipe:
    """Return a recipe for two of the four-layer models."""
    models = [
        {"model": f"models/llama_{x}", "parameters": {"weight": w, "density": d}}
        for x, w, d in (("a", 0.6, 0.5), ("b", 0.5, 0.3))
    ]
    data = {"merge_method": method, "base_model": "models/llama_base", "models": models}
    return parse_recipe({**data, **changes})
