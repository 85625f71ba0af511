"""Merging into a transformers model of this process."""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from evomerge.checkpoints import Checkpoint
from evomerge.engine import Bank, MergePlan, materialize, moves_along
from evomerge.evaluation import LiveModel, check_gen_kwargs
from evomerge.recipe import Recipe
from evomerge.workers.assignment import WorkerSpec
from evomerge.workers.structure import Structures

__all__ = ["HfBackend"]


class HfBackend:
    """A bank and a live model on one device.

    Args:
        spec: Device, evaluation settings and seed.
        checkpoints: The sources, by the names that recipes use.

    Raises:
        PrerequisiteError: if forward passes are to be compiled, and nothing can be compiled here.
        EvaluationError: if generation has no option of a name.
    """

    def __init__(self, spec: WorkerSpec, checkpoints: Mapping[str, Checkpoint]) -> None:
        check_gen_kwargs(spec.evaluation)
        if spec.evaluation.compile:
            from evomerge.evaluation.compiled import check_compiler

            check_compiler(spec.device)
        self._spec = spec
        self._bank = Bank(checkpoints, torch.device(spec.device))
        self.bank_bytes = self._bank.nbytes
        self._live: LiveModel | None = None
        self._structures = Structures(spec.evaluation.dtype, spec.device)
        self._structure: object = None

    def fits(self, plan: MergePlan) -> bool:
        """Return whether config and tokenizer are those of the live model."""
        return self._live is not None and self._structures.of(plan) == self._structure

    def build(self, recipe: Recipe, plan: MergePlan) -> LiveModel:  # noqa: ARG002
        """Build the live model from the plan's config, with random weights."""
        self.drop()
        with TemporaryDirectory(prefix="evomerge-tokenizer-") as folder:
            live = LiveModel(
                plan.config,
                plan.tokenizer.place(Path(folder)),
                settings=self._spec.evaluation,
                device=self._spec.device,
                generation_config=plan.generation_config,
            )
        live.check_names([output.name for output in plan.outputs])
        self._live, self._structure = live, self._structures.of(plan)
        return live

    def materialize(self, recipe: Recipe, plan: MergePlan) -> None:  # noqa: ARG002
        """Merge straight into the live model's parameters."""
        assert self._live is not None  # noqa: S101 - the caller has asked `fits`
        materialize(plan, self._bank, self._live.parameters_by_name(), seed=self._spec.seed)

    def moves_along(
        self,
        plan: MergePlan,
        tangents: Sequence[MergePlan],
        gradients: Mapping[str, torch.Tensor],
    ) -> list[float]:
        """Compare the merged tensors one by one, with no second live model."""
        assert self._live is not None  # noqa: S101 - the gradient is its
        live = self._live.parameters_by_name()
        # Of tied tensors the last one written is what the model has.
        owners = {live[output.name].data_ptr(): output.name for output in plan.outputs}
        counted = {name: gradients[name] for name in owners.values() if name in gradients}
        return moves_along(plan, tangents, self._bank, counted, seed=self._spec.seed)

    def drop(self) -> None:
        """Free the live model; the sources stay."""
        self._live = None
        if self._spec.evaluation.compile:
            gc.collect()  # a compiled forward and its model hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
