"""The bank: source tensors resident on one device, and the facts about them."""

from collections.abc import Mapping

import torch

from evomerge.checkpoints import Checkpoint
from evomerge.engine.facts import FactStore
from evomerge.engine.workspace import BLOCK, Workspace
from evomerge.errors import CheckpointError

__all__ = ["Bank"]


class Bank:
    """All source tensors of a search on one device, read once.

    Attributes:
        device: Where they are.
        facts: What is known about them.
        workspace: Scratch memory beside them.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        device: torch.device | str = "cpu",
        *,
        block: int = BLOCK,
    ) -> None:
        """Read every tensor of every checkpoint.

        Args:
            checkpoints: The models by the names that recipes use.
            device: Where the tensors go.
            block: Elements that are merged at a time; the result does not depend on it.

        Raises:
            CheckpointError: if a file cannot be read.
        """
        self.device = torch.device(device)
        self.facts = FactStore(keep=True)
        self.workspace = Workspace(self.device, block)
        self._checkpoints = dict(checkpoints)
        self._tensors = {
            (model, name): checkpoint.read(name).to(self.device)
            for model, checkpoint in self._checkpoints.items()
            for name in checkpoint.tensors
        }
        self._rounded: dict[tuple[str, str, torch.dtype], torch.Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all resident tensors."""
        held = (*self._tensors.values(), *self._rounded.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def tensor(self, model: str, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a source tensor, rounded to `dtype` if that is given.

        Raises:
            CheckpointError: if the bank does not hold it.
        """
        tensor = self._tensors.get((model, name))
        if tensor is None:
            held = ", ".join(self._checkpoints)
            raise CheckpointError(f"the bank has no tensor {name!r} of {model} (it holds {held})")
        if dtype is None or tensor.dtype == dtype or not tensor.is_floating_point():
            return tensor
        key = (model, name, dtype)
        rounded = self._rounded.get(key)
        if rounded is None:
            rounded = self._rounded[key] = tensor.to(dtype)
        return rounded

    def fingerprint(self, model: str) -> str:
        """Return what identifies a model's content."""
        return self._checkpoints[model].fingerprint()
