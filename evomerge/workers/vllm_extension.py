"""What vLLM mixes into its own workers, so that candidates are merged where they are needed.

vLLM imports this module in each of its worker processes (``worker_extension_cls``) and calls the
methods by name with plain data (``collective_rpc``).
"""

from collections.abc import Callable
from typing import Any

import torch

from evomerge.checkpoints import Checkpoint, open_checkpoint
from evomerge.documents import Origin
from evomerge.engine import Bank, MergePlan, materialize, plan_merge
from evomerge.errors import EvomergeError
from evomerge.recipe import parse_recipe

__all__ = ["MergeExtension"]

_ROOM = 1.25
"""Device memory wanted for sources and result, over their size."""


class MergeExtension:
    """Methods of a vLLM worker that hold the sources, merge them and load the result.

    With tensor parallelism every worker merges all tensors and vLLM's weight loading takes the
    worker's part of each, as it does from a file.
    """

    # What a worker of vLLM has.
    device: torch.device
    model_runner: Any
    reload_weights: Callable[..., None]
    get_model: Callable[[], torch.nn.Module]

    evomerge_sources: "_Sources"

    def evomerge_open(self, models: list[str]) -> str:
        """Read every tensor of the models; return where they are."""
        checkpoints = {name: open_checkpoint(name) for name in models}
        self.evomerge_sources = _Sources(checkpoints, _place(self.device, checkpoints))
        return str(self.evomerge_sources.device)

    def evomerge_merge(self, recipe: dict[str, Any], seed: int) -> str | None:
        """Merge a recipe beside the live model; return why that is impossible, if it is."""
        try:
            self.evomerge_sources.merge(recipe, seed)
        except EvomergeError as error:
            return str(error)
        return None

    def evomerge_load(self) -> None:
        """Load what was merged last. An exception in here leaves a model of two halves."""
        self.reload_weights(weights_iterator=iter(self.evomerge_sources.merged.items()))
        _refresh_heads(self.get_model())

    def evomerge_clear_cache(self) -> None:
        """Fill the key-value cache with zeros.

        Attention multiplies what is stale in a block by zero, and zero times NaN is NaN.
        """
        for cache in self.model_runner.kv_caches:
            for tensor in cache if isinstance(cache, list | tuple) else [cache]:
                tensor.zero_()


class _Sources:
    """The bank of a worker, and memory for a merged model in its own types."""

    def __init__(self, checkpoints: dict[str, Checkpoint], device: torch.device) -> None:
        self.device = device
        self.merged: dict[str, torch.Tensor] = {}
        self._checkpoints = checkpoints
        self._bank = Bank(checkpoints, device)

    def merge(self, recipe: dict[str, Any], seed: int) -> None:
        """Merge into `merged`: the values that an export writes, rounded once."""
        plan = plan_merge(parse_recipe(recipe, Origin("the candidate")), self._checkpoints)
        self._make_room(plan)
        materialize(plan, self._bank, self.merged, seed=seed)

    def _make_room(self, plan: MergePlan) -> None:
        old, self.merged = self.merged, {}
        for tensor in plan.outputs:
            dtype = getattr(torch, tensor.dtype)
            known = old.pop(tensor.name, None)
            if known is None or (known.shape, known.dtype) != (tensor.shape, dtype):
                known = torch.empty(tensor.shape, dtype=dtype, device=self.device)
            self.merged[tensor.name] = known


def _place(device: torch.device, checkpoints: dict[str, Checkpoint]) -> torch.device:
    """Return the engine's device if sources and one result fit beside the engine, else the CPU."""
    if device.type != "cuda":
        return torch.device("cpu")
    sizes = [checkpoint.num_bytes for checkpoint in checkpoints.values()]
    free, _ = torch.cuda.mem_get_info(device)
    return device if (sum(sizes) + max(sizes)) * _ROOM < free else torch.device("cpu")


def _refresh_heads(model: torch.nn.Module) -> None:
    """Let embeddings and heads pack their weights again.

    On a CPU vLLM multiplies by a packed copy of a head's weights. A head that is tied to the
    embedding gets no weights of its own, so reloading leaves its copy as it was.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
            module.quant_method.process_weights_after_loading(module)
