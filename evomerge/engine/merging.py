"""The one computation behind every way of merging."""

from collections.abc import Callable, Hashable, Sequence

import torch

from evomerge.engine.facts import FactStore, TensorFacts
from evomerge.engine.plan import MergePlan, PlannedTensor
from evomerge.engine.workspace import Workspace
from evomerge.errors import EvaluationError, RecipeError
from evomerge.methods import METHODS
from evomerge.methods.draws import draw_key

__all__ = ["Finite", "check_finite", "merge_tensor", "torch_dtype"]

Finite = Callable[[], bool]
"""Waits for a merged tensor; returns whether its type holds all its numbers."""


def torch_dtype(name: str) -> torch.dtype:
    """Return the type of this name."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)  # noqa: S101
    return dtype


def merge_tensor(
    plan: MergePlan,
    tensor: PlannedTensor,
    inputs: Sequence[torch.Tensor],
    out: torch.Tensor,
    *,
    fingerprint: Callable[[str], str],
    store: FactStore,
    workspace: Workspace,
    seed: int,
) -> Finite:
    """Merge one tensor.

    Args:
        plan: The plan it belongs to.
        tensor: Its part of the plan.
        inputs: Its sources on the workspace's device, rounded to the plan's compute type.
        out: Where the result goes, any floating type or device: rounded to the planned type
            first, then copied.
        fingerprint: Gives what identifies a model's content.
        store: Static facts.
        workspace: Scratch memory.
        seed: The run's seed.

    Returns:
        What waits for the end. Until then the result may be unfinished, and the inputs must not
        change.

    Raises:
        EvaluationError: if a source has values that are not finite.
        RecipeError: if the numbers of the recipe make no merge for this tensor.
    """
    if tensor.settings is None:
        out.copy_(inputs[0])
        return lambda: True
    flat = [source.reshape(-1) for source in inputs]
    keys: list[Hashable] = [
        (*tensor.content(i), plan.compute_dtype) for i in range(len(tensor.inputs))
    ]
    facts = TensorFacts(
        store,
        flat,
        keys,
        workspace=workspace,
        draw=lambda i: draw_key(seed, tensor.name, fingerprint(tensor.inputs[i][0])),
        shape=tensor.shape,
    )
    for i, (model, name) in enumerate(tensor.inputs):
        if not facts.finite(i):
            raise _damaged(model, name, inputs[i])
    try:
        kernel = METHODS[plan.method].load()(tensor.settings, facts)
    except RecipeError as exc:
        raise RecipeError(f"tensor {tensor.name!r}: {exc}") from exc
    dtype = torch_dtype(tensor.dtype)
    direct = out.is_contiguous()
    goal = (out if direct else torch.empty(out.shape, dtype=dtype, device=out.device)).view(-1)
    if direct and workspace.native is not None:
        finite = workspace.native.merge(kernel, flat, dtype, goal)
        if finite is not None:
            return finite

    def merge_block(space: Workspace) -> tuple[torch.Tensor, torch.Tensor]:
        result = space.result()
        kernel(space, result)
        if dtype != torch.float32:
            result = space.rounded(dtype).copy_(result)
        goal[space.start : space.start + result.numel()].copy_(result)
        low, high = torch.aminmax(result)
        return low, high

    pairs = workspace.each(flat, merge_block)
    extremes = [value for pair in pairs for value in pair]
    if not direct:
        out.copy_(goal.view(out.shape))
    return lambda: not extremes or bool(torch.isfinite(torch.stack(extremes)).all())


def check_finite(tensors: Sequence[tuple[PlannedTensor, bool]]) -> None:
    """Check that merged tensors hold numbers.

    Args:
        tensors: What was merged, and what its `Finite` returned.

    Raises:
        EvaluationError: naming the first tensor that is not finite.
    """
    for tensor, is_finite in tensors:
        if not is_finite:
            raise EvaluationError(
                f"merged tensor {tensor.name!r} has values that {tensor.dtype} cannot hold, though "
                "its sources are finite; use smaller weights or a wider out_dtype"
            )


def _damaged(model: str, name: str, source: torch.Tensor) -> EvaluationError:
    bad = int((~torch.isfinite(source.float())).sum())
    return EvaluationError(
        f"tensor {name!r} of {model} has {bad} values that are NaN or infinite (after rounding to "
        "the recipe's dtype, if that is narrower); repair or leave out this model"
    )
