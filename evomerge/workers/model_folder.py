"""A model directory from which an engine can start, if possible without writing weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.checkpoints import Checkpoint
from evomerge.engine import MergePlan, merge_to_disk
from evomerge.errors import CheckpointError
from evomerge.recipe import Recipe

__all__ = ["make_model_folder"]

_INDEX = "model.safetensors.index.json"


def make_model_folder(
    folder: Path,
    recipe: Recipe,
    plan: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    *,
    seed: int,
) -> Path:
    """Make a folder with a plan's config and tokenizer, and weights of its names and shapes.

    The weights are links to those of a source where one has the merged model's names and shapes;
    only else the merge is written. An engine that starts from real weights checks that none is
    missing, and gets right whatever is computed while loading.

    Args:
        folder: An empty folder.
        recipe: What the plan was made from.
        plan: The plan.
        checkpoints: The sources.
        seed: The run's seed.

    Returns:
        The model's folder, inside `folder`.

    Raises:
        CheckpointError: if it cannot be written.
        EvaluationError: if the merge has to be written and is not finite.
    """
    out = folder / "model"
    source = _source_like(plan, checkpoints)
    if source is None:
        merge_to_disk(recipe, out, seed=seed, checkpoints=checkpoints)
        return out
    documents: dict[str, Mapping[str, Any] | str] = {"config.json": plan.config}
    if plan.generation_config is not None:
        documents["generation_config.json"] = plan.generation_config
    documents |= plan.tokenizer.documents
    weights = dict.fromkeys(info.file for info in source.tensors.values())
    index = source.path / _INDEX
    linked = {file.name: file for file in (*plan.tokenizer.files, *weights)}
    if index.is_file():
        linked[_INDEX] = index
    try:
        out.mkdir()
        for name, content in documents.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (out / name).write_text(text, encoding="utf-8")
        for name, file in linked.items():
            if name not in documents:
                (out / name).symlink_to(file.resolve())
    except OSError as exc:
        raise CheckpointError(f"{out}: cannot be written: {exc.strerror or exc}") from exc
    return out


def _source_like(plan: MergePlan, checkpoints: Mapping[str, Checkpoint]) -> Checkpoint | None:
    """Return a source whose files hold tensors of the plan's names and shapes."""
    wanted = {tensor.name: tensor.shape for tensor in plan.outputs}
    for checkpoint in checkpoints.values():
        # An adapted checkpoint, or one tower of a larger model, is not what its files hold.
        if type(checkpoint) is Checkpoint and wanted == {
            name: info.shape for name, info in checkpoint.tensors.items()
        }:
            return checkpoint
    return None
