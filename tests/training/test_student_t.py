"""Student's t distribution is that of the tables."""

import pytest

from training.student_t import student_t_quantile, student_t_tail


@pytest.mark.parametrize(
    ("tail", "degrees", "quantile"),
    [(0.05, 1, 6.31375), (0.025, 2, 4.30265), (0.025, 4, 2.77645), (0.025, 9, 2.26216), (0.005, 30, 2.74999)],
)
def test_quantiles_are_those_of_the_tables(tail: float, degrees: int, quantile: float) -> None:
    """Five published quantiles of Student's t, to the digits that are printed."""
    assert student_t_quantile(tail, degrees) == pytest.approx(quantile, abs=6e-6)
    assert student_t_tail(quantile, degrees) == pytest.approx(tail, rel=1e-4)


def test_tails_add_up() -> None:
    """The tails on both sides of a value hold everything, infinite values included."""
    for t in (0.0, 0.3, 2.0, 40.0, float("inf")):
        assert student_t_tail(t, 9) + student_t_tail(-t, 9) == pytest.approx(1.0)
