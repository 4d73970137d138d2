"""A trial is waited for, and no longer than was said, whatever the clocks say."""

import pytest

from training.patience import overdue

DAY = 86400.0
NOW = 1_800_000_000.0
PATIENCE = 14 * DAY


@pytest.mark.parametrize("ago", [0.0, DAY, 14 * DAY, -DAY, -14 * DAY])
def test_a_trial_is_waited_for(ago: float) -> None:
    """Up to the patience, and likewise where a clock that is a little wrong lets it begin in the future."""
    assert overdue(2, NOW - ago, NOW, PATIENCE) is None


@pytest.mark.parametrize(
    ("ago", "says"),
    [(14 * DAY + 1, "for 14 days"), (30 * DAY, "for 30 days"), (NOW, "days"), (-14.5 * DAY, "lies 14.5 days ahead")],
    ids=["just", "long", "epoch", "ahead"],
)
def test_and_then_no_longer(ago: float, says: str) -> None:
    """Why is said. A start far ahead is no start: nobody waits for it."""
    why = overdue(2, NOW - ago, NOW, PATIENCE)
    assert why is not None
    assert "version 2" in why
    assert says in why


@pytest.mark.parametrize("ahead", [0.0, 5 * DAY, 14 * DAY, 100 * DAY])
def test_no_clock_makes_anybody_wait_longer_than_twice_the_patience(ahead: float) -> None:
    """From the first look on."""
    assert overdue(2, NOW + ahead, NOW + 2 * PATIENCE + 1, PATIENCE) is not None or ahead > 2 * PATIENCE
    assert any(overdue(2, NOW + ahead, NOW + day * DAY, PATIENCE) for day in range(30))
