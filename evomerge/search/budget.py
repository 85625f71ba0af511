"""When a search ends: trials, item evaluations, seconds, or nothing better for long."""

from collections.abc import Callable
from dataclasses import dataclass

from evomerge.space import SearchSettings

__all__ = ["Budget", "Spent", "foresee"]


@dataclass(frozen=True)
class Spent:
    """What a search has spent, baselines included.

    Attributes:
        trials: Trials begun.
        items: Item evaluations on the search items: the climb and the trials that were told.
        seconds: Seconds of searching, over all sessions.
        idle_trials: Trials since the last significant improvement.
    """

    trials: int
    items: int
    seconds: float
    idle_trials: int = 0


class Budget:
    """The limits of a search.

    Args:
        settings: The limits.
        interrupted: Whether somebody asks for the end.
    """

    def __init__(
        self, settings: SearchSettings, interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        self._settings = settings
        self._interrupted = interrupted

    def ended(self, spent: Spent) -> str | None:
        """Return why no further trial begins, or None."""
        settings = self._settings
        if self._interrupted():
            return "interrupted"
        limit = settings.trial_limit
        if limit is not None and spent.trials >= limit:
            return f"trials: {spent.trials} of {limit}"
        if settings.items is not None and spent.items >= settings.items:
            return f"items: {spent.items} of {settings.items}"
        if settings.seconds is not None and spent.seconds >= settings.seconds:
            return f"seconds: {spent.seconds:.0f} of {settings.seconds:g}"
        if settings.patience is not None and spent.idle_trials >= settings.patience:
            return f"patience: nothing significantly better in {spent.idle_trials} trials"
        return None

    def items_left(self, spent: Spent) -> int | None:
        """Return how many items the next trial may be scored on; None means any number."""
        limit = self._settings.items
        return None if limit is None else max(limit - spent.items, 0)

    def progress(self, spent: Spent) -> tuple[float, float]:
        """Return how much is done of how much, in the unit of the limit that is nearest."""
        pairs = [
            (spent.trials, self._settings.trial_limit),
            (spent.items, self._settings.items),
            (spent.seconds, self._settings.seconds),
        ]
        known = [(float(done), float(total)) for done, total in pairs if total is not None]
        return max(known, key=lambda pair: pair[0] / pair[1])


def foresee(
    settings: SearchSettings, num_baselines: int, search_items: int, holdout_items: int
) -> tuple[str, str | None]:
    """Return what is certain of a run's cost, and a warning if nothing is left for the search.

    Args:
        settings: The limits.
        num_baselines: How many baselines the space has.
        search_items: Search items over all tasks.
        holdout_items: Held-out items over all tasks.
    """
    first, most = num_baselines * search_items, num_baselines + settings.finalists
    fact = (
        f"item evaluations: {first:,} for {num_baselines} baselines; beside the budget at most "
        f"{most * holdout_items:,} to choose the winner on held-out items"
    )
    reason = Budget(settings).ended(Spent(num_baselines, first, 0.0))
    if reason is None:
        return fact, None
    return fact, f"the baselines take the whole budget, so nothing would be searched ({reason})"
