"""Merging onto the disk, tensor by tensor."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from evomerge.checkpoints import (
    Checkpoint,
    TensorSpec,
    locate,
    open_checkpoint,
    tokenizer_files,
    write_checkpoint,
)
from evomerge.checkpoints.writing import check_free
from evomerge.engine.assets import chat_template
from evomerge.engine.facts import FactStore
from evomerge.engine.merging import check_finite, merge_tensor, torch_dtype
from evomerge.engine.plan import MergePlan, plan_merge
from evomerge.engine.workspace import Workspace
from evomerge.recipe import Recipe

__all__ = ["merge_to_disk"]

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and in all."""


@torch.no_grad()
def merge_to_disk(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    shard_bytes: float = 5e9,
    progress: Progress | None = None,
    model_card: str | None = None,
    folder: Path | None = None,
    checkpoints: Mapping[str, Checkpoint] | None = None,
    device: torch.device | str = "cpu",
) -> MergePlan:
    """Merge a recipe into a new checkpoint that appears complete or not at all.

    Only the sources of one tensor are in memory at a time. The tensors equal, bit for bit, what
    `materialize` computes with the same seed on the same kind of device.

    Args:
        recipe: What to merge.
        out: The folder to make.
        seed: The run's seed, for random methods.
        shard_bytes: Largest size of a shard.
        progress: Called after each tensor with the bytes written and all bytes.
        model_card: Text of `README.md`.
        folder: Where the recipe's relative paths may start; the working directory goes first.
        checkpoints: The open models, if they are at hand.
        device: Where to compute.

    Returns:
        The plan that was carried out.

    Raises:
        RecipeError: if the recipe does not fit the models.
        CheckpointError: if a model is missing or damaged, or `out` is not free.
        EvaluationError: if a source or a merged tensor is not finite.
    """
    check_free(out)
    if checkpoints is None:
        checkpoints = {
            name: open_checkpoint(locate(name, folder or Path())) for name in recipe.model_names()
        }
    plan = plan_merge(recipe, checkpoints)
    specs = [TensorSpec(tensor.name, tensor.dtype, tensor.shape) for tensor in plan.outputs]
    documents, files = _company(recipe, plan, checkpoints, model_card)
    total = sum(spec.num_bytes for spec in specs)
    done = 0
    workspace = Workspace(torch.device(device))
    store = FactStore(keep=False)
    compute = torch_dtype(plan.compute_dtype) if plan.compute_dtype else None

    def read(model: str, name: str) -> torch.Tensor:
        tensor = checkpoints[model].read(name).to(workspace.device)
        return tensor.to(compute) if compute and tensor.is_floating_point() else tensor

    with write_checkpoint(
        out, specs, shard_bytes=shard_bytes, documents=documents, files=files
    ) as writer:
        for tensor, spec in zip(plan.outputs, specs, strict=True):
            goal = torch.empty(tensor.shape, dtype=torch_dtype(tensor.dtype))
            extremes = merge_tensor(
                plan,
                tensor,
                [read(model, name) for model, name in tensor.inputs],
                goal,
                fingerprint=lambda model: checkpoints[model].fingerprint(),
                store=store,
                workspace=workspace,
                seed=seed,
            )
            check_finite([(tensor, extremes)])
            writer.write(tensor.name, goal)
            done += spec.num_bytes
            if progress is not None:
                progress(done, total)
    return plan


def _company(
    recipe: Recipe,
    plan: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    model_card: str | None,
) -> tuple[dict[str, Mapping[str, Any] | str], tuple[Path, ...]]:
    """Return the documents to write and the files to copy beside the tensors."""
    documents: dict[str, Mapping[str, Any] | str] = {
        "config.json": plan.config,
        "recipe.yml": recipe.to_yaml(),
    }
    generation = checkpoints[plan.config_donor].generation_config
    if generation is not None:
        documents["generation_config.json"] = generation
    template = chat_template(recipe.chat_template, tuple(checkpoints.items()))
    if template is not None:
        documents["chat_template.jinja"] = template
    if model_card is not None:
        documents["README.md"] = model_card
    return documents, tokenizer_files(plan.tokenizer)
