"""The bank: source tensors resident on one device, and the facts about them."""

from collections.abc import Mapping

import torch

from evomerge.checkpoints import Checkpoint
from evomerge.engine.facts import FactStore
from evomerge.engine.native import native_loops
from evomerge.engine.plan import PlannedTensor
from evomerge.engine.rows import RowMap
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
        self._checkpoints = dict(checkpoints)
        largest = max((c.num_parameters for c in self._checkpoints.values()), default=0)
        self.workspace = Workspace(self.device, block, native_loops(self.device, largest))
        self._tensors = {
            (model, name): checkpoint.read(name).to(self.device)
            for model, checkpoint in self._checkpoints.items()
            for name in checkpoint.tensors
        }
        self._rearranged: dict[RowMap, torch.Tensor] = {}
        self._rounded: dict[tuple[object, torch.dtype], torch.Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all resident tensors."""
        held = (*self._tensors.values(), *self._rearranged.values(), *self._rounded.values())
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
        return self._round((model, name), tensor, dtype)

    def inputs(self, tensor: PlannedTensor, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
        """Return the sources of a merged tensor, rearranged and rounded as planned.

        Both are done once and kept.

        Raises:
            CheckpointError: if the bank does not hold one of them.
        """
        found = []
        for i, (model, name) in enumerate(tensor.inputs):
            rows = tensor.row_map(i)
            if rows is None:
                found.append(self.tensor(model, name, dtype))
                continue
            if rows not in self._rearranged:
                self._rearranged[rows] = rows.gather(self.tensor)
            found.append(self._round(rows, self._rearranged[rows], dtype))
        return found

    def _round(self, key: object, tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
        if dtype is None or tensor.dtype == dtype or not tensor.is_floating_point():
            return tensor
        rounded = self._rounded.get((key, dtype))
        if rounded is None:
            rounded = self._rounded[key, dtype] = tensor.to(dtype)
        return rounded

    def fingerprint(self, model: str) -> str:
        """Return what identifies a model's content."""
        return self._checkpoints[model].fingerprint()
