"""Whether the sources of observations say the same: a pure comparison of their rows.

One source that is wrong by a constant, or in proportion, moves what is fitted to all of them by its share of the rows.
As long as that is little against what a drifted champion is off, every error becomes smaller, also that over the
honest rows, and no comparison of a challenger with the champion finds it. A comparison of the sources does. The
residuals of the challenger, whose own bias is common to all, are compared in the colder and in the warmer half of the
readings apart, for an error in proportion has two signs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_HALVES: Final = ("colder", "warmer")
LEAST_ROWS: Final = 5
"""A source is compared in a half of the readings where it has so many rows there, and the others as many."""
_DEVIATIONS_OF_CHANCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far what one source says lies from what the others say, over a half of the readings."""

    source: str
    half: str
    """`colder` or `warmer`."""
    celsius: float
    """Mean of its truths less that of the others', for the same readings; °C."""
    standard_error: float

    @property
    def shown_celsius(self) -> float:
        """Of the distance, what chance does not explain: what is beyond two standard errors."""
        return max(0.0, abs(self.celsius) - _DEVIATIONS_OF_CHANCE * self.standard_error)

    def text(self) -> str:
        """In words."""
        return (
            f"{self.source} says {self.celsius:+.2f} °C against the others at the {self.half} readings, "
            f"of which {self.shown_celsius:.2f} °C are not chance"
        )


def greatest_disagreement(
    residuals: NDArray[np.float64], fahrenheit: NDArray[np.float64], source: NDArray[np.str_], judging: Sequence[str]
) -> Disagreement | None:
    """Find the source that is shown to lie furthest from the others; None where no two can be compared.

    Args:
        residuals: truths less what one and the same model answers [N], in °C.
        fahrenheit: the readings [N]; their median parts the halves.
        source: who said it [N].
        judging: the sources that are compared; rows of others are left out.
    """
    counts = np.isin(source, list(judging))
    is_colder = fahrenheit <= np.median(fahrenheit[counts]) if counts.any() else counts
    found = [
        _between(name, half, residuals[rows & (source == name)], residuals[rows & (source != name)])
        for half, rows in zip(_HALVES, (counts & is_colder, counts & ~is_colder), strict=True)
        for name in judging
    ]
    return max((each for each in found if each is not None), key=lambda each: each.shown_celsius, default=None)


def _between(name: str, half: str, own: NDArray[np.float64], others: NDArray[np.float64]) -> Disagreement | None:
    """The difference of two means, with its standard error (Welch's)."""
    if min(len(own), len(others)) < LEAST_ROWS:
        return None
    variance = own.var(ddof=1) / len(own) + others.var(ddof=1) / len(others)
    return Disagreement(name, half, float(own.mean() - others.mean()), math.sqrt(variance))
