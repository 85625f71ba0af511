"""How far a merged model moves along a gradient when its recipe changes a little."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from evomerge.engine.bank import Bank
from evomerge.engine.merging import merge_tensor, raise_first, torch_dtype
from evomerge.engine.native import prompt_threads
from evomerge.engine.plan import MergePlan, PlannedTensor
from evomerge.errors import EvaluationError

__all__ = ["moves_along"]


@torch.no_grad()
def moves_along(
    plan: MergePlan,
    tangents: Sequence[MergePlan],
    bank: Bank,
    gradients: Mapping[str, torch.Tensor],
    *,
    seed: int,
) -> list[float]:
    """Return the inner product of a gradient with merged(tangent) - merged(plan), for each tangent.

    One tensor after the other, and only those whose numbers differ: the memory is that of two
    merged tensors. They are compared before the one rounding to the planned type, which is coarser
    than a small change.

    Args:
        plan: Where the gradient was taken.
        tangents: Plans of the same tensors with other numbers.
        bank: The plans' sources.
        gradients: Merged tensor's name -> gradient; a tensor that is not there counts as zero.
        seed: The run's seed, for random methods.

    Raises:
        EvaluationError: if a tangent has other tensors, or something is not finite.
        RecipeError: if a recipe's numbers make no merge.
    """
    found = [torch.zeros((), dtype=torch.float64, device=bank.device) for _ in range(len(tangents))]
    for tensor, *others in zip(
        plan.outputs, *(_aligned(plan, each) for each in tangents), strict=True
    ):
        gradient = gradients.get(tensor.name)
        moved = [(k, other) for k, other in enumerate(others) if other != tensor]
        if gradient is None or tensor.settings is None or not moved:
            continue
        here = _unrounded(plan, tensor, bank, seed)
        for k, other in moved:
            there = _unrounded(tangents[k], other, bank, seed)
            found[k] += there.sub_(here).mul_(gradient).sum(dtype=torch.float64)
    return [float(each) for each in found]


def _aligned(plan: MergePlan, tangent: MergePlan) -> tuple[PlannedTensor, ...]:
    mine = [(tensor.name, tensor.shape) for tensor in plan.outputs]
    if mine != [(tensor.name, tensor.shape) for tensor in tangent.outputs]:
        raise EvaluationError(
            "a recipe beside the candidate has other tensors: no slope leads from one to the other"
        )
    return tangent.outputs


def _unrounded(plan: MergePlan, tensor: PlannedTensor, bank: Bank, seed: int) -> torch.Tensor:
    """Return a merged tensor as it is before it is rounded."""
    wide = replace(tensor, dtype="float32")
    out = torch.empty(tensor.shape, dtype=torch.float32, device=bank.device)
    with prompt_threads():
        check = merge_tensor(
            plan,
            wide,
            bank.inputs(tensor, torch_dtype(plan.compute_dtype) if plan.compute_dtype else None),
            out,
            fingerprint=bank.fingerprint,
            store=bank.facts,
            workspace=bank.workspace,
            seed=seed,
        )
        raise_first([check()])
    return out
