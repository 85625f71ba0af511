"""Scores of a whole item set from a part of it: stratified samples with a control.

What earlier candidates got for the items says which of them tell candidates apart, and what to
expect for each. Items on which they differed are drawn more often (Neyman 1934, "On the two
different aspects of the representative method"); what the sample then shows is only how far a
candidate is from the expectation. Inside a stratum every item is as likely as any other, so the
estimate is unbiased for the whole set however good or bad the expectation is (Cochran 1977,
"Sampling techniques", sections 5.5 and 7.1).
"""

import functools
import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evomerge.evaluation.aggregations import RATIOS, is_smooth
from evomerge.evaluation.scores import TaskItems, TaskScore

__all__ = ["Expectation", "SampledScore", "Strata", "draw_items", "estimate_score", "make_strata"]

Array = npt.NDArray[np.float64]

MAX_BINS = 4
LEAST_MEMBERS = 4
LEAST_SPREAD = 0.5
PRIOR_ITEMS = 4.0
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Strata:
    """The items of one task, divided by how differently candidates do on them.

    Attributes:
        items: Every item, in the order of the split.
        labels: Stratum of each item, from 0, shape ``(items,)``.
        spreads: Expected deviation of a candidate's value inside each stratum, shape ``(strata,)``.
    """

    items: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    spreads: Array

    @functools.cached_property
    def places(self) -> Mapping[str, int]:
        """Item -> its place."""
        return {item: place for place, item in enumerate(self.items)}


@dataclass(frozen=True, eq=False)
class Expectation:
    """What a candidate is expected to get for each item, before it is scored.

    Attributes:
        values: Expected values, shape ``(items,)``, in the order of the strata's items.
        divisor: Mean of the items' denominators (1 but for ratios), the same for all candidates.
    """

    values: Array
    divisor: float = 1.0


@dataclass(frozen=True)
class SampledScore:
    """The score of one task, estimated from a part of its items.

    Attributes:
        score: The score; its error counts the items as a sample of all there could be.
        stderr: The error of the estimate as one of the score on all of the task's items: 0 once all
            were scored.
        level: Mean value of an item, as estimated; nan for scores that are no function of a mean.
    """

    score: TaskScore
    stderr: float
    level: float


def make_strata(
    items: Sequence[str], table: Array, *, order: bool = True, most: int | None = None
) -> Strata:
    """Divide items by what candidates got for them.

    Items for which all got the same are apart from those on which they differed, which are divided
    by their means. Strata of fewer than four items join their neighbours.

    Args:
        items: The items of one task.
        table: Value of each item, shape ``(candidates, items)``.
        order: False makes one stratum of all: items are drawn evenly.
        most: Strata at most: an estimate is unbiased once each has an item drawn.
    """
    names = tuple(items)
    means = table.mean(axis=0) if len(table) else np.zeros(len(names))
    deviations = table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros(len(names))
    overall = float(np.sqrt(np.mean(deviations**2)))
    if not overall > 0.0:  # none differ, or they are no numbers
        overall = 1.0
        order = False
    if not order or len(names) < 2 * LEAST_MEMBERS:
        return _one_stratum(names, overall)
    differs = deviations > 1e-9 * overall
    key = np.where(differs, 0.0, np.where(means > means.mean(), 1.0, -1.0))
    num_bins = min(MAX_BINS, max(1, int(differs.sum()) // (2 * LEAST_MEMBERS)))
    if most is not None:
        room = most - len(np.unique(key[~differs]))
        if room < 1:
            return _one_stratum(names, overall)
        num_bins = min(num_bins, room)
    # Of those that differ, bins of equal size by the mean.
    ranks = np.argsort(np.argsort(means[differs], kind="stable"), kind="stable")
    key[differs] = 0.5 * (ranks * num_bins // max(len(ranks), 1)) / num_bins
    labels = _join_small(key)
    spreads = np.array(
        [math.sqrt(np.mean(deviations[labels == one] ** 2)) for one in range(labels.max() + 1)]
    )
    return Strata(names, labels, np.maximum(spreads, LEAST_SPREAD * overall))


def _one_stratum(names: tuple[str, ...], spread: float) -> Strata:
    return Strata(names, np.zeros(len(names), dtype=np.int64), np.array([spread]))


def _join_small(key: Array) -> npt.NDArray[np.int64]:
    """Return labels from 0 in the order of the keys; small groups join the next."""
    groups = [np.flatnonzero(key == value) for value in np.unique(key)]
    joined: list[npt.NDArray[np.int64]] = []
    for group in groups:
        if joined and (len(group) < LEAST_MEMBERS or len(joined[-1]) < LEAST_MEMBERS):
            joined[-1] = np.concatenate([joined[-1], group])
        else:
            joined.append(group)
    labels = np.empty(len(key), dtype=np.int64)
    for label, group in enumerate(joined):
        labels[group] = label
    return labels


def draw_items(
    strata: Mapping[str, Strata], weights: Mapping[str, float], generator: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """Yield every item once; any beginning is a stratified sample of all tasks.

    Each stratum gets one item first, then each a second one. Then always the stratum whose next
    item lowers the variance of the weighted sum of scores most (Wright 2012, "The equivalence of
    Neyman optimum allocation for sampling and equal proportions for apportioning the U.S. House of
    Representatives").

    Args:
        strata: Task -> its items.
        weights: Task -> weight of its score.
        generator: Decides the order inside the strata.
    """
    orders: dict[tuple[str, int], list[int]] = {}
    queue: list[tuple[int, float, int, str, int]] = []
    for task, mine in strata.items():
        for label in range(len(mine.spreads)):
            members = np.flatnonzero(mine.labels == label)
            orders[task, label] = generator.permutation(members).tolist()
            heapq.heappush(queue, (0, 0.0, len(queue), task, label))
    taken = dict.fromkeys(orders, 0)
    while queue:
        _, _, place, task, label = heapq.heappop(queue)
        order, count = orders[task, label], taken[task, label]
        yield task, strata[task].items[order[count]]
        taken[task, label] = count = count + 1
        if count == len(order):
            continue
        share = len(order) / len(strata[task].items)
        gain = abs(weights[task]) * share * strata[task].spreads[label]
        priority = 0.0 if count < 2 else gain / math.sqrt(count * (count + 1))
        heapq.heappush(queue, (min(count, 2), -priority, place, task, label))


def estimate_score(strata: Strata, expectation: Expectation, sample: TaskItems) -> SampledScore:
    """Return the score that a candidate has on all items, from a part of them.

    Args:
        strata: The items, and how they were drawn.
        expectation: What was expected before the draw.
        sample: What the candidate got.
    """
    if not is_smooth(sample):
        score = sample.summary()
        left = max(0.0, 1.0 - len(sample.items) / len(strata.items))
        return SampledScore(score, score.stderr * math.sqrt(left), math.nan)
    rows = np.array([strata.places[item] for item in sample.items])
    residuals = sample.values - expectation.values[rows]
    labels = strata.labels[rows]
    members = np.bincount(strata.labels, minlength=len(strata.spreads))
    counts = np.bincount(labels, minlength=len(strata.spreads))
    drawn = counts > 0
    middles = np.bincount(labels, residuals, len(strata.spreads)) / np.maximum(counts, 1)
    middle = float(middles[drawn] @ members[drawn] / members[drawn].sum())
    # A stratum of which nothing was drawn is as far from the expectation as the others are.
    middles[~drawn] = middle
    mean = float(expectation.values.mean() + middles @ members / len(strata.items))
    inner = _inner_variance(strata, labels, residuals - middles[labels])
    ratio = mean / expectation.divisor
    rule = RATIOS[sample.aggregation]
    slope = abs(rule.slope(ratio)) / expectation.divisor
    pulls = sample.values - ratio * (1.0 if sample.weights is None else sample.weights)
    spread = float(np.var(pulls)) if len(rows) > 1 else math.nan
    total = math.sqrt(inner + spread / len(strata.items))
    score = TaskScore(
        sample.metric,
        float(rule.apply(ratio)),
        slope * total,
        len(sample.items),
        sample.higher_is_better,
    )
    return SampledScore(score, slope * math.sqrt(inner), mean)


def _inner_variance(strata: Strata, labels: npt.NDArray[np.int64], inside: Array) -> float:
    """Return the variance of a stratified mean, over the draws of the items.

    A few equal items do not show that there is no spread. What earlier candidates had, halfway
    between the stratum's and that of all, scaled to what this one has, counts as some items more in
    each; where all items of this one are equal, the earlier spread counts as that of one item.

    Args:
        strata: The items.
        labels: Stratum of each drawn item.
        inside: How far its residual is from the mean of its stratum's drawn ones.
    """
    count = len(strata.spreads)
    members = np.bincount(strata.labels, minlength=count)
    counts = np.bincount(labels, minlength=count)
    shares = members / len(strata.items)
    squares = np.bincount(labels, inside**2, count)
    earlier = 0.5 * (strata.spreads**2 + shares @ strata.spreads**2)
    expected = float(np.maximum(counts - 1, 0) @ earlier)
    scale = float(squares.sum()) / expected if expected else 1.0
    if scale <= TINY:
        scale = 1.0 / len(inside)
    priors = PRIOR_ITEMS * scale * earlier
    variances = (squares + priors) / (np.maximum(counts, 1) - 1 + PRIOR_ITEMS)
    errors = variances / np.maximum(counts, 1) * (1.0 - counts / members)
    return float(shares**2 @ errors)
