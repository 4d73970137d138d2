"""How long a schedule waits for a trial that nothing decides: a pure decision."""

from typing import Final

from proto.repository import CANARY

_TWO_DAYS_HOURS: Final = 48.0
TRIAL_PATIENCE_SECONDS: Final = 14 * 86400.0
"""Two weeks: those who read a thermometer have had each day of the week twice; and of the window of observations, which
is 30 days, the half is left that was observed before the trial, so that a round after it has both."""


def overdue(version: int, since_seconds: float, now_seconds: float, patience_seconds: float) -> str | None:
    """Why a trial is to be waited for no longer; None where it is.

    One that seems to begin in the future is waited for too, for a clock may be a little wrong. Further ahead than the
    patience it says nothing any more: no clock, however wrong, makes anybody wait longer than twice the patience.
    """
    if since_seconds - now_seconds > patience_seconds:
        return (
            f"version {version} is on trial as {CANARY!r} since a time that lies {days(since_seconds - now_seconds)} "
            "ahead: a clock is or was wrong, and how long it is on trial is not known"
        )
    if now_seconds - since_seconds > patience_seconds:
        return (
            f"version {version} was on trial as {CANARY!r} for {days(now_seconds - since_seconds)}, and nothing "
            f"decided within {days(patience_seconds)}"
        )
    return None


def days(seconds: float) -> str:
    """A time in words, for people: in days, or in hours where that is less than two days."""
    hours = seconds / 3600.0
    return f"{hours:.3g} hours" if hours < _TWO_DAYS_HOURS else f"{hours / 24:.3g} days"
