"""Spherical linear interpolation between two models."""

import math

from evomerge.methods.interface import Facts, Kernel, Settings
from evomerge.methods.linear import LinearCombination

__all__ = ["COLLINEAR", "slerp", "slerp_coefficients"]

COLLINEAR = 0.9995
"""Above this |cosine| the arc is too flat for its formula, and a straight line is taken."""

_ZERO_NORM = 1e-8


def slerp(settings: Settings, facts: Facts) -> Kernel:
    """Interpolate from input 0, the base (t = 0), to input 1 (t = 1), tensors as flat vectors."""
    coefficients = slerp_coefficients(
        settings.number("t"), facts.dot(0, 0), facts.dot(0, 1), facts.dot(1, 1)
    )
    return LinearCombination(coefficients)


def slerp_coefficients(t: float, aa: float, ab: float, bb: float) -> tuple[float, float]:
    """Return the factors of a and b from their inner products (Shoemake 1985, section 3.3).

    `sin((1 - t) theta) / sin(theta)` and `sin(t theta) / sin(theta)`, theta the angle between a
    and b. A zero vector counts as orthogonal to everything.
    """
    if t in (0.0, 1.0):
        return 1.0 - t, t
    norms = math.sqrt(aa) * math.sqrt(bb)
    zero = min(math.sqrt(aa), math.sqrt(bb)) <= _ZERO_NORM
    cosine = 0.0 if zero or not math.isfinite(norms) else max(-1.0, min(1.0, ab / norms))
    if abs(cosine) > COLLINEAR:
        return 1.0 - t, t
    theta = math.acos(cosine)
    return math.sin((1.0 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)
