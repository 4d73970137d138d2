"""The prediction interval: that what it states is true, and that what cannot be stated is refused."""

import copy
import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.training.conftest import MakeReadings
from training import law
from training.dataset import Dataset, seeded_split
from training.errors import CoverageError
from training.fit import Fitted, train
from training.interval import (
    JACKKNIFE_MINMAX,
    SPLIT_CONFORMAL,
    choose_method,
    jackknife_minmax,
    plain_jackknife,
    rank,
    split_conformal,
    spread,
    stated_interval,
)
from training.leave_one_out import LeaveOneOut
from training.options import Architecture, FitOptions

Floats = NDArray[np.float64]

# The rank -------------------------------------------------------------------------------------------------------------


@given(samples=st.integers(1, 500), percent=st.integers(1, 99))
def test_rank_is_the_least_that_attains_the_coverage(samples: int, percent: int) -> None:
    """Of n + 1 equally likely places of a new residual, the first `rank` make up the coverage, and no fewer do."""
    coverage = Fraction(percent, 100)
    if coverage > Fraction(samples, samples + 1):
        with pytest.raises(CoverageError):
            rank(samples, percent / 100)
        return
    found = rank(samples, percent / 100)
    assert 1 <= found <= samples
    assert Fraction(found, samples + 1) >= coverage > Fraction(found - 1, samples + 1)


def test_rank_is_not_moved_by_rounding() -> None:
    """0.8 of 5 places is exactly 4: no float dust makes it 5, which four samples would not support."""
    assert rank(4, 0.8) == 4
    assert rank(11, 0.8) == 10


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 1.1, math.nan, math.inf])
def test_coverage_that_is_none_is_refused(coverage: float) -> None:
    """A coverage lies between 0 and 1."""
    with pytest.raises(CoverageError, match="between 0 and 1"):
        rank(11, coverage)


def test_coverage_that_eleven_readings_cannot_support_is_refused() -> None:
    """Eleven readings support 11/12 and no more; the error says so."""
    assert rank(11, 0.91) == 11
    with pytest.raises(CoverageError, match=r"11 samples .* 0\.9167 at most, not 0\.92"):
        rank(11, 0.92)


def test_half_widths_are_the_ranked_residuals() -> None:
    """Signs do not matter; the spread is added where the method needs it."""
    residuals = np.array([0.5, -3.0, 1.0, -2.0])
    assert split_conformal(residuals, 0.6).half_width_celsius == 2.0
    assert plain_jackknife(residuals, 0.6) == 2.0
    assert jackknife_minmax(residuals, 0.25, 0.6).half_width_celsius == 2.25
    assert split_conformal(residuals, 0.8).half_width_celsius == 3.0


# Coverage, simulated --------------------------------------------------------------------------------------------------

Learner = Callable[[Floats, Floats], Callable[[Floats], Floats]]


def polynomial(degree: int) -> Learner:
    """Least squares of a degree."""

    def learn(inputs: Floats, truths: Floats) -> Callable[[Floats], Floats]:
        fitted = np.polynomial.Polynomial.fit(inputs, truths, degree)
        return lambda x: np.asarray(fitted(x))

    return learn


def nearest(inputs: Floats, truths: Floats) -> Callable[[Floats], Floats]:
    """The truth of the nearest input: a model that hangs on single rows."""
    return lambda x: truths[np.argmin(np.abs(x[:, None] - inputs), axis=1)]


@pytest.mark.parametrize("learn", [polynomial(1), polynomial(5), nearest], ids=["line", "degree 5", "nearest"])
def test_jackknife_minmax_covers_what_it_states(learn: Learner) -> None:
    """Over many sets of eleven readings, a fresh one lies in the interval 80 % of the time at least.

    As in the product, the model in the middle is fitted to nine of them, and the refits to ten.
    """
    random = np.random.default_rng(11)
    covered = []
    for _ in range(600):
        inputs = random.uniform(20.0, 90.0, 12)
        truths = law.celsius(inputs) + random.normal(0.0, 1.7, 12)
        seen, known = inputs[:11], truths[:11]
        refits = [learn(np.delete(seen, row), np.delete(known, row)) for row in range(11)]
        residuals = np.array([refits[row](seen[[row]])[0] - known[row] for row in range(11)])
        centre = learn(seen[:9], known[:9])
        grid = np.linspace(seen.min(), seen.max(), 50)
        reach = max(float(np.abs(refit(grid) - centre(grid)).max()) for refit in refits)
        half_width = jackknife_minmax(residuals, reach, 0.8).half_width_celsius
        if seen.min() <= inputs[11] <= seen.max():  # outside there is no interval
            covered.append(abs(centre(inputs[[11]])[0] - truths[11]) <= half_width)
    assert np.mean(covered) >= 0.8


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_split_conformal_covers_what_it_states_and_not_much_more(coverage: float) -> None:
    """With 39 validation rows the share of fresh residuals covered is the one stated, to within the simulation."""
    random = np.random.default_rng(3)
    residuals = random.standard_t(3, (4000, 40))
    covered = [abs(row[-1]) <= split_conformal(row[:-1], coverage).half_width_celsius for row in residuals]
    assert coverage - 0.02 <= np.mean(covered) <= coverage + 1 / 40 + 0.02


# Of a fit -------------------------------------------------------------------------------------------------------------


def test_stated_interval_contains_that_of_jackknife_minmax(mlp: Fitted, mlp_left_out: LeaveOneOut) -> None:
    """At every input of the training domain it contains the interval for which the guarantee is proved."""
    stated = stated_interval(mlp, 0.8, mlp_left_out)
    inputs = np.linspace(33.9, 81.9, 5000)[:, None]
    answers = np.array([refit.predict(inputs) for refit in mlp_left_out.refits])
    quantile = np.sort(np.abs(mlp_left_out.residuals))[9]
    middle = mlp.model.predict(inputs)
    assert stated.method == JACKKNIFE_MINMAX
    assert stated.coverage == 0.8
    assert np.all(middle - stated.half_width_celsius <= answers.min(axis=0) - quantile + 1e-3)
    assert np.all(middle + stated.half_width_celsius >= answers.max(axis=0) + quantile - 1e-3)


def test_overfitted_model_states_the_wider_interval(
    linear: Fitted, mlp: Fitted, linear_left_out: LeaveOneOut, mlp_left_out: LeaveOneOut
) -> None:
    """The MLP hangs more on single readings than the linear model, and its interval says so."""
    assert spread(mlp, mlp_left_out) > 2 * spread(linear, linear_left_out)
    widths = [
        stated_interval(fitted, 0.8, left_out).half_width_celsius
        for fitted, left_out in ((linear, linear_left_out), (mlp, mlp_left_out))
    ]
    assert widths[0] < widths[1]


def test_enough_validation_rows_give_a_split_conformal_interval(make_readings: MakeReadings) -> None:
    """With twenty validation rows the interval is the ranked residual among them, and needs no refit."""
    readings = make_readings(20.0, 90.0, rows=100)
    fitted = train(readings, seeded_split(100, 0), Architecture("linear"), FitOptions(500, 1e-2, "adam"))
    rows = fitted.split.validation
    residuals = np.abs(fitted.model.predict(readings.features[rows]) - readings.celsius[rows])
    stated = stated_interval(fitted, 0.8)
    assert stated.method == SPLIT_CONFORMAL
    assert np.count_nonzero(residuals <= stated.half_width_celsius) == 17


def test_spread_of_several_columns_of_a_linear_model_is_exact(two_columns: Dataset) -> None:
    """A refit with other slopes differs most at a corner of the columns' box, wherever no reading lies."""
    options = FitOptions(2, 1e-2, "adam")
    fitted = train(two_columns, seeded_split(len(two_columns), 0), Architecture("linear"), options)
    refit = copy.deepcopy(fitted.model)
    with torch.no_grad():
        refit.get_parameter("linear.weight").add_(torch.tensor([[1.0, -1.0]]))
    corners = np.array(list(itertools.product(*zip(*fitted.training_range, strict=True))))
    distances = np.abs(refit.predict(corners) - fitted.model.predict(corners))
    found = spread(fitted, LeaveOneOut(np.arange(1), np.zeros(1), (refit,)))
    assert found == pytest.approx(distances.max(), rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "patience", "coverage", "method"),
    [
        (11, None, 0.8, JACKKNIFE_MINMAX),
        (99, None, 0.8, JACKKNIFE_MINMAX),
        (100, None, 0.8, SPLIT_CONFORMAL),
        (100, 10, 0.8, JACKKNIFE_MINMAX),
        (100, None, 0.98, JACKKNIFE_MINMAX),
        (1000, None, 0.98, SPLIT_CONFORMAL),
    ],
)
def test_method_is_the_one_whose_guarantee_holds(
    make_readings: MakeReadings, rows: int, patience: int | None, coverage: float, method: str
) -> None:
    """Validation rows decide where there are enough and early stopping has not looked at them; else leave-one-out."""
    readings = make_readings(20.0, 90.0, rows=rows)
    options = FitOptions(10, 1e-2, patience=patience)
    assert choose_method(readings, seeded_split(rows, 0), options, coverage) == method


def test_method_is_refused_before_the_fit_where_none_attains_the_coverage(make_readings: MakeReadings) -> None:
    """Eleven rows cannot show 95 %, and early stopping leaves a thousand no more than a hundred refits."""
    for rows, patience, coverage in ((11, None, 0.95), (1000, 10, 0.995)):
        readings, options = make_readings(20.0, 90.0, rows=rows), FitOptions(10, 1e-2, patience=patience)
        with pytest.raises(CoverageError):
            choose_method(readings, seeded_split(rows, 0), options, coverage)
