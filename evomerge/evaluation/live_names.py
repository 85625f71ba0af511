"""The tensors of a live transformers model under the names that its checkpoint uses."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from evomerge.errors import EvaluationError

__all__ = ["checkpoint_views"]


def checkpoint_views(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return views of a model's tensors, named and shaped as ``save_pretrained`` writes them.

    Since version 5 transformers stacks and concatenates some tensors of a checkpoint (experts, for
    one) while loading, and has a public function that undoes it. Where that function copies, the
    places its elements came from are found by giving it tensors of indices, and the view is made.

    Raises:
        EvaluationError: if a tensor of the checkpoint is no regular view of a live one.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # before version 5 the names were those of the checkpoint
        return dict(model.state_dict())
    state: dict[str, torch.Tensor] = dict(model.state_dict())
    named: Mapping[str, Any] = revert_weight_conversion(model, dict(state))
    live = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    views = {
        name: tensor
        for name, tensor in named.items()
        if tensor.untyped_storage().data_ptr() in live
    }
    if len(views) == len(named):
        return views
    whole = {tensor.data_ptr() for tensor in views.values()}
    for name, tensor in state.items():
        if tensor.data_ptr() in whole:
            continue
        kind = torch.int32 if tensor.numel() < 2**31 else torch.int64
        indices = torch.arange(tensor.numel(), dtype=kind).reshape(tensor.shape)
        for part, places in revert_weight_conversion(model, {name: indices}).items():
            views[part] = _view(model, part, tensor, places)
    return {name: views[name] for name in named}


def _view(
    model: PreTrainedModel, name: str, tensor: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """Return the view of a contiguous tensor whose elements are at these flat places."""
    start = int(places.flatten()[0])
    strides = [
        int(places.select(axis, 1).flatten()[0]) - start if size > 1 else 1
        for axis, size in enumerate(places.shape)
    ]
    expected = torch.full_like(places, start)
    for axis, (size, stride) in enumerate(zip(places.shape, strides, strict=True)):
        shape = [size if other == axis else 1 for other in range(places.dim())]
        expected += (torch.arange(size, dtype=places.dtype) * stride).reshape(shape)
    if min(strides, default=1) < 0 or not tensor.is_contiguous() or (expected != places).any():
        raise EvaluationError(
            f"{type(model).__name__}: transformers stores {name!r} in a form that the hf backend "
            "cannot overwrite in place; use backend: vllm"
        )
    return tensor.as_strided(places.shape, strides, tensor.storage_offset() + start)
