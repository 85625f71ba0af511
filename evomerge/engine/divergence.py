"""Divergence between the softmax distributions of rows, with the same bits on every path.

`exp` and `log` are written out in float64, operation by operation, and sums are added in halves: a
library's own functions differ from machine to machine, and no compiler makes loops of them. Both
are good to a few units of the last place.
"""

import math

import torch

__all__ = [
    "EXP_FACTORS",
    "FLOOR",
    "LEAST",
    "LN2",
    "LN2_HIGH",
    "LN2_LOW",
    "LOG_FACTORS",
    "ROUND",
    "SQRT_HALF",
    "row_divergence",
]

FLOOR = 1e-8
"""Added to every probability, so that none is 0."""
LEAST = -700.0
"""Exponents below count as this one: `exp` of it is far below the floor, but not subnormal."""
ROUND = 1.5 * 2.0**52
"""Added, it rounds to a whole number, which the lowest bits of the sum then hold."""
LN2 = math.log(2.0)
LN2_HIGH = float.fromhex("0x1.62e42feep-1")
"""Its first 32 bits, so that a product with an exponent is exact."""
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
EXP_FACTORS = tuple(1.0 / math.factorial(k) for k in range(13, -1, -1))
"""Of the powers of a number up to ln(2) / 2, the highest first (Taylor)."""
SQRT_HALF = 0x3FE6A09E667F3BCD
"""Bit pattern of the square root of 1/2: a number is that to twice that, times a power of 2."""
LOG_FACTORS = tuple(2.0 / k for k in range(19, 0, -2))
"""Of the odd powers of `s` in `log((1 + s) / (1 - s))`, the highest first."""

_ONE = 1023
_MANTISSA = 52


def row_divergence(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return `KL(softmax(x) || softmax(y))` of each row, each probability plus `FLOOR`.

    Args:
        x: Finite numbers of shape (rows, n), n > 0.
        y: The same.

    Returns:
        float32 of shape (rows,).
    """
    p, q = _softmax(x), _softmax(y)
    return _sum(_log(p / q).mul_(p)).float()


def _softmax(x: torch.Tensor) -> torch.Tensor:
    powers = _exp((x.double() - x.amax(1, keepdim=True).double()).clamp_(min=LEAST))
    return powers.mul_(1.0 / _sum(powers.clone())[:, None]).add_(FLOOR)


def _sum(values: torch.Tensor) -> torch.Tensor:
    """Return the sums of rows, whose values are lost: the second half is added to the first."""
    count = values.shape[1]
    while count > 1:
        half = (count + 1) // 2
        values[:, : count - half] += values[:, half:count]
        count = half
    return values[:, 0]


def _exp(x: torch.Tensor) -> torch.Tensor:
    """Return `2**k exp(r)` for `x = k ln 2 + r`."""
    rounded = x * (1.0 / LN2) + ROUND
    whole = rounded - ROUND
    rest = (x - whole * LN2_HIGH).sub_(whole.mul_(LN2_LOW))
    scale = (rounded.view(torch.int64) + _ONE) << _MANTISSA
    return _polynomial(rest, EXP_FACTORS).mul_(scale.view(torch.float64))


def _log(x: torch.Tensor) -> torch.Tensor:
    """Return `k ln 2 + log(m)` for `x = 2**k m`, with `m = (1 + s) / (1 - s)`."""
    bits = x.view(torch.int64)
    power = (bits - SQRT_HALF) >> _MANTISSA
    mantissa = (bits - (power << _MANTISSA)).view(torch.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return _polynomial(s * s, LOG_FACTORS).mul_(s).add_(power.double() * LN2)


def _polynomial(x: torch.Tensor, factors: tuple[float, ...]) -> torch.Tensor:
    """Return the value of a polynomial, by Horner's rule."""
    value = torch.full_like(x, factors[0])
    for factor in factors[1:]:
        value.mul_(x).add_(factor)
    return value
