"""Which observations a fit may use, and which it is judged by: pure decisions over columns, each of them stated.

Observations come from sources, and a source can be wrong: broken, or meaning harm. Two rules stand before every fit,
and both are applied within stretches of time, so that neither a flood of rows nor a real change of the thermometer
looks like something else:

- *Share.* In a stretch, and over all, no source has more than its share of the rows, or more than the next one has
  where the sources are too few, or the others too small, to fill the whole at that share. Rows over it are left out
  evenly over time.
- *Outliers.* In a stretch a line is fitted by repeated medians (Siegel, "Robust regression using repeated medians",
  Biometrika 69, 1982), which up to half of the rows cannot move, and rows far from it are left out. No model has a say
  in this: neither the one that is judged nor the one it is judged against.

A stretch is the shortest run of observations, one after the other, of which `STRETCH_ROWS` are left by the share.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

STRETCH_ROWS: Final = 30
_STRETCH_STEP: Final = 8
MINIMUM_SCALE_CELSIUS: Final = 0.05
"""No scatter is taken to be smaller: what a good thermometer shows."""
_NORMAL: Final = 1.4826  # the standard deviation of a normal distribution in units of its median absolute deviation


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Observations, the oldest first: readings in °F, truths in °C, Unix times in seconds; float64 [N], and sources."""

    fahrenheit: NDArray[np.float64]
    celsius: NDArray[np.float64]
    seconds: NDArray[np.float64]
    source: NDArray[np.str_]

    def __post_init__(self) -> None:
        """Raise ValueError where the columns do not go together, or the times do not ascend."""
        shapes = {column.shape for column in (self.fahrenheit, self.celsius, self.seconds, self.source)}
        if shapes != {(len(self),)}:
            raise ValueError(f"columns of different shapes: {sorted(shapes)}")
        if np.any(np.diff(self.seconds) < 0):
            raise ValueError("the times of observations must ascend")

    def __len__(self) -> int:
        return len(self.seconds)

    def at(self, rows: NDArray[np.int64]) -> "Observed":
        """Some of the rows, which ascend."""
        return Observed(self.fahrenheit[rows], self.celsius[rows], self.seconds[rows], self.source[rows])


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked of observations before anything is concluded from them."""

    window_seconds: float = 30 * 86400.0
    """How far back observations are read."""
    most_rows: int = 100_000
    """So many are kept in memory at most; the others are left out evenly over time, of whom reported most."""
    minimum_rows: int = 200
    """So many must be left after the share and the outliers."""
    source_share: float = 0.4
    """A source's share of the rows at most."""
    outlier_deviations: float = 6.0
    """So many standard deviations (from the median absolute deviation) from the line of its stretch is an outlier."""
    held_out_share: float = 0.25
    """The newest part of the rows, by which challenger and champion are judged."""
    minimum_held_out: int = 50
    """So many rows of it there must be."""
    minimum_sources: int = 2
    """From so many sources at least."""
    minimum_source_rows: int = 10
    """A source counts among them with so many rows."""

    def __post_init__(self) -> None:
        """Raise ValueError for a rule that nothing could keep."""
        if not (0 < self.source_share <= 1 and 0 < self.held_out_share < 1):
            raise ValueError("a share lies above 0, and below 1 where it is the part held out")
        if not (self.window_seconds > 0 and self.outlier_deviations > 0):
            raise ValueError("the window and the outliers' distance must be above 0")
        if self.most_rows < self.minimum_rows:
            raise ValueError(f"of {self.most_rows} observations at most, {self.minimum_rows} cannot be usable")


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """What became of one source's observations."""

    read: int
    over_share: int
    outliers: int
    used: int


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The observations that may be used, and what became of all, by source."""

    used: Observed
    by_source: Mapping[str, SourceCounts]

    @property
    def read(self) -> int:
        """How many were read."""
        return sum(counts.read for counts in self.by_source.values())


# Selecting ------------------------------------------------------------------------------------------------------------


def select(observed: Observed, rules: Rules, read: Mapping[str, int] | None = None) -> Selection:
    """Choose the observations that may be used: by share and outliers in each stretch, then by share over all.

    `read` says how many of each source were read, where those are more than `observed`.
    """
    kept: list[NDArray[np.int64]] = []
    outliers: list[NDArray[np.int64]] = []
    for start, stop in stretches(observed.source, rules.source_share):
        rows = start + within_share(observed.source[start:stop], rules.source_share)
        far = is_outlier(observed.fahrenheit[rows], observed.celsius[rows], rules.outlier_deviations)
        kept.append(rows[~far])
        outliers.append(rows[far])
    rows = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    rows = rows[within_share(observed.source[rows], rules.source_share)]
    dropped = np.concatenate(outliers) if outliers else rows[:0]
    read = Counter(observed.source.tolist()) if read is None else read
    return Selection(observed.at(rows), _count(read, observed.source[rows], observed.source[dropped]))


def _count(read: Mapping[str, int], used: NDArray[np.str_], outliers: NDArray[np.str_]) -> Mapping[str, SourceCounts]:
    all_used, all_outliers = (Counter(column.tolist()) for column in (used, outliers))
    return {
        source: SourceCounts(
            count, count - all_used[source] - all_outliers[source], all_outliers[source], all_used[source]
        )
        for source, count in sorted(read.items())
    }


def stretches(sources: NDArray[np.str_], share: float) -> list[tuple[int, int]]:
    """Cut rows in the order of time into stretches, from row to row; what is too short at the end joins the last."""
    found: list[tuple[int, int]] = []
    start = 0
    counts: Counter[str] = Counter()
    for place, source in enumerate(sources.tolist(), start=1):
        counts[source] += 1
        if (place - start) % _STRETCH_STEP == 0 and _left_by_share(list(counts.values()), share) >= STRETCH_ROWS:
            found.append((start, place))
            start, counts = place, Counter()
    if start < len(sources):
        first = found.pop()[0] if found else start
        found.append((first, len(sources)))
    return found


def most_of_one(counts: Sequence[int], share: float) -> int:
    """How many rows a source may have: the greatest m that is at most `share` of all that then are left.

    Where that takes more sources than there are of any size, as many as the smallest has of those that are wanting one:
    at 40 % the second. Otherwise a third source with a few rows, or with few that are no outliers, would cut two large
    ones down to its own size. A source that is alone may have all.
    """
    if len(counts) == 1:
        return counts[0]
    descending = sorted(counts, reverse=True)
    wanting_one = min(max(2, math.ceil(1 / share) - 1), len(counts))
    return max(_most_at(share, counts), descending[wanting_one - 1])


def _most_at(share: float, counts: Sequence[int]) -> int:
    """The greatest m that is at most `share` of sum(min(count, m)); 1 at least."""
    low, high = 1, max(counts)
    while low < high:  # the rows left grow more slowly than m: once m is too great, every greater one is
        middle = (low + high + 1) // 2
        if middle <= share * sum(min(count, middle) for count in counts) * (1 + 1e-12):
            low = middle
        else:
            high = middle - 1
    return low


def _left_by_share(counts: Sequence[int], share: float) -> int:
    most = most_of_one(counts, share)
    return sum(min(count, most) for count in counts)


def within_share(sources: NDArray[np.str_], share: float) -> NDArray[np.int64]:
    """The rows [M], ascending, that are left where no source has more than its share."""
    if not len(sources):
        return np.zeros(0, np.int64)
    names, codes, counts = np.unique(sources, return_inverse=True, return_counts=True)
    most = most_of_one(counts.tolist(), share)
    kept = [_evenly(np.flatnonzero(codes == code), most) for code in range(len(names))]
    return np.sort(np.concatenate(kept))


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    places: NDArray[np.int64] = ((np.arange(most) + 0.5) * (len(rows) / most)).astype(np.int64)
    return rows[places]


def is_outlier(fahrenheit: NDArray[np.float64], celsius: NDArray[np.float64], deviations: float) -> NDArray[np.bool_]:
    """Which rows [N] of a stretch lie further from its robust line than so many robust standard deviations."""
    slope, intercept = repeated_median_line(fahrenheit, celsius)
    residuals = celsius - (slope * fahrenheit + intercept)
    scale = max(_NORMAL * float(np.median(np.abs(residuals))), MINIMUM_SCALE_CELSIUS)
    far: NDArray[np.bool_] = np.abs(residuals) > deviations * scale
    return far


def repeated_median_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept by repeated medians; a slope of 0 where all of `x` [N] are equal."""
    steps = x[None, :] - x[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.where(steps != 0, (y[None, :] - y[:, None]) / steps, np.nan)
    has_slope = np.any(steps != 0, axis=1)
    slope = float(np.median(np.nanmedian(slopes[has_slope], axis=1))) if has_slope.any() else 0.0
    return slope, float(np.median(y - slope * x))


# Dividing by time -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Observations divided by time: all of `training` are older than `validation`, all of that than `held_out`."""

    training: Observed
    validation: Observed
    held_out: Observed

    @property
    def observed_until_seconds(self) -> float | None:
        """The time of the newest observation that has a part in a fit or in the choice among fits."""
        fitted = np.concatenate([self.training.seconds, self.validation.seconds])
        return float(fitted[-1]) if len(fitted) else None


VALIDATION_SHARE: Final = 0.2


def divide(used: Observed, rules: Rules, champion_until_seconds: float | None = None) -> Parts:
    """Hold out the newest rows, newer than all that the champion was fitted to; of the others, validate on the newest.

    Rows of one instant are never parted.
    """
    count = len(used)
    first_held_out = count - int(rules.held_out_share * count)
    boundary = used.seconds[first_held_out - 1] if 0 < first_held_out <= count else -np.inf
    if champion_until_seconds is not None:
        boundary = max(boundary, champion_until_seconds)
    held_from = int(np.searchsorted(used.seconds, boundary, side="right"))
    validated = held_from - int(VALIDATION_SHARE * held_from)
    split = used.seconds[validated - 1] if 0 < validated <= held_from and held_from else -np.inf
    validated = min(int(np.searchsorted(used.seconds, split, side="right")), held_from)
    edges = (0, validated, held_from, count)
    return Parts(*(used.at(np.arange(low, high)) for low, high in pairwise(edges)))


MINIMUM_FITTED: Final = 30
"""Rows that training and validation need between them beside what is held out."""


def shortages(selection: Selection, parts: Parts, rules: Rules) -> list[str]:
    """Say what is missing for a judgement; nothing where it can be made.

    More than half of the sources that count among the usable rows have to judge: a flood of late rows by a few would
    fill the part that is held out, and judge alone.
    """
    found = []
    if len(selection.used) < rules.minimum_rows:
        found.append(f"{len(selection.used)} usable observations in the window; it takes {rules.minimum_rows}")
    if len(parts.held_out) < rules.minimum_held_out:
        found.append(
            f"{len(parts.held_out)} of them are newer than all that is fitted to; it takes {rules.minimum_held_out}"
        )
    sources = judging_sources(parts.held_out, rules)
    wanted = max(rules.minimum_sources, len(judging_sources(selection.used, rules)) // 2 + 1)
    if len(sources) < wanted:
        found.append(
            f"{len(sources)} sources have {rules.minimum_source_rows} or more of the held-out rows; it takes {wanted}"
        )
    if not found and (len(parts.training) + len(parts.validation) < MINIMUM_FITTED or len(parts.validation) == 0):
        found.append(f"{len(parts.training)} observations to fit to; it takes {MINIMUM_FITTED}")
    return found


def judging_sources(observed: Observed, rules: Rules) -> list[str]:
    """The sources with enough of these rows to count, in order; of the held-out ones, those that judge."""
    counts = Counter(observed.source.tolist())
    return sorted(source for source, count in counts.items() if count >= rules.minimum_source_rows)
