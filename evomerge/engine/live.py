"""Merging into tensors that exist already: the parameters of a live model."""

from collections.abc import Mapping

import torch

from evomerge.engine.bank import Bank
from evomerge.engine.merging import Checked, merge_tensor, raise_first, torch_dtype
from evomerge.engine.native import prompt_threads
from evomerge.engine.plan import MergePlan
from evomerge.errors import CheckpointError

__all__ = ["materialize"]


@torch.no_grad()
def materialize(plan: MergePlan, bank: Bank, out: Mapping[str, torch.Tensor], *, seed: int) -> None:
    """Compute all merged tensors in place.

    Arithmetic is float32 with one rounding to the planned type, and only then each result is
    copied into `out`, whatever type that has: the same values that `merge_to_disk` writes.

    Args:
        plan: From `plan_merge`.
        bank: The plan's sources.
        out: A tensor of the planned shape for each planned name; more names are left alone.
        seed: The run's seed, for random methods.

    Raises:
        CheckpointError: if `out` has no tensor of a planned name and shape.
        EvaluationError: if a source or a merged tensor is not finite; `out` is spoilt then.
        RecipeError: if the recipe's numbers make no merge.
    """
    _check_goal(plan, out)
    compute = torch_dtype(plan.compute_dtype) if plan.compute_dtype else None
    checks: list[Checked] = []
    with prompt_threads():
        try:
            for tensor in plan.outputs:
                check = merge_tensor(
                    plan,
                    tensor,
                    bank.inputs(tensor, compute),
                    out[tensor.name],
                    fingerprint=bank.fingerprint,
                    store=bank.facts,
                    workspace=bank.workspace,
                    seed=seed,
                )
                checks.append(check)
        finally:
            # Whatever happens, nothing is written to `out` after this.
            problems = [check() for check in checks]
    raise_first(problems)


def _check_goal(plan: MergePlan, out: Mapping[str, torch.Tensor]) -> None:
    wrong = []
    for tensor in plan.outputs:
        goal = out.get(tensor.name)
        if goal is None:
            wrong.append(f"  {tensor.name}: the model has none")
        elif goal.shape != tensor.shape:
            wrong.append(f"  {tensor.name}: {list(goal.shape)} for {list(tensor.shape)}")
    if wrong:
        raise CheckpointError(
            "the live model does not have the merged model's tensors:\n" + "\n".join(wrong[:20])
        )
