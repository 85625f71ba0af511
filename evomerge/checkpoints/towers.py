"""A language model beside a vision-language model that was made from its like.

Such a pair has the same layers under other names, and one of them has more towers. The language
model is then seen as the other one with its language tower in it, so that the two can be merged
like any two checkpoints: the language towers with each other, the rest with itself.
"""

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints.checkpoint import Checkpoint
from evomerge.checkpoints.experts import stack_experts
from evomerge.checkpoints.header import TensorInfo
from evomerge.checkpoints.layers import is_head

if TYPE_CHECKING:
    import torch

__all__ = ["TowerCheckpoint", "fit_towers"]


class TowerCheckpoint(Checkpoint):
    """A language model in the place of another model's language tower.

    Attributes:
        tower: The language model.
        around: The model whose other tensors and config it gets.
        path: The language model's folder, for its tokenizer.
    """

    def __init__(self, tower: Checkpoint, around: Checkpoint) -> None:
        """Put the tower in its place.

        Args:
            tower: The language model.
            around: The other.
        """
        self.name = tower.name
        self.tower = tower
        self.around = around
        self.path = tower.path
        self.generation_config = around.generation_config
        self._names = _names_around(tower, around)
        infos: dict[str, TensorInfo] = {}
        for name, info in around.tensors.items():
            own = self._names.get(name)
            infos[name] = info if own is None else tower.tensors[own]
        infos |= {name: tower.tensors[own] for name, own in self._names.items()}
        if tower.tied:
            infos = {name: info for name, info in infos.items() if not around.is_output_head(name)}
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(infos)
        self.config: Mapping[str, Any] = MappingProxyType(_config(tower, around))

    def __repr__(self) -> str:
        return f"TowerCheckpoint({self.name!r} in {self.around.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return TowerCheckpoint, (self.tower, self.around)

    def read(self, name: str) -> "torch.Tensor":
        """Read one tensor into new memory, from the model that has it."""
        return self._owner(name).read(self._names.get(name, name))

    def mapped(self, name: str) -> "torch.Tensor":
        """Return one tensor in the memory of its file where that can be, else read it."""
        return self._owner(name).mapped(self._names.get(name, name))

    def fetch(self, name: str) -> None:
        """Bring one tensor from the disk into the system's file cache, and wait for it."""
        self._owner(name).fetch(self._names.get(name, name))

    def _owner(self, name: str) -> Checkpoint:
        return self.tower if name in self._names else self.around

    @cached_property
    def _fingerprint(self) -> str:
        # Random methods draw for the tower as they do where it stands alone.
        return self.tower.fingerprint()


def fit_towers(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Return checkpoints of which language models are put into the first one with more towers.

    What does not fit is returned as it is; the merge then says which tensors differ.

    Args:
        checkpoints: The models of one recipe by name, the base first.
    """
    around = next((model for model in checkpoints.values() if _has_towers(model)), None)
    if around is None:
        return dict(checkpoints)
    return {name: _fit(model, around) for name, model in checkpoints.items()}


def _fit(model: Checkpoint, around: Checkpoint) -> Checkpoint:
    if _has_towers(model) or model.layers.count != around.layers.count or not model.layers.count:
        return model
    inner, outer = model.layers.stem, around.layers.stem
    shapes = {
        inner + name.removeprefix(outer): info.shape
        for name, info in around.tensors.items()
        if name.startswith(outer)
    }
    tower = stack_experts(model, shapes)
    names = _names_around(tower, around)
    fits = all(name in around.tensors or is_head(name) for name in names)
    return TowerCheckpoint(tower, around) if fits else model


def _has_towers(checkpoint: Checkpoint) -> bool:
    return any(
        key.endswith("_config") and isinstance(value, Mapping) and value.get("model_type")
        for key, value in checkpoint.config.items()
        if key != "quantization_config"
    )


def _names_around(tower: Checkpoint, around: Checkpoint) -> dict[str, str]:
    """Return the tower's tensors by the names they have in the other model."""
    inner, outer = tower.layers.stem, around.layers.stem
    heads = [name for name in around.tensors if is_head(name)]
    names = {}
    for name in tower.tensors:
        if is_head(name):
            new = next((head for head in heads if head.endswith(name)), name)
        else:
            new = outer + name.removeprefix(inner) if name.startswith(inner) else name
        names[new] = name
    return names


def _config(tower: Checkpoint, around: Checkpoint) -> dict[str, Any]:
    config = dict(around.config)
    if tower.tied == around.tied:
        return config
    for key, part in config.items():
        if isinstance(part, Mapping) and "tie_word_embeddings" in part:
            config[key] = {**part, "tie_word_embeddings": tower.tied}
    config["tie_word_embeddings"] = tower.tied
    return config
