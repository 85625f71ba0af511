"""Merge plain tensors with a method's function, for the tests of methods."""

from collections.abc import Sequence
from typing import Any

import torch

from evomerge.engine.facts import FactStore, TensorFacts
from evomerge.engine.workspace import Workspace
from evomerge.methods import METHODS
from evomerge.methods.draws import draw_key
from evomerge.methods.interface import Settings


def merge(
    method: str,
    tensors: Sequence[torch.Tensor],
    *,
    block: int = 1 << 16,
    seed: int = 0,
    keep: bool = True,
    base: bool = False,
    names: Sequence[str] = "abcdefgh",
    **parameters: Any,
) -> torch.Tensor:
    """Merge tensors, the base first; a list gives each source its own value.

    With `base` the first tensor is a base that the method takes but does not need.
    """
    spec = METHODS[method]
    has_base = not spec.base_is_source and (spec.base == "required" or base)
    sources = len(tensors) - has_base
    own: list[dict[str, Any]] = [{} for _ in range(sources)]
    shared: dict[str, Any] = {}
    for parameter in spec.parameters:
        value = parameters.pop(parameter.name, parameter.default)
        if not parameter.per_model:
            shared[parameter.name] = value
            continue
        for i, values in enumerate(own):
            values[parameter.name] = value[i] if isinstance(value, list) else value
    assert not parameters
    flat = [tensor.reshape(-1) for tensor in tensors]
    workspace = Workspace(torch.device("cpu"), block)
    facts = TensorFacts(
        FactStore(keep=keep),
        flat,
        names[: len(flat)],
        workspace=workspace,
        draw=lambda i: draw_key(seed, "tensor", names[i]),
        shape=tuple(tensors[0].shape),
    )
    kernel = spec.load()(Settings(shared, tuple(own), has_base), facts)
    out = torch.empty(flat[0].numel())
    for start in range(0, out.numel(), block):
        workspace.enter(flat, start, min(start + block, out.numel()))
        kernel(workspace, workspace.result())
        out[start : start + block] = workspace.result()
    return out.reshape(tensors[0].shape)
