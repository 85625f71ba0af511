"""The seam between a worker and what runs the model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from evomerge.checkpoints import Checkpoint
from evomerge.engine import MergePlan
from evomerge.evaluation.model import ScoringModel
from evomerge.recipe import Recipe
from evomerge.workers.assignment import WorkerSpec

if TYPE_CHECKING:
    import torch

__all__ = ["Backend", "open_backend"]


class Backend(Protocol):
    """Resident sources and one live model into which candidates are merged.

    Attributes:
        bank_bytes: Bytes of resident source tensors.
    """

    bank_bytes: int

    def fits(self, plan: MergePlan) -> bool:
        """Return whether there is a sound live model of the plan's shape."""
        ...

    def build(self, recipe: Recipe, plan: MergePlan) -> ScoringModel:
        """Build the live model for plans of this shape, in place of the one that was there.

        Raises:
            EvomergeError: if that is impossible.
        """
        ...

    def materialize(self, recipe: Recipe, plan: MergePlan) -> None:
        """Merge a candidate into the live model, which fits its plan.

        Raises:
            EvomergeError: if the candidate cannot be merged; the live model can be used again.
        """
        ...

    def moves_along(
        self,
        plan: MergePlan,
        tangents: Sequence[MergePlan],
        gradients: Mapping[str, "torch.Tensor"],
    ) -> list[float]:
        """Return how far the live model would move along a gradient with each tangent.

        Raises:
            EvomergeError: if a tangent cannot be merged, or the backend has no gradients.
        """
        ...

    def drop(self) -> None:
        """Free the live model."""
        ...


def open_backend(spec: WorkerSpec, checkpoints: Mapping[str, Checkpoint]) -> Backend:
    """Return the backend that the space asks for.

    Raises:
        PrerequisiteError: if it cannot run here.
        EvomergeError: if a source cannot be read.
    """
    if spec.evaluation.backend == "vllm":
        from evomerge.workers.vllm_backend import VllmBackend

        return VllmBackend(spec, checkpoints)
    from evomerge.workers.hf_backend import HfBackend

    return HfBackend(spec, checkpoints)
