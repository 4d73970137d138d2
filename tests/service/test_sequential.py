"""Evidence that may be looked at again and again: what it promises, on rows of every kind and on simulated runs."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.sequential import FRACTIONS, Gamblers, log_wealth, log_wealth_path
from service.sequential import MEANS as GRID

VALUES = arrays.arrays(np.float64, st.integers(0, 60), elements=st.floats(-1, 1))
MEANS = st.floats(-0.99, 0.99)
RATE = 0.05


def bounds(values: np.ndarray, rate: float) -> tuple[float, float]:
    """A lower and an upper bound of the mean."""
    low, high = (Gamblers.begin(GRID).after(side).lower_bound(rate) for side in (values, -values))
    return low, -high


@given(VALUES, MEANS)
def test_wealth_is_that_of_the_bets_as_they_are_told(values: np.ndarray, mean: float) -> None:
    """Multiplied out by hand, bet by bet and row by row, it comes to the same; and so it does after every row."""
    wealth = [1.0] * len(FRACTIONS)
    path = log_wealth_path(values, mean)
    assert path.shape == values.shape
    for row, value in enumerate(values):
        wealth = [each * (1 + f * (value - mean) / (1 + mean)) for each, f in zip(wealth, FRACTIONS, strict=True)]
        assert path[row] == pytest.approx(math.log(math.fsum(wealth) / len(wealth)), abs=1e-6)
    assert log_wealth(values, mean) == pytest.approx(path[-1] if len(path) else 0.0, abs=1e-9)


@given(VALUES, st.randoms(use_true_random=False), MEANS)
def test_the_order_of_rows_does_not_matter(values: np.ndarray, chance: st.DrawFn, mean: float) -> None:
    """Rows that come late change nothing of what is concluded in the end."""
    shuffled = values.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined] # a random.Random
    assert log_wealth(shuffled, mean) == pytest.approx(log_wealth(values, mean), abs=1e-9)


@given(st.integers(2, 6), MEANS)
def test_under_the_hypothesis_the_game_is_fair(rows: int, mean: float) -> None:
    """Over all outcomes of coins with just that mean, the expected wealth is one: Ville's inequality needs no more."""
    head = (1 + mean) / 2
    expected = 0.0
    for outcome in range(2**rows):
        values = np.array([1.0 if outcome >> row & 1 else -1.0 for row in range(rows)])
        heads = int((values > 0).sum())
        expected += head**heads * (1 - head) ** (rows - heads) * math.exp(log_wealth(values, mean))
    assert expected == pytest.approx(1.0, rel=1e-9)


@given(VALUES, MEANS, MEANS)
def test_a_greater_mean_is_harder_to_refute(values: np.ndarray, one: float, other: float) -> None:
    """So a bound is where the evidence ends, and the lower one lies below the upper one."""
    less, more = sorted((one, other))
    assert log_wealth(values, less) >= log_wealth(values, more) - 1e-9
    low, high = bounds(values, RATE)
    assert -1 <= low <= high <= 1
    if len(values):
        assert low - 1e-6 <= values.mean() <= high + 1e-6
        assert low == -1 or log_wealth(values, low) >= math.log(1 / RATE) - 1e-6
        next_up = GRID[np.searchsorted(GRID, low, side="right") :]
        assert not len(next_up) or log_wealth(values, next_up[0]) < math.log(1 / RATE) + 1e-6


@given(arrays.arrays(np.float64, st.integers(0, 600), elements=st.floats(-1, 1)), st.data())
def test_who_goes_on_comes_to_the_same_as_who_begins_anew(values: np.ndarray, data: st.DataObject) -> None:
    """To the bit, however the values are parted; and of them nothing is kept."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=6)))
    begun = going = Gamblers.begin(np.array([0.0, *GRID[::50]]))
    for start, stop in pairwise([0, *cuts, len(values)]):
        going = going.after(values[start:stop])
    assert going.logarithms.tolist() == begun.after(values).logarithms.tolist()
    assert going.logarithms.nbytes == begun.logarithms.nbytes


def test_bounds_hold_at_every_time_together() -> None:
    """In 80 runs of 400 rows, whose bounds are looked at four times each, at most 5 % ever miss, and they narrow."""
    generator = np.random.default_rng(7)
    missed, widths = 0, []
    for _ in range(80):
        values = np.clip(generator.normal(0.1, 0.3, 400), -0.9, 1)
        missed += any(bounds(values[:rows], RATE)[0] > 0.1 for rows in range(100, 401, 100))
        low, high = bounds(values, RATE)
        widths.append(high - low)
    assert missed / 80 <= RATE
    assert np.median(widths) < 0.2
