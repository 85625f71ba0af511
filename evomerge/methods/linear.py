"""Linear combinations of whole models: `linear` and `passthrough`."""

from dataclasses import dataclass

import torch

from evomerge.errors import RecipeError
from evomerge.methods.interface import Block, Facts, Kernel, Settings
from evomerge.methods.program import Program

__all__ = ["LinearCombination", "linear", "passthrough"]


@dataclass(frozen=True, slots=True)
class LinearCombination:
    """The kernel `out = c_0 x_0 + c_1 x_1 + …`, added from left to right.

    Attributes:
        coefficients: One for each input. A coefficient of 0 leaves its input out, so that the end
            points of an interpolation return a parent unchanged.
    """

    coefficients: tuple[float, ...]

    def __call__(self, block: Block, out: torch.Tensor) -> None:
        """Merge one block."""
        used = [(i, c) for i, c in enumerate(self.coefficients) if c != 0.0]
        if not used:
            out.zero_()
            return
        (first, factor), *rest = used
        if factor == 1.0:
            out.copy_(block.load(first))
        else:
            torch.mul(block.load(first), factor, out=out)
        for i, factor in rest:
            if factor == 1.0:
                out.add_(block.load(i))
            else:
                # Not add_(alpha=): its vector loop may fuse what its scalar tail does not.
                out.add_(torch.mul(block.load(i), factor, out=block.scratch(0)))

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        used = [(i, c) for i, c in enumerate(self.coefficients) if c != 0.0]
        terms = [program.let(f"{program.load(i)} * {program.number(c)}") for i, c in used]
        return program.sum(terms) if terms else "F(0.0)"


def linear(settings: Settings, facts: Facts) -> Kernel:
    """Weighted average (Wortsman et al. 2022, uniform soup with weights).

    `out = sum_i w_i x_i / sum_i w_i`; without `normalize` the sum itself.

    Raises:
        RecipeError: if the weights are to be normalized and sum to 0.
    """
    del facts
    weights = settings.numbers("weight")
    if not settings.flag("normalize"):
        return LinearCombination(weights)
    total = sum(weights)
    if abs(total) < 1e-8:
        raise RecipeError(
            f"linear divides by the sum of the weights, which is 0 for {list(weights)}; "
            "give other weights or normalize: false"
        )
    return LinearCombination(tuple(weight / total for weight in weights))


def passthrough(settings: Settings, facts: Facts) -> Kernel:
    """Copy the one input: `out = scale x`."""
    del facts
    return LinearCombination(settings.numbers("scale"))
