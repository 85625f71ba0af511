"""A Gaussian process with expected improvement, by Optuna.

Log expected improvement: Ament et al., arXiv 2310.20708. Expected hypervolume improvement for
several objectives: Daulton, Balandat and Bakshy, arXiv 2006.05078.
"""

from collections.abc import Mapping

from optuna.samplers import BaseSampler, GPSampler
from optuna.trial import Trial, TrialState

from evomerge.proposers.optuna_study import OptunaProposer
from evomerge.proposers.points import active, completed
from evomerge.space import Value

__all__ = ["GaussianProcessProposer"]


class GaussianProcessProposer(OptunaProposer):
    """A Gaussian process that estimates the noise; arguments as in :class:`OptunaProposer`.

    It models all dimensions together. Where one does not exist, it sees the middle of its range, so
    that points which differ in such a value only are one point to it.
    """

    def _make_sampler(self, seed: int) -> BaseSampler:
        return GPSampler(seed=seed, deterministic_objective=False, warn_independent_sampling=False)

    def _suggest(self, trial: Trial) -> dict[str, Value]:
        return active(self._dimensions, self._suggest_all(trial))

    def _add(
        self,
        point: Mapping[str, Value],
        state: TrialState,
        values: tuple[float, ...] | None = None,
    ) -> None:
        super()._add(completed(self._dimensions, point), state, values)
