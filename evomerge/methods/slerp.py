"""Spherical linear interpolation between two models."""

import math

import torch

from evomerge.methods.grouped import GroupedCombination
from evomerge.methods.interface import Facts, Groups, Kernel, Settings
from evomerge.methods.linear import LinearCombination
from evomerge.methods.spherical import combine

__all__ = ["COLLINEAR", "nuslerp", "slerp", "slerp_factors"]

COLLINEAR = 0.9995
"""Above this |cosine| the arc is too flat for its formula, and `slerp` takes a straight line."""

_NUSLERP_COLLINEAR = 1.0 - 1e-8
_ZERO_NORM = 1e-8


def slerp(settings: Settings, facts: Facts) -> Kernel:
    """Interpolate from input 0, the base (t = 0), to input 1 (t = 1), tensors as flat vectors."""
    (aa, ab), (_, bb) = facts.gram((0, 1))
    return LinearCombination(slerp_factors(settings.number("t"), aa, ab, bb))


def nuslerp(settings: Settings, facts: Facts) -> Kernel:
    """Interpolate between two models by their weights, or between their task vectors.

    `nuslerp_flatten: false` takes each row by itself, and with `nuslerp_row_wise` each column (a
    vector across the rows; the names are mergekit's); a tensor of one dimension is one vector.
    Weights that sum to 0 count as equal.
    """
    w1, w2 = settings.numbers("weight")
    t = w2 / (w1 + w2) if abs(w1 + w2) > _ZERO_NORM else 0.5
    first = 1 if settings.has_base else 0
    deltas = settings.has_base
    if settings.flag("nuslerp_flatten") or len(facts.shape) < 2 or not facts.numel:
        (aa, ab), (_, bb) = facts.gram((first, first + 1), deltas=deltas)
        return combine(settings, slerp_factors(t, aa, ab, bb, collinear=_NUSLERP_COLLINEAR))
    groups = (
        Groups("columns", facts.numel // facts.shape[0])
        if settings.flag("nuslerp_row_wise")
        else Groups("rows", facts.shape[-1])
    )
    pairs = ((first, first), (first, first + 1), (first + 1, first + 1))
    products = (facts.dots(i, j, groups, deltas=deltas).tolist() for i, j in pairs)
    found = [
        slerp_factors(t, aa, ab, bb, collinear=_NUSLERP_COLLINEAR)
        for aa, ab, bb in zip(*products, strict=True)
    ]
    factors = facts.on_device(torch.tensor(found, dtype=torch.float32)).unbind(1)
    return GroupedCombination(factors, groups, settings.has_base)


def slerp_factors(
    t: float, aa: float, ab: float, bb: float, *, collinear: float = COLLINEAR
) -> tuple[float, float]:
    """Return the factors of a and b from their inner products (Shoemake 1985, section 3.3).

    `sin((1 - t) theta) / sin(theta)` and `sin(t theta) / sin(theta)`, theta the angle between a
    and b. A zero vector counts as orthogonal to everything. Where |cosine| is above `collinear`,
    a straight line is taken.
    """
    if t in (0.0, 1.0):
        return 1.0 - t, t
    norms = math.sqrt(aa) * math.sqrt(bb)
    zero = min(math.sqrt(aa), math.sqrt(bb)) <= _ZERO_NORM
    cosine = 0.0 if zero or not math.isfinite(norms) else max(-1.0, min(1.0, ab / norms))
    if abs(cosine) > collinear:
        return 1.0 - t, t
    theta = math.acos(cosine)
    return math.sin((1.0 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)
