"""Independent uniform draws, by Optuna: what every other proposer is compared with."""

from optuna.samplers import BaseSampler, RandomSampler

from evomerge.proposers.optuna_study import OptunaProposer

__all__ = ["RandomProposer"]


class RandomProposer(OptunaProposer):
    """Independent uniform draws; arguments as in :class:`OptunaProposer`."""

    def _make_sampler(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)
