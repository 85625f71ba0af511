"""Merging into a vLLM engine: the sources and the arithmetic are in its own worker processes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from evomerge.checkpoints import Checkpoint
from evomerge.engine import MergePlan
from evomerge.errors import EvaluationError
from evomerge.evaluation.dtypes import compute_dtype
from evomerge.evaluation.vllm import VllmModel, check_vllm
from evomerge.recipe import Recipe
from evomerge.workers.assignment import WorkerSpec
from evomerge.workers.model_folder import make_model_folder
from evomerge.workers.structure import Structures

if TYPE_CHECKING:
    import torch

__all__ = ["VllmBackend"]

_log = logging.getLogger(__name__)
_EXTENSION = "evomerge.workers.vllm_extension.MergeExtension"


class VllmBackend:
    """An engine whose workers hold the sources and merge them.

    Args:
        spec: Device, evaluation settings and seed.
        checkpoints: The sources, by the names that recipes use.

    Attributes:
        starts: How often an engine was started.

    Raises:
        PrerequisiteError: if vLLM cannot run here.
        EvaluationError: if it has no such option.
    """

    def __init__(self, spec: WorkerSpec, checkpoints: Mapping[str, Checkpoint]) -> None:
        check_vllm(spec.evaluation, spec.device)
        self._spec = spec
        self._checkpoints = checkpoints
        self.bank_bytes = sum(checkpoint.num_bytes for checkpoint in checkpoints.values())
        self.starts = 0
        self._model: VllmModel | None = None
        self._structures = Structures(spec.evaluation.dtype, spec.device)
        self._structure: object = None
        self._refusal: str | None = None

    def fits(self, plan: MergePlan) -> bool:
        """Return whether a sound engine runs a model of this config, tokenizer and shapes."""
        model = self._model
        return (
            model is not None and not model.broken and self._structures.of(plan) == self._structure
        )

    def build(self, recipe: Recipe, plan: MergePlan) -> VllmModel:
        """Start an engine for the plan's config, and read the sources in its workers."""
        self.drop()
        if self._refusal is not None:
            raise EvaluationError(self._refusal)
        dtype = compute_dtype(self._spec.evaluation.dtype, plan.config, self._spec.device)
        with TemporaryDirectory(prefix="evomerge-vllm-") as place:
            folder = make_model_folder(
                Path(place), recipe, plan, self._checkpoints, seed=self._spec.seed
            )
            try:
                self._model = VllmModel(
                    folder, settings=self._spec.evaluation, dtype=dtype, extension=_EXTENSION
                )
            except EvaluationError as error:
                if not self.starts:  # it never worked: do not try for minutes in each trial
                    self._refusal = str(error)
                raise
        self.starts += 1
        self._structure = self._structures.of(plan)
        places = self._model.call("evomerge_open", list(self._checkpoints))
        if self._spec.device != "cpu" and "cpu" in places:
            _log.warning(
                "the sources do not fit beside the engine and are merged in host memory, which is "
                "slower; lower evaluation.vllm.gpu_memory_utilization to make room"
            )
        return self._model

    def materialize(self, recipe: Recipe, plan: MergePlan) -> None:  # noqa: ARG002
        """Merge in the engine's workers, and load what came out if it is sound."""
        model = self._model
        assert model is not None  # noqa: S101 - the caller has asked `fits`
        if model.dirty:
            model.call("evomerge_clear_cache")
            model.dirty = False
        refusals = model.call("evomerge_merge", recipe.to_dict(), self._spec.seed)
        for refusal in refusals:
            if refusal is not None:
                raise EvaluationError(refusal)
        model.call("evomerge_load")
        model.forget()

    def moves_along(
        self,
        plan: MergePlan,  # noqa: ARG002
        tangents: Sequence[MergePlan],  # noqa: ARG002
        gradients: Mapping[str, "torch.Tensor"],  # noqa: ARG002
    ) -> list[float]:
        """Refuse: vLLM has no backward pass."""
        raise EvaluationError("gradients need evaluation.backend: hf")

    def drop(self) -> None:
        """Stop the engine; the sources go with it."""
        model, self._model = self._model, None
        if model is not None:
            model.close()
