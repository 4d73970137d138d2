"""Whether a challenger may take the champion's place: bounds on errors over rows that neither was fitted to.

Both answer the same held-out rows, so their absolute errors are compared row by row. Rows that follow each other in
time are not independent (a thermometer drifts, a source errs in the same direction for hours), so that a test that
counts each row as new knowledge would find differences in noise. The test here takes the rows in the order of time, in
ten groups, and is Student's t-test on the groups' means: Ibragimov and Müller, "t-Statistic Based Correlation and
Heterogeneity Robust Inference", Journal of Business & Economic Statistics 28 (2010). It needs no estimate of the
dependence within a group, and keeps its level where the groups' variances differ, for two-sided levels up to 8.3 %
(Bakirov and Székely 2006), that is for one-sided ones up to 4.1 %, which `Bounds` holds to.

All functions are pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.agreement import Disagreement

GROUPS: Final = 10
MOST_SIGNIFICANCE: Final = 0.041


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a challenger must attain. Errors are absolute errors in °C over the held-out rows."""

    absolute_celsius: float = 2.0
    """The upper confidence bound of its mean error must not exceed this."""
    margin_celsius: float = 0.1
    """Its mean error must be shown to lie this far below the champion's, and over no source's rows so far above."""
    agreement_celsius: float = 1.0
    """What the sources say must lie this near together, as far as their rows can tell."""
    significance: float = 0.025
    """Probability with which chance alone may show it, where in truth it is not so."""

    def __post_init__(self) -> None:
        """Raise ValueError for a bound that means nothing, or a level at which the test is not known to hold."""
        if not (self.absolute_celsius > 0 and self.agreement_celsius > 0 and self.margin_celsius >= 0):
            raise ValueError("the absolute bound and the agreement must be above 0 °C, the margin not below")
        check_significance(self.significance)


def check_significance(significance: float) -> None:
    """Raise ValueError for a level at which the test is not known to hold."""
    if not 0 < significance <= MOST_SIGNIFICANCE:
        raise ValueError(f"a significance lies above 0 and up to {MOST_SIGNIFICANCE}, unlike {significance:g}")


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over rows in the order of time, with what is known of it: from the means of `groups` groups."""

    value: float
    standard_error: float
    groups: int

    def above(self, bound: float) -> float:
        """The probability of such a mean, or a greater one, where the truth is `bound`: a one-sided p-value."""
        return student_t_tail(_ratio(self.value - bound, self.standard_error), self.groups - 1)

    def confidence(self, significance: float) -> tuple[float, float]:
        """Lower and upper bound, each of which the truth passes with this probability."""
        reach = student_t_quantile(significance, self.groups - 1) * self.standard_error
        return self.value - reach, self.value + reach


def _ratio(distance: float, error: float) -> float:
    if error > 0:
        return distance / error
    return math.copysign(math.inf, distance) if distance else 0.0


def mean_over_time(values: NDArray[np.float64], groups: int = GROUPS) -> Mean:
    """The mean of values [N] in the order of time, as the mean of groups of neighbours.

    Raises:
        ValueError: there are fewer values than two a group.
    """
    if len(values) < 2 * groups:
        raise ValueError(f"{len(values)} values cannot make {groups} groups of two or more")
    means = np.array([part.mean() for part in np.array_split(values, groups)])
    return Mean(float(means.mean()), float(means.std(ddof=1) / math.sqrt(groups)), groups)


def student_t_tail(t: float, degrees: int) -> float:
    """Probability that Student's t exceeds `t`: the finite series for whole degrees of freedom.

    Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.7.3 and 26.7.4.
    """
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    angle = math.atan2(t, math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    term = 1.0 if degrees % 2 == 0 else math.cos(angle)
    total = term if degrees > 1 else 0.0
    for place in range(2 if degrees % 2 == 0 else 3, degrees, 2):
        term *= square * (place - 1) / place
        total += term
    inside = sine * total if degrees % 2 == 0 else 2 / math.pi * (angle + sine * total)
    return (1.0 - inside) / 2.0


def student_t_quantile(tail: float, degrees: int) -> float:
    """The t that Student's exceeds with probability `tail`, by bisection to about 1e-9. `tail` is at most 1/2."""
    low, high = 0.0, 1.0
    while student_t_tail(high, degrees) > tail:
        high *= 2
    while high - low > 1e-10 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_tail(middle, degrees) > tail else (low, middle)
    return high


# The gate -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """One condition: what was asked, what was found, whether it is met."""

    name: str
    passed: bool
    asked: str
    found: str


@dataclass(frozen=True, slots=True)
class SourceErrors:
    """Mean absolute errors in °C over one source's held-out rows; None where there is no champion."""

    source: str
    rows: int
    challenger: float
    champion: float | None


def errors_by_source(
    challenger: NDArray[np.float64], champion: NDArray[np.float64] | None, source: NDArray[np.str_]
) -> list[SourceErrors]:
    """Mean of the absolute errors [N] in °C of each model over each source's rows, the sources in order."""
    found = []
    for name in np.unique(source):
        rows = source == name
        theirs = None if champion is None else float(champion[rows].mean())
        found.append(SourceErrors(str(name), int(rows.sum()), float(challenger[rows].mean()), theirs))
    return found


@dataclass(frozen=True, slots=True)
class GroupErrors:
    """Mean absolute errors in °C over a group of neighbouring held-out rows; None where there is no champion."""

    since_seconds: float
    until_seconds: float
    challenger: float
    champion: float | None


def errors_over_time(
    challenger: NDArray[np.float64], champion: NDArray[np.float64] | None, seconds: NDArray[np.float64]
) -> list[GroupErrors]:
    """Mean of the absolute errors [N] in °C of each model over the test's groups of rows, the oldest first."""
    return [
        GroupErrors(
            float(seconds[rows[0]]),
            float(seconds[rows[-1]]),
            float(challenger[rows].mean()),
            None if champion is None else float(champion[rows].mean()),
        )
        for rows in np.array_split(np.arange(len(seconds)), GROUPS)
    ]


def judge(
    challenger: NDArray[np.float64],
    champion: NDArray[np.float64] | None,
    sources: Sequence[SourceErrors],
    disagreement: Disagreement | None,
    bounds: Bounds,
) -> list[Check]:
    """Judge a challenger by absolute errors [N] in °C, in the order of time, on rows that both models answered.

    `sources` are those with enough rows to be looked at alone, `disagreement` the greatest among them. Without a
    champion only the absolute bound and the agreement of the sources are asked.
    """
    checks = [_absolute(challenger, bounds)]
    if champion is not None:
        checks += [_better(champion - challenger, bounds), _no_source_worse(sources, bounds)]
    return [*checks, _agreeing(disagreement, bounds)]


def _absolute(errors: NDArray[np.float64], bounds: Bounds) -> Check:
    mean = mean_over_time(errors)
    upper = mean.confidence(bounds.significance)[1]
    return Check(
        "absolute bound",
        upper <= bounds.absolute_celsius,
        f"mean absolute error at most {bounds.absolute_celsius:g} °C, with confidence {1 - bounds.significance:.1%}",
        f"{mean.value:.3f} °C, upper bound {upper:.3f} °C",
    )


def _better(gains: NDArray[np.float64], bounds: Bounds) -> Check:
    mean = mean_over_time(gains)
    p_value = mean.above(bounds.margin_celsius)
    lower = mean.confidence(bounds.significance)[0]
    return Check(
        "better than the champion",
        p_value <= bounds.significance,
        f"mean absolute error below the champion's by more than {bounds.margin_celsius:g} °C, "
        f"p at most {bounds.significance:g} (paired, {mean.groups} groups in the order of time)",
        f"below by {mean.value:.3f} °C, lower bound {lower:.3f} °C, p = {p_value:.2g}",
    )


def _no_source_worse(sources: Sequence[SourceErrors], bounds: Bounds) -> Check:
    losses = {each.source: each.challenger - each.champion for each in sources if each.champion is not None}
    worst = max(losses, key=losses.__getitem__, default=None)
    found = "no source has enough rows" if worst is None else f"at most {losses[worst]:+.3f} °C ({worst})"
    return Check(
        "worse for no source",
        all(loss <= bounds.margin_celsius for loss in losses.values()),
        f"over each source's rows, mean absolute error at most {bounds.margin_celsius:g} °C above the champion's",
        found,
    )


def _agreeing(worst: Disagreement | None, bounds: Bounds) -> Check:
    return Check(
        "the sources agree",
        worst is None or worst.shown_celsius <= bounds.agreement_celsius,
        f"what each source says lies within {bounds.agreement_celsius:g} °C of what the others say, "
        "at the colder and at the warmer readings, as far as the rows can tell",
        "nothing to compare" if worst is None else worst.text(),
    )
