"""Sums that do not depend on the order of adding.

Each number is split into two parts on fixed grids, coarse enough that adding up to 2**31 of them in
float64 never rounds (Demmel and Nguyen 2013, Fast Reproducible Floating-Point Summation). So a sum
has the same bits in blocks, on any number of threads, in a compiled kernel and on a GPU; what is
lost is below 2**-44 of the largest number for each.
"""

import math

import torch

__all__ = [
    "LOWEST",
    "STRETCH",
    "TOO_LARGE",
    "anchors",
    "exact_sum",
    "split_sums",
    "stretch_sums",
]

STRETCH = 1 << 14
"""Elements that `stretch_sums` adds up on grids of their own."""
TOO_LARGE = (100 + 127) << 23
"""Bit pattern of the float32 from which on `stretch_sums` gives up."""
LOWEST = -80
"""Least exponent of a bound: the second grid stays away from subnormal numbers."""


_GRID = 22  # bits that each part keeps
_MANTISSA = {torch.float32: 23, torch.float64: 52}


def anchors(bound: float, dtype: torch.dtype) -> tuple[float, float]:
    """Return the numbers that, added and taken away again, round to the two grids.

    Args:
        bound: No number is larger than this.
        dtype: The type that the numbers have.
    """
    exponent = max(math.frexp(bound)[1], LOWEST) if bound > 0.0 else LOWEST
    # 3 * 2**k and all that is added to it share the spacing 2**(k + 1 - mantissa).
    extra = _MANTISSA[dtype] - 1 - _GRID
    first = 3.0 * 2.0 ** (exponent + extra)
    return first, first * 2.0**-_GRID


def split_sums(
    values: torch.Tensor, first: torch.Tensor | float, second: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums of both parts, float64; exact, so they may be added to those of other blocks.

    Args:
        values: float32 or float64.
        first: From `anchors`.
        second: The same.
    """
    coarse, fine = _split(values, first, second)
    return coarse.sum(dtype=torch.float64), fine.sum(dtype=torch.float64)


def _split(
    values: torch.Tensor, first: torch.Tensor | float, second: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    coarse = (values + first) - first
    rest = values - coarse
    return coarse, (rest + second) - second


def exact_sum(parts: list[tuple[float, float]]) -> float:
    """Return the sum of `split_sums` of all blocks."""
    return math.fsum(part[0] for part in parts) + math.fsum(part[1] for part in parts)


def stretch_sums(values: torch.Tensor) -> list[float]:
    """Return the sums of stretches, each good to 2**-44 of its largest number for each element.

    The last stretch may be shorter.

    Args:
        values: float32 of shape (n,).

    Returns:
        As many sums as there are stretches; NaN where a number is too large, or none.
    """
    rest = -values.numel() % STRETCH
    lines = torch.nn.functional.pad(values, (0, rest)).view(-1, STRETCH)
    most = lines.abs().amax(1, keepdim=True)
    power = torch.frexp(most).exponent.clamp(LOWEST, 127)
    first = torch.ldexp(torch.full_like(most, 3.0), power)
    coarse, fine = _split(lines, first, first * 2.0**-_GRID)
    sums = coarse.sum(1, dtype=torch.float64) + fine.sum(1, dtype=torch.float64)
    fits = most.view(torch.int32) < TOO_LARGE
    found: list[float] = torch.where(fits.view(-1), sums, torch.nan).tolist()
    return found
