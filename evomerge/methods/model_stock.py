"""Model stock: how far to go from the base to the average follows from the angle between models."""

import numpy as np
import torch

from evomerge.methods.grouped import GroupedCombination
from evomerge.methods.interface import Facts, Groups, Kernel, Settings
from evomerge.methods.spherical import Vector, combine

__all__ = ["model_stock", "stock_ratio"]

_ZERO = 1e-24


def model_stock(settings: Settings, facts: Facts) -> Kernel:
    """`out = base + t mean_i(d_i)` with t from the mean cosine (Jang et al. 2024, section 4.2).

    With `filter_wise` each row (the weights of one output) has its own t.
    """
    count = len(settings.own)
    filter_wise = settings.flag("filter_wise") and len(facts.shape) > 1 and facts.numel > 0
    groups = Groups("rows", facts.numel // facts.shape[0] if filter_wise else max(facts.numel, 1))

    whole = [] if filter_wise else facts.gram(range(1, count + 1), deltas=True)

    def products(i: int, j: int) -> Vector:
        if filter_wise:
            return facts.dots(i, j, groups, deltas=True).numpy()
        return np.array([whole[i - 1][j - 1]])

    squares = [products(i, i) for i in range(1, count + 1)]
    cosines = []
    for i in range(count):
        for j in range(i):
            norms = np.sqrt(squares[i] * squares[j])
            cosine = products(j + 1, i + 1) / np.maximum(norms, _ZERO)
            cosines.append(np.where(norms > _ZERO, np.clip(cosine, -1.0, 1.0), 0.0))
    ratio = stock_ratio(np.mean(cosines, axis=0), count) / count
    if not filter_wise:
        return combine(settings, (float(ratio[0]),) * count)
    factors = facts.on_device(torch.from_numpy(ratio.astype(np.float32)))
    return GroupedCombination((factors,) * count, groups, has_base=True)


def stock_ratio(cosine: Vector, count: int) -> Vector:
    """Return t of equation 2 of Jang et al. 2024: `n cos / (1 + (n - 1) cos)`.

    Where the denominator is 0 the task vectors sum to nothing, and t does not matter: 0.
    """
    below = 1.0 + (count - 1) * cosine
    some = np.abs(below) > 1e-12
    return np.where(some, count * cosine / np.where(some, below, 1.0), 0.0)
