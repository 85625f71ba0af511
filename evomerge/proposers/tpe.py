"""The tree-structured Parzen estimator, by Optuna.

Bergstra, Bardenet, Bengio and Kégl, Algorithms for hyper-parameter optimization, NIPS 2011; Ozaki
et al., Multiobjective tree-structured Parzen estimator, JAIR 73, 2022.
"""

from optuna.samplers import BaseSampler, TPESampler

from evomerge.proposers.optuna_study import OptunaProposer

__all__ = ["TpeProposer"]


class TpeProposer(OptunaProposer):
    """Multivariate TPE that knows which trials are under way.

    Where dimensions have conditions, those that exist at the same points are modelled together.
    Arguments as in :class:`OptunaProposer`.
    """

    def _make_sampler(self, seed: int) -> BaseSampler:
        return TPESampler(
            seed=seed,
            multivariate=True,
            group=self._has_conditions,
            constant_liar=True,
        )
