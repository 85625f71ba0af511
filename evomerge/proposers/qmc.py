"""Scrambled Sobol points, by scipy.

Sobol', On the distribution of points in a cube and the approximate evaluation of integrals, 1967;
scrambling: Matoušek, On the L2-discrepancy for anchored boxes, 1998.
"""

from collections.abc import Mapping

import numpy as np

from evomerge.proposers.base import Told, UnitSpace
from evomerge.proposers.pending import Pending, check_told
from evomerge.proposers.points import check_same
from evomerge.space import Value

__all__ = ["QmcProposer"]


class QmcProposer:
    """Points that fill the unit cube more evenly than independent draws; results change nothing.

    Args:
        space: Dimensions and the unit cube.
        seed: Seed of the scrambling.
        num_objectives: How many numbers are told.
    """

    def __init__(self, space: UnitSpace, *, seed: int, num_objectives: int = 1) -> None:
        from scipy.stats import qmc

        self._space = space
        self._num_objectives = num_objectives
        # Under its old name the argument is taken by all versions of scipy.
        generator = np.random.default_rng(seed)
        self._sequence = qmc.Sobol(len(space.dimensions), scramble=True, seed=generator)
        self._pending: Pending[None] = Pending()

    def ask(self, number: int) -> dict[str, Value]:
        """Return the next point of the sequence."""
        self._pending.add(number, None)
        return self._space.from_unit(self._sequence.random(1)[0].tolist())

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Repeat an ask, and check that the answer is the same."""
        check_same(number, self.ask(number), point, "scipy")

    def tell(self, number: int, told: Told) -> None:
        """Check the order of calls."""
        check_told(told, self._num_objectives)
        self._pending.take(number)

    def should_stop(self) -> str | None:
        """There is always a next point."""
        return None
