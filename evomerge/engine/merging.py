"""The one computation behind every way of merging."""

from collections.abc import Callable, Hashable, Iterable, Sequence

import torch

from evomerge.engine.facts import FactStore, NotFiniteError, TensorFacts
from evomerge.engine.native.merging import Merging, begin_merge
from evomerge.engine.plan import MergePlan, PlannedTensor
from evomerge.engine.workspace import Workspace
from evomerge.errors import EvaluationError, RecipeError
from evomerge.methods import METHODS
from evomerge.methods.draws import draw_key
from evomerge.methods.interface import Kernel

__all__ = ["Checked", "merge_tensor", "raise_first", "torch_dtype"]

Checked = Callable[[], EvaluationError | None]
"""Waits for a merged tensor; returns what is wrong with its numbers or with those of a source."""


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
) -> Checked:
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
        EvaluationError: if a source has values that are not finite, and this is found at once.
        RecipeError: if the numbers of the recipe make no merge for this tensor.
    """
    if tensor.settings is None:
        out.copy_(inputs[0])
        return lambda: None
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

    def damaged(suspects: Iterable[int]) -> EvaluationError | None:
        i = next((i for i in suspects if not facts.finite(i)), None)
        return None if i is None else _damaged(*tensor.inputs[i], inputs[i])

    try:
        kernel = METHODS[plan.method].load()(tensor.settings, facts)
    except NotFiniteError as exc:
        raise _damaged(*tensor.inputs[exc.i], inputs[exc.i]) from exc
    except RecipeError as exc:
        raise RecipeError(f"tensor {tensor.name!r}: {exc}") from exc
    dtype = torch_dtype(tensor.dtype)
    merging = None
    if out.is_contiguous() and workspace.native is not None:
        merging = begin_merge(workspace.native, kernel, flat, dtype, out.view(-1))
    if merging is not None:
        return lambda: _problem(tensor, merging, damaged)
    raise_first([damaged(range(len(flat)))])
    fits = _merge_blocks(kernel, flat, dtype, out, workspace)
    return lambda: None if fits() else _overflow(tensor)


def _problem(
    tensor: PlannedTensor,
    merging: Merging,
    damaged: Callable[[Iterable[int]], EvaluationError | None],
) -> EvaluationError | None:
    """Wait for native loops; return what is wrong with the numbers that they read and wrote."""
    sources, result = merging.wait()
    suspects = [i for i in range(len(tensor.inputs)) if i not in merging.read or not sources]
    return damaged(suspects) or (None if result else _overflow(tensor))


def _merge_blocks(
    kernel: Kernel,
    flat: Sequence[torch.Tensor],
    dtype: torch.dtype,
    out: torch.Tensor,
    workspace: Workspace,
) -> Callable[[], bool]:
    """Merge block by block; return what tells whether the type holds all numbers."""
    direct = out.is_contiguous()
    goal = (out if direct else torch.empty(out.shape, dtype=dtype, device=out.device)).view(-1)

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


def raise_first(problems: Iterable[EvaluationError | None]) -> None:
    """Raise the first of what `Checked` returned that is an error.

    Raises:
        EvaluationError: if there is one.
    """
    problem = next((each for each in problems if each is not None), None)
    if problem is not None:
        raise problem


def _overflow(tensor: PlannedTensor) -> EvaluationError:
    return EvaluationError(
        f"merged tensor {tensor.name!r} has values that {tensor.dtype} cannot hold, though "
        "its sources are finite; use smaller weights or a wider out_dtype"
    )


def _damaged(model: str, name: str, source: torch.Tensor) -> EvaluationError:
    bad = int((~torch.isfinite(source.float())).sum())
    return EvaluationError(
        f"tensor {name!r} of {model} has {bad} values that are NaN or infinite (after rounding to "
        "the recipe's dtype, if that is narrower); repair or leave out this model"
    )
