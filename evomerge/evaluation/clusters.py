"""Errors of numbers that rest on the same items: an item is one cluster, whatever uses it.

Several tasks may ask different things of one document, and one document may have several metrics:
these values are no independent evidence, so their deviations are added before they are squared.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Resampler", "clustered_error"]

Array = npt.NDArray[np.float64]


def clustered_error(parts: Sequence[tuple[Sequence[str], Array, float]]) -> tuple[float, float]:
    """Return the standard error of a weighted sum of scores, and its degrees of freedom.

    Miller 2024, "Adding error bars to evals", arXiv 2411.00640, equation 4, for several scores;
    each score's deviations are scaled by n / (n - 1). The degrees of freedom are Satterthwaite's
    (1946, equation 17) over groups of items that the same scores use.

    Args:
        parts: Of each score: its items, each item's influence (shape ``(items,)``, mean 0), and the
            score's weight in the sum.

    Returns:
        nan and nan where a score rests on a single item.
    """
    sums: dict[str, float] = {}
    users: dict[str, int] = {}
    for place, (items, pulls, weight) in enumerate(parts):
        count = len(items)
        if count < 2:
            return math.nan, math.nan
        scale = weight / math.sqrt(count * (count - 1))
        for item, pull in zip(items, pulls.tolist(), strict=True):
            sums[item] = sums.get(item, 0.0) + pull * scale
            users[item] = users.get(item, 0) | 1 << place
    squares: dict[int, list[float]] = {}
    for item, total in sums.items():
        squares.setdefault(users[item], []).append(total * total)
    variances = [(math.fsum(group), max(len(group) - 1, 1)) for group in squares.values()]
    variance = math.fsum(part for part, _ in variances)
    if not variance > 0:
        return variance, math.nan
    # Shares of the variance: its square may be too large for a number.
    freedom = 1 / math.fsum((part / variance) ** 2 / nu for part, nu in variances)
    return math.sqrt(variance), freedom


class Resampler:
    """Bootstrap samples of items, the same for every score that uses them.

    Items are drawn with replacement among those that the same tasks use, so each task keeps its
    number of items. The draws depend on the items' ids and the seed, not on their order.

    Args:
        items: Task -> its items.
        seed: Seed of the draws.
        count: Number of samples.
    """

    def __init__(self, items: Mapping[str, Sequence[str]], *, seed: int, count: int) -> None:
        users: dict[str, tuple[str, ...]] = {}
        for task in sorted(items):
            for item in items[task]:
                users[item] = (*users.get(item, ()), task)
        groups: dict[tuple[str, ...], list[str]] = {}
        for item in sorted(users):
            groups.setdefault(users[item], []).append(item)
        generator = np.random.default_rng([seed, count])
        self._columns: dict[str, int] = {}
        blocks = []
        for users_of_group in sorted(groups):
            members = groups[users_of_group]
            self._columns |= {item: len(self._columns) + i for i, item in enumerate(members)}
            share = np.full(len(members), 1 / len(members))
            blocks.append(generator.multinomial(len(members), share, size=count))
        self._counts: npt.NDArray[np.int64] = np.concatenate(blocks, axis=1)

    def counts(self, items: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return how often each item is drawn, shape ``(count, items)``."""
        return self._counts[:, [self._columns[item] for item in items]]
