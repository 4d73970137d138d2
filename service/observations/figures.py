"""How well a version does against observations: the figures, and how sure they are. Pure functions of arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
MIN_OBSERVATIONS: Final = 10
"""Fewer have no bounds: the normal law of their mean would be a pretence."""

_Z: Final = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and bounds that hold its true value with 95 % confidence; None where there are too few observations."""

    value: float
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class LiveQuality:
    """The error of one version against observations."""

    observations: int
    oldest_observed_at_seconds: float
    newest_observed_at_seconds: float
    mae_celsius: Estimate
    mse_celsius2: Estimate
    coverage: Estimate | None
    """The share within the interval, of readings within the training domain; None where there is no such."""
    stated_coverage: float | None


def measure(
    errors: NDArray[np.float64],
    observed_at_seconds: NDArray[np.float64],
    inside: NDArray[np.bool_] | None,
    half_width_celsius: float | None,
    stated_coverage: float | None,
) -> LiveQuality:
    """Measure a version by its errors, prediction minus truth, float64 `[N]` with N from 1.

    `inside` tells which readings lie within the training domain, `half_width_celsius` half of the interval's width:
    None where the version states no such thing.
    """
    absolute = np.abs(errors)
    coverage = None
    if inside is not None and half_width_celsius is not None and inside.any():
        within = absolute[inside] <= half_width_celsius
        coverage = share(int(within.sum()), len(within))
    return LiveQuality(
        observations=len(errors),
        oldest_observed_at_seconds=float(observed_at_seconds.min()),
        newest_observed_at_seconds=float(observed_at_seconds.max()),
        mae_celsius=mean(absolute),
        mse_celsius2=mean(errors**2),
        coverage=coverage,
        stated_coverage=stated_coverage,
    )


def mean(values: NDArray[np.float64]) -> Estimate:
    """The mean of values that are not negative, with Student's bounds: m ± t(N − 1) · s / √N.

    They lean on the central limit theorem and on observations that are independent. Squared errors have long tails, so
    that theirs are rough below a hundred or so.
    """
    value, size = float(values.mean()), len(values)
    if size < MIN_OBSERVATIONS:
        return Estimate(value)
    half = t_quantile(size - 1) * float(values.std(ddof=1)) / math.sqrt(size)
    return Estimate(value, max(0.0, value - half), value + half)


def share(hits: int, size: int) -> Estimate:
    """A share, with Wilson's bounds.

    They hold near 0 and 1 too, where m ± z · s does not. E. B. Wilson, "Probable inference, the law of succession, and
    statistical inference", Journal of the American Statistical Association 22, 1927.
    """
    value = hits / size
    if size < MIN_OBSERVATIONS:
        return Estimate(value)
    weight = _Z**2 / size
    middle = (value + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(value * (1 - value) / size + weight / (4 * size))
    return Estimate(value, min(value, max(0.0, middle - half)), max(value, min(1.0, middle + half)))


def t_quantile(freedom: int) -> float:
    """The 97.5 % point of Student's law with `freedom` degrees from 9: right to 1e-4.

    The expansion in 1/freedom of Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5.
    """
    terms = [
        _polynomial((1, 1), 4),
        _polynomial((5, 16, 3), 96),
        _polynomial((3, 19, 17, -15), 384),
        _polynomial((79, 776, 1482, -1920, -945), 92160),
    ]
    return _Z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))


def _polynomial(coefficients: Sequence[int], divisor: int) -> float:
    """A polynomial in the normal quantile of odd powers, the highest first and 1 last."""
    highest = 2 * len(coefficients) - 1
    return math.fsum(factor * _Z ** (highest - 2 * place) for place, factor in enumerate(coefficients)) / divisor
