"""Whether a canary takes the place of the stable version, and whether that goes back: by errors on the same rows.

Nothing here reads or writes. The loss of a row is the absolute error, and no more than a cap, so that it is bounded as
the test asks for, and no single wild row decides. Both versions are judged on the same rows, none of which can have
been in the training data of either. Rows that follow one another hang together, where a reader or a room does: so the
test does not bet on rows but on the means of blocks of them. They are dealt in the order in which they arrived: then a
block that is full stays as it is, whatever comes later, and what was seen at a look is the beginning of what is seen at
the next.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.sequential import bounds, log_wealth

MAX_SOURCES: Final = 1000
"""Sources that are told from one another; further ones are not counted."""

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
    block_rows: int = 20
    """Rows, one after the other, whose mean is one bet; so many that blocks hardly know of each other."""
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
        if self.least_sources > MAX_SOURCES:
            raise ValueError(f"no more than {MAX_SOURCES} sources can be asked for")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rows say of a candidate against the version that it would replace."""

    rows: int
    """Those of complete blocks."""
    sources: int
    """How many they come from, up to `MAX_SOURCES`."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """What two versions lost on the same rows, in full blocks one after the other: mean losses in °C, float64 `[B]`."""

    present_celsius: Errors
    candidate_celsius: Errors
    rows: int
    sources: int
    """How many they come from, up to `MAX_SOURCES`."""


class Dealer:
    """Deals rows into blocks, batch after batch; of them it keeps the blocks' means and less than one block of rows.

    The blocks of some batches are the first of those of these batches and more, however the rows were parted.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._means: list[Errors] = []
        """Parts of `[2, B]`: of the version that is there, and of the candidate."""
        self._sources: set[str] = set()
        self._left: Errors = np.empty((2, 0))
        """Losses of the rows of the block that is not full, `[2, N]`."""
        self._left_sources: list[str] = []

    def deal(self, present: Errors, candidate: Errors, sources: Sequence[str]) -> None:
        """Deal the next rows, by their errors and their sources."""
        cap, size = self._rule.cap_celsius, self._rule.block_rows
        rows = np.concatenate([self._left, [losses(present, cap), losses(candidate, cap)]], axis=1)
        named = [*self._left_sources, *sources]
        full = rows.shape[1] // size * size
        self._means.append(np.stack([block_means(version, size) for version in rows]))
        self._sources.update(named[:full] if len(self._sources) < MAX_SOURCES else ())
        self._left, self._left_sources = rows[:, full:].copy(), named[full:]

    @property
    def blocks(self) -> Blocks:
        """The blocks that are full."""
        means = np.concatenate([*self._means, np.empty((2, 0))], axis=1)
        self._means = [means]
        return Blocks(means[0], means[1], means.shape[1] * self._rule.block_rows, min(len(self._sources), MAX_SOURCES))


def compare(blocks: Blocks, rule: Rule) -> Evidence:
    """Compare a candidate with the version that it would replace."""
    gains = (blocks.present_celsius - blocks.candidate_celsius) / rule.cap_celsius
    margin = rule.margin_celsius / rule.cap_celsius
    better, worse = log_wealth(gains, margin), log_wealth(-gains, -margin)
    low, high = bounds(gains, rule.rate)
    return Evidence(
        rows=blocks.rows,
        sources=blocks.sources,
        mean_celsius=_mean(blocks.present_celsius),
        candidate_mean_celsius=_mean(blocks.candidate_celsius),
        gain_celsius=_mean(gains) * rule.cap_celsius,
        gain_lower_celsius=low * rule.cap_celsius,
        gain_upper_celsius=high * rule.cap_celsius,
        log_evidence_better=better,
        log_evidence_worse=worse,
        verdict=_verdict(better, worse, enough=_enough(blocks, rule), rule=rule),
    )


def exceeds(blocks: Blocks, bound_celsius: float, rule: Rule) -> bool:
    """Whether it is decided that the mean loss of the version that is there is above a bound, by the same rule."""
    if not 0 < bound_celsius < rule.cap_celsius:
        raise ValueError(f"the bound is above 0 and below the cap, {rule.cap_celsius:g} °C, not {bound_celsius:g}")
    scaled = 2 * blocks.present_celsius / rule.cap_celsius - 1
    evidence = log_wealth(scaled, 2 * bound_celsius / rule.cap_celsius - 1)
    return _enough(blocks, rule) and evidence >= wanted(rule)


def wanted(rule: Rule) -> float:
    """The natural logarithm of the evidence that decides."""
    return -math.log(rule.rate)


def _verdict(better: float, worse: float, *, enough: bool, rule: Rule) -> Verdict:
    if not enough:
        return Verdict.OPEN
    if better >= wanted(rule):
        return Verdict.BETTER
    return Verdict.WORSE if worse >= wanted(rule) else Verdict.OPEN


def _enough(blocks: Blocks, rule: Rule) -> bool:
    return blocks.rows >= rule.least_rows and blocks.sources >= rule.least_sources


def _mean(values: Errors) -> float:
    return float(values.mean()) if len(values) else _NOTHING


_NOTHING: Final = math.nan
