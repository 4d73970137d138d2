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
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

FRACTIONS: Final = np.geomspace(0.01, 0.95, 6)
"""Of the wealth, what is bet. Small ones find small differences among many rows, great ones great ones among few.
More of them would lie nearer to the best one, and each would begin with less.
"""
MEANS: Final = np.sign(np.linspace(-1, 1, 257)[1:-1]) * np.linspace(-1, 1, 257)[1:-1] ** 2
"""What a bound may be: 255 means, the closer to one another the nearer to 0, where bounds are wanted most finely."""

_CHUNK_ROWS: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Gamblers:
    """Some who bet, each against one mean of the same values; of the values they keep what their bets came to.

    They hold as much memory however many values there were, and come to the same, to the bit, however these were
    parted: a look goes on where the last one ended.
    """

    means: Values
    """What each one's hypothesis says is the most that the mean can be: float64 `[M]`, between -1 and 1."""
    logarithms: Values
    """Of what each one has in each bet, who began with 1: float64 `[M, F]`."""

    @classmethod
    def begin(cls, means: Values) -> Self:
        """Let them sit down, before the first value."""
        return cls(means, np.zeros((len(means), len(FRACTIONS))))

    def after(self, values: Values) -> "Gamblers":
        """The same ones after further values in [-1, 1], float64 `[N]`."""
        logarithms = self.logarithms
        for start in range(0, len(values), _CHUNK_ROWS):
            returns = (values[start : start + _CHUNK_ROWS, None] - self.means) / (1 + self.means)  # at least -1
            won = np.log1p(returns[:, :, None] * FRACTIONS)
            logarithms = np.add.reduce(np.concatenate([logarithms[None], won]), axis=0)  # one value after the other
        return Gamblers(self.means, logarithms)

    @property
    def log_wealth(self) -> Values:
        """The logarithm of what each one has, `[M]`."""
        greatest = self.logarithms.max(axis=1)
        wealth: Values = greatest + np.log(np.exp(self.logarithms - greatest[:, None]).mean(axis=1))
        return wealth

    def lower_bound(self, rate: float) -> float:
        """A bound that the mean of the values lies above, at all times together with probability 1 - `rate`.

        It is the greatest of the means that is refuted, -1 where none is: the wealth falls as the mean that is bet
        against grows.
        """
        refuted = self.means[self.log_wealth >= math.log(1 / rate)]
        return float(refuted.max(initial=-1.0))


def log_wealth(values: Values, mean: float) -> float:
    """The logarithm of what a gambler has after all values in [-1, 1], who bets that their mean is above `mean`."""
    return float(Gamblers.begin(np.array([mean])).after(values).log_wealth[0])


def log_wealth_path(values: Values, mean: float) -> Values:
    """The same after each of the rows, `[N]`."""
    returns = (values - mean) / (1 + mean)
    paths = np.cumsum(np.log1p(FRACTIONS[:, None] * returns[None, :]), axis=1)
    greatest = paths.max(axis=0)
    path: Values = greatest + np.log(np.exp(paths - greatest).mean(axis=0))
    return path
