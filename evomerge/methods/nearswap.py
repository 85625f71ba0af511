"""Nearswap: go towards the other model where it is near."""

from dataclasses import dataclass

import torch

from evomerge.methods.interface import Block, Facts, Kernel, Settings
from evomerge.methods.program import Program

__all__ = ["nearswap"]


@dataclass(frozen=True, slots=True)
class _NearSwap:
    """`out = base + d min(1, t / |d|)`: a step of at most t."""

    t: float

    def __call__(self, block: Block, out: torch.Tensor) -> None:
        base = block.load(0)
        torch.sub(block.load(1), base, out=out)
        out.clamp_(-self.t, self.t)
        out.add_(base)

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        delta, most, least = program.task_vector(1), program.number(self.t), program.number(-self.t)
        step = program.let(f"where({delta} > {most}, {most}, {delta})")
        step = program.let(f"where({step} < {least}, {least}, {step})")
        return program.let(f"{step} + {program.load(0)}")


def nearswap(settings: Settings, facts: Facts) -> Kernel:
    """Interpolate with weight `t / |d|`, at most 1 (Alchemonaut 2024, QuartetAnemoi-70B)."""
    del facts
    return _NearSwap(settings.number("t"))
