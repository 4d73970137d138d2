"""Live quality's figures: right against tables, and bounds that hold what they say they hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observations.figures import MIN_OBSERVATIONS, Estimate, mean, measure, share, t_quantile


@pytest.mark.parametrize(
    ("freedom", "expected"), [(9, 2.262157), (10, 2.228139), (20, 2.085963), (30, 2.042272), (1000, 1.962339)]
)
def test_students_quantile_is_that_of_the_tables(freedom: int, expected: float) -> None:
    """To 1e-4, from 9 degrees of freedom on."""
    assert t_quantile(freedom) == pytest.approx(expected, abs=1e-4)


def test_wilsons_bounds_are_those_of_a_known_example() -> None:
    """8 of 10: 0.490 … 0.943."""
    estimate = share(8, 10)
    assert [estimate.lower, estimate.upper] == pytest.approx([0.4902, 0.9433], abs=1e-4)


@given(size=st.integers(1, 300), data=st.data())
def test_a_share_lies_within_its_bounds(size: int, data: st.DataObject) -> None:
    """Whatever was counted, and both bounds are shares; where there are too few, there are none."""
    estimate = share(data.draw(st.integers(0, size)), size)
    if size < MIN_OBSERVATIONS:
        assert (estimate.lower, estimate.upper) == (None, None)
    else:
        assert estimate.lower is not None
        assert estimate.upper is not None
        assert 0 <= estimate.lower <= estimate.value <= estimate.upper <= 1


def test_the_bounds_hold_the_true_error_as_often_as_they_say() -> None:
    """Of 2,000 samples of 50 normal errors, some 95 % have bounds around the true mean absolute error."""
    generator = np.random.default_rng(1)
    truth = np.sqrt(2 / np.pi)
    estimates = [mean(np.abs(generator.standard_normal(50))) for _ in range(2000)]
    assert 0.93 < np.mean([_holds(estimate, truth) for estimate in estimates]) < 0.97


def _holds(estimate: Estimate, truth: float) -> bool:
    assert estimate.lower is not None
    assert estimate.upper is not None
    return bool(estimate.lower <= truth <= estimate.upper)


def test_coverage_is_counted_where_an_interval_is_stated() -> None:
    """Readings outside the training domain have no interval, so that they count for the error and not for coverage."""
    errors = np.array([0.5, -0.5, 3.0, 9.0])
    inside = np.array([True, True, True, False])
    quality = measure(errors, np.array([4.0, 3.0, 2.0, 1.0]), inside, 1.0, 0.8)
    assert (quality.observations, quality.oldest_observed_at_seconds, quality.newest_observed_at_seconds) == (4, 1, 4)
    assert quality.mae_celsius.value == pytest.approx(3.25)
    assert quality.mse_celsius2.value == pytest.approx((0.25 + 0.25 + 9 + 81) / 4)
    assert quality.coverage == Estimate(2 / 3)
    assert measure(errors, errors, ~inside & inside, 1.0, 0.8).coverage is None
    assert measure(errors, errors, None, None, None).coverage is None
