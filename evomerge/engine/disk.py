"""Merging onto the disk, tensor by tensor."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from evomerge.checkpoints import (
    Checkpoint,
    TensorSpec,
    fit_towers,
    locate,
    open_checkpoint,
    write_checkpoint,
)
from evomerge.checkpoints.writing import check_free
from evomerge.engine.facts import FactStore
from evomerge.engine.merging import merge_tensor, raise_first, torch_dtype
from evomerge.engine.native import native_loops, prompt_threads
from evomerge.engine.overlap import Memory, Outputs, ahead
from evomerge.engine.plan import MergePlan, PlannedTensor, plan_merge
from evomerge.engine.workspace import BLOCK, Workspace
from evomerge.errors import PrerequisiteError
from evomerge.recipe import Recipe

__all__ = ["merge_to_disk"]

Progress = Callable[[int, int], None]
"""Called with the bytes merged so far and in all."""

_DEVICE_BLOCK = 1 << 22
"""Elements merged at a time where a kernel's start costs more than its memory."""


@torch.no_grad()
def merge_to_disk(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    shard_bytes: float = 5e9,
    progress: Progress | None = None,
    model_card: str | None = None,
    recipe_text: str | None = None,
    folder: Path | None = None,
    checkpoints: Mapping[str, Checkpoint] | None = None,
    device: torch.device | str = "cpu",
) -> MergePlan:
    """Merge a recipe into a new checkpoint that appears complete or not at all.

    Reading, merging and writing overlap. Only the sources of one tensor and two results are in
    memory at a time: less than (number of sources + 3) times the largest tensor, and a fixed
    amount for the libraries. The tensors equal, bit for bit, what `materialize` computes with the
    same seed on the same kind of device.

    Args:
        recipe: What to merge.
        out: The folder to make.
        seed: The run's seed, for random methods.
        shard_bytes: Largest size of a shard.
        progress: Called after each tensor with the bytes merged and all bytes.
        model_card: Text of `README.md`.
        recipe_text: Text of `recipe.yml`, if it is more than this recipe.
        folder: Where the recipe's relative paths may start; the working directory goes first.
        checkpoints: The open models, if they are at hand.
        device: Where to compute: `cpu`, `cuda`, or `auto` for CUDA where there is one.

    Returns:
        The plan that was carried out.

    Raises:
        RecipeError: if the recipe does not fit the models.
        CheckpointError: if a model is missing or damaged, `out` is not free, or its disk is full.
        EvaluationError: if a source or a merged tensor is not finite.
        PrerequisiteError: if there is no such device.
    """
    check_free(out)
    device = _find_device(device)
    if checkpoints is None:
        checkpoints = fit_towers(
            {name: open_checkpoint(locate(name, folder or Path())) for name in recipe.model_names()}
        )
    plan = plan_merge(recipe, checkpoints)
    specs = [TensorSpec(tensor.name, tensor.dtype, tensor.shape) for tensor in plan.outputs]
    documents, files = _company(recipe, plan, model_card)
    if recipe_text is not None:
        documents["recipe.yml"] = recipe_text
    total = sum(spec.num_bytes for spec in specs)
    done = 0
    workspace = Workspace(
        device,
        BLOCK if device.type == "cpu" else _DEVICE_BLOCK,
        native_loops(device, plan.num_parameters),
    )
    sources = _Sources(plan, checkpoints, device)
    store = FactStore(keep=False)
    with (
        write_checkpoint(
            out, specs, shard_bytes=shard_bytes, documents=documents, files=files
        ) as writer,
        Outputs(
            writer.write,
            max((spec.num_bytes for spec in specs), default=0),
            pinned=device.type == "cuda",
        ) as outputs,
        closing(ahead(plan.outputs, sources.fetch, sources.num_bytes)) as fetched,
        prompt_threads(),
    ):
        for tensor, spec in zip(fetched, specs, strict=True):
            dtype = torch_dtype(tensor.dtype)
            result = outputs.tensor(tensor.shape, dtype)
            goal = (
                result
                if device.type == "cpu"
                else torch.empty(tensor.shape, dtype=dtype, device=device)
            )
            # Nothing may hold the sources any longer: they are memory of this process.
            problem = merge_tensor(
                plan,
                tensor,
                sources.read(tensor),
                goal,
                fingerprint=lambda model: checkpoints[model].fingerprint(),
                store=store,
                workspace=workspace,
                seed=seed,
            )()
            raise_first([problem])
            outputs.put(tensor.name, goal if goal is result else result.copy_(goal))
            done += spec.num_bytes
            if progress is not None:
                progress(done, total)
    return plan


class _Sources:
    """The inputs of planned tensors, one tensor at a time."""

    def __init__(
        self, plan: MergePlan, checkpoints: Mapping[str, Checkpoint], device: torch.device
    ) -> None:
        self._checkpoints = checkpoints
        self._device = device
        self._compute = torch_dtype(plan.compute_dtype) if plan.compute_dtype else None
        self._largest = max((tensor.numel for tensor in plan.outputs), default=0)
        self._rounded: dict[int, Memory] = {}

    def num_bytes(self, tensor: PlannedTensor) -> int:
        """Return the bytes that a tensor's inputs have on the disk."""
        return sum(
            self._checkpoints[model].tensors[name].num_bytes for model, name in tensor.stored()
        )

    def fetch(self, tensor: PlannedTensor) -> None:
        """Bring the inputs from the disk into the system's file cache."""
        for model, name in tensor.stored():
            self._checkpoints[model].fetch(name)

    def read(self, tensor: PlannedTensor) -> list[torch.Tensor]:
        """Return the inputs on the device, rounded to the plan's compute type.

        Good until the next call.
        """
        return [self._round(i, self._stored(tensor, i)) for i in range(len(tensor.inputs))]

    def _stored(self, tensor: PlannedTensor, i: int) -> torch.Tensor:
        """Return input i as its checkpoint has it: the one place where inputs are read."""
        rows = tensor.row_map(i)
        if rows is not None:
            return rows.gather(lambda model, name: self._checkpoints[model].mapped(name))
        model, name = tensor.inputs[i]
        return self._checkpoints[model].mapped(name)

    def _round(self, i: int, source: torch.Tensor) -> torch.Tensor:
        source = source.to(self._device)
        compute = self._compute
        if compute is None or source.dtype == compute or not source.is_floating_point():
            return source
        if self._device.type != "cpu" or source.numel() > self._largest:
            return source.to(compute)
        memory = self._rounded.get(i)
        if memory is None:
            memory = self._rounded[i] = Memory(self._largest * compute.itemsize)
        return memory.tensor(tuple(source.shape), compute).copy_(source)


def _find_device(device: torch.device | str) -> torch.device:
    """Return a device that works.

    Raises:
        PrerequisiteError: if this one does not.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found).cpu()
    except (AssertionError, NotImplementedError, RuntimeError) as exc:
        reason = str(exc).partition("\n")[0]
        raise PrerequisiteError(
            f"device {str(device)!r} is not there ({reason}); merge on 'cpu', or on 'cuda' with an "
            "NVIDIA GPU, its driver and a torch built for it"
        ) from exc
    return found


def _company(
    recipe: Recipe,
    plan: MergePlan,
    model_card: str | None,
) -> tuple[dict[str, Mapping[str, Any] | str], tuple[Path, ...]]:
    """Return the documents to write and the files to copy beside the tensors."""
    documents: dict[str, Mapping[str, Any] | str] = {
        "config.json": plan.config,
        "recipe.yml": recipe.to_yaml(),
    }
    if plan.generation_config is not None:
        documents["generation_config.json"] = plan.generation_config
    documents |= plan.tokenizer.documents
    if model_card is not None:
        documents["README.md"] = model_card
    return documents, plan.tokenizer.files
