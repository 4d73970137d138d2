"""The page that a run writes."""

import pytest

from benchmarks import page
from benchmarks.summary import Spread


@pytest.mark.parametrize(
    ("value", "text"), [(0.04711, "0.0471"), (1.5, "1.50"), (34.567, "34.57"), (123.4, "123"), (51_234.9, "51,235")]
)
def test_numbers_have_the_digits_that_mean_something(value: float, text: str) -> None:
    """Small numbers keep three digits, large ones none after the point."""
    assert page.significant(value) == text


def test_a_range_is_shown_where_rounds_differ() -> None:
    """One round has a figure; several have a median with its range; none has a dash."""
    assert page.ranged(Spread(2, 2, 2)) == "2.00"
    assert page.ranged(Spread(0.002, 0.001, 0.003), 1e6) == "2,000 (1,000–3,000)"
    assert page.ranged(None) == "–"


def test_tables_have_as_many_cells_as_columns() -> None:
    """A table has a rule under its head, and numbers to the right."""
    lines = page.table(["server", "rate"], [["ours", "1"], ["theirs", "2"]]).splitlines()
    assert lines == ["| server | rate |", "| --- | ---: |", "| ours | 1 |", "| theirs | 2 |"]
