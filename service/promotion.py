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
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from service.sequential import MEANS, Gamblers

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
    """Bounds of the gain, each of which holds at all times with probability 1 - rate; on the safe side, where they are
    coarse."""
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
class Trial:
    """What is known of a candidate and the version that it would replace, from rows dealt batch after batch.

    It holds less than one block of rows, however many there were. A trial never changes: `after` makes the next one,
    which is the same, to the bit, however the rows were parted into batches.
    """

    rule: Rule
    bound_celsius: float | None
    """What the mean loss of the version that is there may be; None for anything."""
    blocks: int
    sums_celsius: Errors
    """Of the blocks' mean losses, of the version that is there and of the candidate: float64 `[2]`."""
    seen_sources: frozenset[str]
    """Those of the blocks, more than `MAX_SOURCES` by one batch's at the most."""
    left_celsius: Errors
    """Losses of the rows of the block that is not full, `[2, N]`."""
    left_sources: tuple[str, ...]
    better: Gamblers
    """Bet on gains, in caps, against the margin and other means."""
    worse: Gamblers
    """Bet on losses, likewise."""
    above: Gamblers
    """Bet that the mean loss of the version that is there is above its bound; nobody where it has none."""

    @classmethod
    def begin(cls, rule: Rule, bound_celsius: float | None = None) -> Self:
        """Begin a trial.

        Raises:
            ValueError: the bound is not above 0 and below the cap.
        """
        if bound_celsius is not None and not 0 < bound_celsius < rule.cap_celsius:
            raise ValueError(f"the bound is above 0 and below the cap, {rule.cap_celsius:g} °C, not {bound_celsius:g}")
        margin = rule.margin_celsius / rule.cap_celsius
        bounds = [] if bound_celsius is None else [2 * bound_celsius / rule.cap_celsius - 1]
        return cls(
            rule=rule,
            bound_celsius=bound_celsius,
            blocks=0,
            sums_celsius=np.zeros(2),
            seen_sources=frozenset(),
            left_celsius=np.empty((2, 0)),
            left_sources=(),
            better=Gamblers.begin(np.array([margin, *MEANS])),
            worse=Gamblers.begin(np.array([-margin, *MEANS])),
            above=Gamblers.begin(np.array(bounds)),
        )

    def after(self, present: Errors, candidate: Errors, sources: Sequence[str]) -> "Trial":
        """The trial after further rows, by their errors and their sources."""
        cap, size = self.rule.cap_celsius, self.rule.block_rows
        rows = np.concatenate([self.left_celsius, [losses(present, cap), losses(candidate, cap)]], axis=1)
        named = (*self.left_sources, *sources)
        full = rows.shape[1] // size * size
        means = np.stack([block_means(version, size) for version in rows], axis=1)
        gains = (means[:, 0] - means[:, 1]) / cap
        return replace(
            self,
            blocks=self.blocks + len(means),
            sums_celsius=np.add.reduce(np.concatenate([self.sums_celsius[None], means]), axis=0),
            seen_sources=self.seen_sources | frozenset(named[:full] if len(self.seen_sources) < MAX_SOURCES else ()),
            left_celsius=rows[:, full:].copy(),
            left_sources=named[full:],
            better=self.better.after(gains),
            worse=self.worse.after(-gains),
            above=self.above.after(2 * means[:, 0] / cap - 1),
        )

    @property
    def evidence(self) -> Evidence:
        """What the rows say."""
        cap = self.rule.cap_celsius
        present, candidate = (self.sums_celsius / self.blocks).tolist() if self.blocks else (math.nan, math.nan)
        better, worse = float(self.better.log_wealth[0]), float(self.worse.log_wealth[0])
        return Evidence(
            rows=self.blocks * self.rule.block_rows,
            sources=min(len(self.seen_sources), MAX_SOURCES),
            mean_celsius=present,
            candidate_mean_celsius=candidate,
            gain_celsius=present - candidate,
            gain_lower_celsius=self.better.lower_bound(self.rule.rate) * cap,
            gain_upper_celsius=-self.worse.lower_bound(self.rule.rate) * cap,
            log_evidence_better=better,
            log_evidence_worse=worse,
            verdict=self._verdict(better, worse),
        )

    @property
    def exceeds(self) -> bool:
        """Whether it is decided that the mean loss of the version that is there is above its bound, as surely."""
        return self._is_enough and bool((self.above.log_wealth >= wanted(self.rule)).any())

    def _verdict(self, better: float, worse: float) -> Verdict:
        if not self._is_enough:
            return Verdict.OPEN
        if better >= wanted(self.rule):
            return Verdict.BETTER
        return Verdict.WORSE if worse >= wanted(self.rule) else Verdict.OPEN

    @property
    def _is_enough(self) -> bool:
        rows = self.blocks * self.rule.block_rows
        return rows >= self.rule.least_rows and len(self.seen_sources) >= self.rule.least_sources


def wanted(rule: Rule) -> float:
    """The natural logarithm of the evidence that decides."""
    return -math.log(rule.rate)
