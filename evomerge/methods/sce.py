"""Select, calculate, erase: weights for each tensor from how much the models changed it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.methods.draws import keep
from evomerge.methods.fields import TaskVector, Variance
from evomerge.methods.interface import Block, Facts, Kernel, Settings
from evomerge.methods.program import Program
from evomerge.methods.sparsifiers import Clear, Selection
from evomerge.methods.task_vectors import TaskVectors

__all__ = ["Energy", "sce"]

_NO_ENERGY = 1e-12


@dataclass(frozen=True, slots=True)
class Energy:
    """The squares of the selected elements of task vector i."""

    inputs: tuple[int, ...]
    i: int
    selection: Selection | None

    def identity(self) -> None:
        """It changes with the number of selected elements."""

    def bound(self, extremes: Sequence[float]) -> float:
        """Return a number that no element exceeds."""
        return (extremes[0] + extremes[self.i]) ** 2

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute a block."""
        mask = self.selection.mask(block) if self.selection is not None else None
        delta = TaskVector(self.i)(block)
        if mask is not None:
            keep(delta, mask)
        return delta.square_()

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        delta = program.task_vector(self.i)
        if self.selection is not None:
            delta = self.selection.write(program, delta)
        return program.let(f"{delta} * {delta}")


@dataclass(frozen=True, slots=True)
class _Varies:
    """1 where the task vectors are not all equal."""

    inputs: tuple[int, ...]

    def identity(self) -> str:
        """Return its name."""
        return "varies"

    def bound(self, _extremes: Sequence[float]) -> float:
        """Return a number that no element exceeds."""
        return 1.0

    def __call__(self, block: Block) -> torch.Tensor:
        """Compute a block."""
        return Variance(self.inputs)(block).gt_(0.0)

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        return program.let(
            f"where({Variance(self.inputs).write(program)} > F(0.0), F(1.0), F(0.0))"
        )


def sce(settings: Settings, facts: Facts) -> Kernel:
    """Merge with weights from the data (Wan et al. 2024, FuseChat, section 3.3).

    Select the `select_topk` share of the elements that vary at all, those where the task vectors
    vary most; weigh each model by the energy of its selected elements; elect the sign of the plain
    sum and average what has it.
    """
    count = len(settings.own)
    inputs = tuple(range(count + 1))
    share = settings.number("select_topk")
    selection: Selection | None = None
    kept = int(share * facts.total(_Varies(inputs))) if share < 1.0 else facts.numel
    if share < 1.0 and kept > 0:
        field = Variance(inputs)
        selection = Selection(field, facts.threshold(field, kept))
    nothing = kept == 0
    energies = [0.0] * count
    if not nothing:
        energies = facts.totals([Energy(inputs, i, selection) for i in inputs[1:]])
    total = sum(energies)
    weights = tuple(
        energy / total if total > _NO_ENERGY * facts.numel else 1.0 / count for energy in energies
    )
    return TaskVectors(
        weights=weights,
        gains=weights,
        sparsifiers=(Clear() if nothing else None,) * count,
        elect=True,
        normalize=True,
        scale=1.0,
        select=selection,
        plain_vote=True,
    )
