"""Linear combinations whose factors differ between the rows or columns of a tensor."""

from dataclasses import dataclass

import torch

from evomerge.methods.interface import Block, Groups
from evomerge.methods.program import Program

__all__ = ["GroupedCombination"]


@dataclass(frozen=True, slots=True, eq=False)
class GroupedCombination:
    """The kernel `out = sum_i c_i[group] x_i`, or `base + sum_i c_i[group] d_i`.

    Attributes:
        factors: c_i, float32 of shape (groups,) each, on the inputs' device.
        groups: Which element belongs to which group.
        has_base: Whether input 0 is the base of task vectors.
    """

    factors: tuple[torch.Tensor, ...]
    groups: Groups
    has_base: bool

    def __call__(self, block: Block, out: torch.Tensor) -> None:
        """Merge one block."""
        group = self._group(block.start, out)
        base = block.load(0) if self.has_base else None
        out.zero_()
        for i, factors in enumerate(self.factors):
            term = block.scratch(0)
            if base is None:
                term.copy_(block.load(i))
            else:
                torch.sub(block.load(i + 1), base, out=term)
            out.add_(term.mul_(factors.index_select(0, group)))
        if base is not None:
            out.add_(base)

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        read, first = (program.task_vector, 1) if self.has_base else (program.load, 0)
        total = "F(0.0)"
        for i, factors in enumerate(self.factors, start=first):
            factor = program.of_group(factors, self.groups)
            total = program.let(f"{total} + {read(i)} * {factor}")
        return program.let(f"{total} + {program.load(0)}") if self.has_base else total

    def _group(self, start: int, like: torch.Tensor) -> torch.Tensor:
        index = torch.arange(start, start + like.numel(), device=like.device)
        if self.groups.kind == "rows":
            return index.div_(self.groups.size, rounding_mode="floor")
        return index.remainder_(self.groups.size)
