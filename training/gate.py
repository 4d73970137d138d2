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
from training.student_t import student_t_quantile, student_t_tail

GROUPS: Final = 10
MOST_SIGNIFICANCE: Final = 0.041


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a challenger must attain. Errors are absolute errors in °C over the held-out rows."""

    absolute_celsius: float = 2.0
    """The upper confidence bound of its mean error must not exceed this."""
    margin_celsius: float = 0.1
    """Its mean error must be shown to lie this far below the champion's, and over no source's rows to lie so far above
    it."""
    agreement_celsius: float = 1.0
    """What the sources say must lie this near together, as far as their rows can tell."""
    significance: float = 0.025
    """Probability with which chance alone may show it, where in truth it is not so; where each source is looked at, of
    all of them together."""

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
    excess: Mean | None = None
    """The challenger's less the champion's, with what is known of it; None also where the rows are too few for that."""

    def shown_excess(self, significance: float) -> float | None:
        """What of the excess is shown: its lower confidence bound; None where nothing can be."""
        return None if self.excess is None else self.excess.confidence(significance)[0]


def errors_by_source(
    challenger: NDArray[np.float64], champion: NDArray[np.float64] | None, source: NDArray[np.str_]
) -> list[SourceErrors]:
    """Mean of the absolute errors [N] in °C, in the order of time, of each model over each source's rows."""
    found = []
    for name in np.unique(source):
        rows = source == name
        theirs = None if champion is None else float(champion[rows].mean())
        excess = None if champion is None else _excess(challenger[rows] - champion[rows])
        found.append(SourceErrors(str(name), int(rows.sum()), float(challenger[rows].mean()), theirs, excess))
    return found


def _excess(losses: NDArray[np.float64]) -> Mean | None:
    """The mean of one source's losses in the order of time, in ten groups, or fewer of two rows each."""
    groups = min(GROUPS, len(losses) // 2)
    return mean_over_time(losses, groups) if groups > 1 else None


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
    """Each source is looked at, so that each has its part of the significance alone (Bonferroni)."""
    part = bounds.significance / max(1, len(sources))
    shown = {each.source: (each.shown_excess(part), each.excess) for each in sources}
    found = {source: (lower, mean.value) for source, (lower, mean) in shown.items() if lower is not None and mean}
    worst = max(found, key=lambda source: found[source][0], default=None)
    text = "no source has enough rows"
    if worst is not None:
        text = f"{worst}: {found[worst][1]:+.3f} °C, lower bound {found[worst][0]:+.3f} °C"
    return Check(
        "worse for no source",
        all(lower <= bounds.margin_celsius for lower, _ in found.values()),
        f"over no source's rows is its mean absolute error shown to lie more than {bounds.margin_celsius:g} °C above "
        f"the champion's, p at most {bounds.significance:g} over all sources",
        text,
    )


def _agreeing(worst: Disagreement | None, bounds: Bounds) -> Check:
    return Check(
        "the sources agree",
        worst is None or worst.shown_celsius <= bounds.agreement_celsius,
        f"what each source says lies within {bounds.agreement_celsius:g} °C of what the others say, "
        "at the colder and at the warmer readings, as far as the rows can tell",
        "nothing to compare" if worst is None else worst.text(),
    )
