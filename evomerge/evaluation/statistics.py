"""Means and standard errors, and the types of numbers that are known from samples."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CONFIDENCE", "Comparison", "Estimate", "difference_of", "mean", "standard_error"]

CONFIDENCE = 0.95


def mean(values: npt.ArrayLike) -> float:
    """Return the mean over items, exactly rounded, so that the order of the items cannot matter.

    Raises:
        ValueError: if there is no item.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("a mean needs at least one item, got none")
    return math.fsum(data.tolist()) / data.size


def standard_error(values: npt.ArrayLike) -> float:
    """Return the standard error of the mean: sample deviation (n - 1) over sqrt(n).

    A single item says nothing about its spread: nan.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return math.nan
    middle = mean(data)
    squares = math.fsum(((data - middle) ** 2).tolist())
    return math.sqrt(squares / (data.size - 1) / data.size)


@dataclass(frozen=True)
class Estimate:
    """A number known from a sample.

    Attributes:
        value: The estimate.
        stderr: Its standard error.
        items: How many values it rests on, over all tasks.
    """

    value: float
    stderr: float
    items: int


@dataclass(frozen=True)
class Comparison:
    """A difference of two numbers, first minus second.

    Attributes:
        difference: Positive if the first is better.
        stderr: Standard error of ``difference``.
        interval: 95 % confidence interval of ``difference``.
        p_value: Two-sided, for "there is no difference".
        items: How many values both rest on, over all tasks.
    """

    difference: float
    stderr: float
    interval: tuple[float, float]
    p_value: float
    items: int


def difference_of(
    difference: float, stderr: float, items: int, freedom: float = math.inf
) -> Comparison:
    """Return a difference with Student's interval and p-value.

    Args:
        difference: The difference.
        stderr: Its standard error; 0 if every item has the same difference, nan if unknown.
        items: How many items it rests on.
        freedom: Degrees of freedom; infinity is the normal distribution.
    """
    from scipy import stats

    if not stderr > 0:
        unknown = math.isnan(stderr)
        p_value = math.nan if unknown else float(difference == 0)
        half = math.nan if unknown else 0.0
    else:
        law = stats.t(freedom) if math.isfinite(freedom) else stats.norm
        half = float(law.ppf(0.5 + CONFIDENCE / 2)) * stderr
        p_value = float(2 * law.sf(abs(difference) / stderr))
    return Comparison(difference, stderr, (difference - half, difference + half), p_value, items)
