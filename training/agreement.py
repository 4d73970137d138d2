"""Whether the sources of observations say the same: a pure comparison of their rows.

One source that is wrong by a constant, or in proportion, moves what is fitted to all of them by its share of the rows.
As long as that is little against what a drifted champion is off, every error becomes smaller, also that over the
honest rows, and no comparison of a challenger with the champion finds it. A comparison of the sources does. The
residuals of the challenger, whose own bias is common to all, are compared in the colder and in the warmer half of the
readings apart, for an error in proportion has two signs; and over both together, their mean and half their difference,
which tell more of a constant error and of one in proportion.

Chance is allowed for by Welch's test (Welch, "The generalization of 'Student's' problem when several different
population variances are involved", Biometrika 34, 1947), with whole degrees of freedom, rounded down. There are four
comparisons a source, so each has its part of the significance alone (Bonferroni): however many sources there are,
chance shows a disagreement beyond the true ones with that probability at most.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.student_t import student_t_quantile

_COMPARISONS: Final = 4
"""Of each source: in two halves of the readings, their mean, and half their difference."""
LEAST_ROWS: Final = 5
"""A source is compared in a half of the readings where it has so many rows there, and the others as many."""
_MOST_DEGREES: Final = 1000
"""More degrees of freedom are taken for so many: the quantile is less than 0.3 % greater then."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far what one source says lies from what the others say, over a part of the readings."""

    source: str
    part: str
    """Which, in words."""
    celsius: float
    """Mean of its truths less that of the others', for the same readings; °C."""
    reach_celsius: float
    """So much of the distance may be chance."""

    @property
    def shown_celsius(self) -> float:
        """Of the distance, what chance does not explain."""
        return max(0.0, abs(self.celsius) - self.reach_celsius)

    def text(self) -> str:
        """In words."""
        return (
            f"{self.source} says {self.celsius:+.2f} °C against the others {self.part}, "
            f"of which {self.shown_celsius:.2f} °C are not chance"
        )


@dataclass(frozen=True, slots=True)
class _Mean:
    """A sum of means that are known with error: its value, and each mean's variance with its degrees of freedom."""

    value: float
    variances: tuple[tuple[float, int], ...]

    def reach(self, tail: float) -> float:
        """What it may lie off by chance, to one side, with this probability (Welch's degrees of freedom)."""
        variance = sum(each for each, _ in self.variances)
        if variance == 0:
            return 0.0
        degrees = variance**2 / sum(each**2 / own for each, own in self.variances)
        return math.sqrt(variance) * _quantile(tail, max(1, min(int(degrees), _MOST_DEGREES)))

    def mean_with(self, other: "_Mean") -> "_Mean":
        """The mean of both."""
        variances = tuple((each / 4, own) for each, own in (*self.variances, *other.variances))
        return _Mean((self.value + other.value) / 2, variances)

    def negative(self) -> "_Mean":
        """The same with the other sign."""
        return _Mean(-self.value, self.variances)


_quantile = functools.cache(student_t_quantile)


def greatest_disagreement(
    residuals: NDArray[np.float64],
    fahrenheit: NDArray[np.float64],
    source: NDArray[np.str_],
    judging: Sequence[str],
    significance: float,
) -> Disagreement | None:
    """Find the source that is shown to lie furthest from the others; None where no two can be compared.

    Args:
        residuals: truths less what one and the same model answers [N], in °C.
        fahrenheit: the readings [N]; their median parts the halves.
        source: who said it [N].
        judging: the sources that are compared; rows of others are left out.
        significance: probability with which chance shows more of any than there is.
    """
    counts = np.isin(source, list(judging))
    is_colder = fahrenheit <= np.median(fahrenheit[counts]) if counts.any() else counts
    tail = significance / max(1, _COMPARISONS * len(judging))
    found = []
    for name in judging:
        halves = [
            _between(residuals[rows & (source == name)], residuals[rows & (source != name)])
            for rows in (counts & is_colder, counts & ~is_colder)
        ]
        found += [Disagreement(name, part, each.value, each.reach(tail)) for part, each in _parts(*halves).items()]
    return max(found, key=lambda each: each.shown_celsius, default=None)


def _parts(colder: _Mean | None, warmer: _Mean | None) -> dict[str, _Mean]:
    """What there is to look at. In what is of both halves they weigh alike, whoever reported where."""
    halves = {"at the colder readings": colder, "at the warmer readings": warmer}
    found = {part: mean for part, mean in halves.items() if mean is not None}
    if colder is not None and warmer is not None:
        found["at all readings"] = warmer.mean_with(colder)
        found["at the warmer readings, and the opposite at the colder"] = warmer.mean_with(colder.negative())
    return found


def _between(own: NDArray[np.float64], others: NDArray[np.float64]) -> _Mean | None:
    """The difference of two means; None where the rows are too few."""
    if min(len(own), len(others)) < LEAST_ROWS:
        return None
    variances = tuple((float(rows.var(ddof=1)) / len(rows), len(rows) - 1) for rows in (own, others))
    return _Mean(float(own.mean() - others.mean()), variances)
