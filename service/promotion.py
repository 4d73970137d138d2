"""Whether a canary takes the place of the stable version, and whether that goes back: by errors on the same rows.

All functions are pure. The loss of a row is the absolute error, and no more than a cap, so that it is bounded as the
test asks for, and no single wild row decides. Both versions are judged on the same rows, none of which can have been in
the training data of either. Rows that follow one another hang together, where a reader or a room does: so the test does
not bet on rows but on the means of blocks of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.sequential import bounds, log_wealth

Errors = NDArray[np.float64]
"""What a version answered less what was true, in °C, one a row: float64 `[N]`."""


class Verdict(Enum):
    """What follows from a comparison; the values are the words people read."""

    BETTER = "better"
    WORSE = "not better"
    OPEN = "not decided"


@dataclass(frozen=True, slots=True)
class Rule:
    """When a comparison is decided."""

    rate: float = 0.05
    """The probability, at the most, that a version which is no better is ever taken for better, however often one
    looks; and likewise the other way."""
    margin_celsius: float = 0.0
    """By how much the mean loss must be smaller."""
    cap_celsius: float = 5.0
    """What the loss of one row is at the most. Readings are noisy by about 2 °C."""
    least_rows: int = 30
    block_rows: int = 10
    """Rows, one after the other in time, whose mean is one bet; so many that blocks hardly know of each other."""
    least_sources: int = 2
    """Fewer decide nothing: one source may be wrong."""

    def __post_init__(self) -> None:
        """Raise ValueError, naming what makes no sense."""
        if not 0 < self.rate < 1:
            raise ValueError(f"the rate is between 0 and 1, not {self.rate:g}")
        if not 0 < self.cap_celsius < math.inf:
            raise ValueError(f"the cap is a number of °C above 0, not {self.cap_celsius:g}")
        if not 0 <= self.margin_celsius < self.cap_celsius:
            raise ValueError(f"the margin is from 0 to below the cap, {self.cap_celsius:g} °C")
        if min(self.least_rows, self.least_sources, self.block_rows) < 1:
            raise ValueError("at least one row, one source, and a block of one row are needed")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rows say of a candidate against the version that it would replace."""

    rows: int
    """Those of complete blocks."""
    sources: int
    mean_celsius: float
    """Mean loss of the version that is there; NaN without rows."""
    candidate_mean_celsius: float
    gain_celsius: float
    """By how much the candidate's is smaller."""
    gain_lower_celsius: float
    gain_upper_celsius: float
    """Bounds of the gain, each of which holds at all times with probability 1 - rate."""
    log_evidence_better: float
    """Natural logarithm of what betting against "it is not better by the margin" came to."""
    log_evidence_worse: float
    """The same against "it is better by the margin"."""
    verdict: Verdict


def losses(errors: Errors, cap_celsius: float) -> Errors:
    """Absolute errors in °C, capped. What is no number has the greatest loss."""
    absolute = np.abs(errors)
    capped: Errors = np.where(np.isnan(absolute), cap_celsius, np.minimum(absolute, cap_celsius))
    return capped


def block_means(values: Errors, block_rows: int) -> Errors:
    """The means of blocks of rows one after the other; rows of a last block that is not complete are left out."""
    means: Errors = values[: len(values) // block_rows * block_rows].reshape(-1, block_rows).mean(axis=1)
    return means


def compare(present: Errors, candidate: Errors, sources: Sequence[str], rule: Rule) -> Evidence:
    """Compare a candidate with the version that it would replace, on the same rows, in the order of their time."""
    rows = len(present) // rule.block_rows * rule.block_rows
    mine, its = losses(present[:rows], rule.cap_celsius), losses(candidate[:rows], rule.cap_celsius)
    gains = block_means((mine - its) / rule.cap_celsius, rule.block_rows)
    margin = rule.margin_celsius / rule.cap_celsius
    better, worse = log_wealth(gains, margin), log_wealth(-gains, -margin)
    low, high = bounds(gains, rule.rate)
    distinct = len(set(sources[:rows]))
    return Evidence(
        rows=rows,
        sources=distinct,
        mean_celsius=_mean(mine),
        candidate_mean_celsius=_mean(its),
        gain_celsius=_mean(gains) * rule.cap_celsius,
        gain_lower_celsius=low * rule.cap_celsius,
        gain_upper_celsius=high * rule.cap_celsius,
        log_evidence_better=better,
        log_evidence_worse=worse,
        verdict=_verdict(better, worse, enough=_enough(rows, distinct, rule), rule=rule),
    )


def exceeds(present: Errors, sources: Sequence[str], bound_celsius: float, rule: Rule) -> bool:
    """Whether it is decided that the mean loss of a version is above a bound, by the same rule."""
    if not 0 < bound_celsius < rule.cap_celsius:
        raise ValueError(f"the bound is above 0 and below the cap, {rule.cap_celsius:g} °C, not {bound_celsius:g}")
    scaled = block_means(2 * losses(present, rule.cap_celsius) / rule.cap_celsius - 1, rule.block_rows)
    evidence = log_wealth(scaled, 2 * bound_celsius / rule.cap_celsius - 1)
    return _enough(len(scaled) * rule.block_rows, len(set(sources)), rule) and evidence >= wanted(rule)


def wanted(rule: Rule) -> float:
    """The natural logarithm of the evidence that decides."""
    return -math.log(rule.rate)


def _verdict(better: float, worse: float, *, enough: bool, rule: Rule) -> Verdict:
    if not enough:
        return Verdict.OPEN
    if better >= wanted(rule):
        return Verdict.BETTER
    return Verdict.WORSE if worse >= wanted(rule) else Verdict.OPEN


def _enough(rows: int, sources: int, rule: Rule) -> bool:
    return rows >= rule.least_rows and sources >= rule.least_sources


def _mean(values: Errors) -> float:
    return float(values.mean()) if len(values) else _NOTHING


_NOTHING: Final = math.nan
