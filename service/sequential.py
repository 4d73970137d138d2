"""A test that may be looked at as often as one likes: betting against a hypothesis about a mean.

Somebody who looks at a p-value after every observation, and stops when it is small, will see it small by chance sooner
or later. Here a gambler who begins with one coin bets, row after row, that a mean is greater than the hypothesis says.
Where the hypothesis holds, the game is fair or worse, and the probability that the gambler *ever* has K coins is at
most 1/K (Ville's inequality). So the wealth is evidence that can be read at any time, and acted on at 1/rate.

The bets are fixed fractions of the wealth, several of them side by side, among which the first coin is shared out
evenly: "grid Kelly" in Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", Journal of
the Royal Statistical Society B 86 (2024). Nothing is tuned to the rows, so the wealth does not depend on their order.
What is asked of the rows: they lie in a known range, and under the hypothesis no row's mean, given those that came
before it, is greater than it says. They need be neither alike nor independent. And what was there at one look is there
at the next, unchanged: evidence over rows that are exchanged meanwhile for others is another gambler's.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

FRACTIONS: Final = np.geomspace(0.01, 0.95, 6)
"""Of the wealth, what is bet. Small ones find small differences among many rows, great ones great ones among few.
More of them would lie nearer to the best one, and each would begin with less.
"""
_HALVINGS: Final = 26
_CHUNK_ROWS: Final = 1 << 14


def log_wealth(values: Values, mean: float) -> float:
    """The logarithm of what the gambler has after all rows, who began with 1.

    `values` lie in [-1, 1], float64 `[N]`; the hypothesis is that their mean is at most `mean`, above -1.
    """
    logarithms = np.zeros(len(FRACTIONS))
    for start in range(0, len(values), _CHUNK_ROWS):
        returns = (values[start : start + _CHUNK_ROWS] - mean) / (1 + mean)  # at least -1
        logarithms += np.log1p(np.outer(FRACTIONS, returns)).sum(axis=1)
    return _log_mean_exp(logarithms)


def log_wealth_path(values: Values, mean: float) -> Values:
    """The same after each of the rows, `[N]`."""
    returns = (values - mean) / (1 + mean)
    paths = np.cumsum(np.log1p(FRACTIONS[:, None] * returns[None, :]), axis=1)
    greatest = paths.max(axis=0)
    path: Values = greatest + np.log(np.exp(paths - greatest).mean(axis=0))
    return path


def lower_bound(values: Values, rate: float) -> float:
    """A bound that the mean of values in [-1, 1] lies above, at all times together with probability 1 - `rate`.

    It is the greatest mean that the gambler has refuted: the wealth falls as the mean that is bet against grows.
    """
    wanted = math.log(1 / rate)
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS if len(values) else 0):
        middle = (low + high) / 2
        if log_wealth(values, middle) >= wanted:
            low = middle
        else:
            high = middle
    return low


def bounds(values: Values, rate: float) -> tuple[float, float]:
    """A lower and an upper bound of the mean, each of which holds with probability 1 - `rate`."""
    return lower_bound(values, rate), -lower_bound(-values, rate)


def _log_mean_exp(logarithms: Values) -> float:
    greatest = float(logarithms.max())
    return greatest + math.log(float(np.exp(logarithms - greatest).mean()))
