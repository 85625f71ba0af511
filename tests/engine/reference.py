"""The reference merges of `tests/golden`, read for comparison."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from evomerge.checkpoints import Checkpoint, open_checkpoint
from evomerge.recipe import Recipe, load_recipe, parse_recipe

GOLDEN = Path(__file__).parents[1] / "golden"
STEP = 2.0**-20
"""Float32 results are kept in whole steps of this size from a source: at most half a step off."""

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
    if "equal_to" not in information:
        return None
    own = _own(case)
    return {name: own[name] for name in own} | {
        name: _stored(place) for name, place in information["equal_to"].items()
    }


def _own(case: str) -> dict[str, torch.Tensor]:
    """Return the tensors that a case keeps itself: exact ones, and steps away from a model."""
    if case not in _files:
        information = meta(case)
        file = GOLDEN / "cases" / case / "merged.npz"
        arrays = dict(np.load(file)) if file.is_file() else {}
        tensors = {
            name: torch.from_numpy(arrays[name]).view(getattr(torch, dtype))
            for name, dtype in information.get("exact", {}).items()
        }
        steps = np.ascontiguousarray(arrays.get("steps", np.zeros((4, 0), np.uint8)).T)
        flat = torch.from_numpy(steps.view(np.int32).reshape(-1)).double() * STEP
        for name, entry in information.get("steps", {}).items():
            shape = torch.Size(entry["shape"])
            part, flat = flat[: shape.numel()], flat[shape.numel() :]
            start = _stored(f"{entry['from']}:{name}").double() if entry["from"] else 0.0
            tensors[name] = (part.reshape(shape) + start).float()
        _files[case] = tensors
    return _files[case]


def _stored(place: str) -> torch.Tensor:
    """Return `models/NAME[/FILE]:TENSOR`, or `cases/NAME/merged.npz:TENSOR`."""
    file, _, name = place.partition(":")
    if file.startswith("cases/"):
        return _own(file.split("/")[1])[name]
    if file not in _files:
        found = GOLDEN / file
        files = sorted(found.glob("*.safetensors")) if found.is_dir() else [found]
        _files[file] = {key: value for one in files for key, value in load_file(one).items()}
    return _files[file][name]


def simple(method: str, **changes: Any) -> Recipe:
    """Return a recipe for two of the four-layer models."""
    models = [
        {"model": f"models/llama_{x}", "parameters": {"weight": w, "density": d}}
        for x, w, d in (("a", 0.6, 0.5), ("b", 0.5, 0.3))
    ]
    data = {"merge_method": method, "base_model": "models/llama_base", "models": models}
    return parse_recipe({**data, **changes})
