"""Rounds come in their time, whatever became of the ones before, until a signal."""

import os
import signal

import pytest

from proto.schedule import ENDED, next_start, repeat


def test_a_round_that_fails_ends_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    """An error is told, and the next round comes; SIGTERM ends it in the middle of one."""
    made: list[int] = []

    def make_round() -> None:
        made.append(len(made))
        if made[-1] == 0:
            raise RuntimeError("the disk is full")
        if made[-1] == 1:
            return
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal ends the round")

    before = signal.getsignal(signal.SIGTERM)
    assert repeat(0.001, make_round) == ENDED
    assert made == [0, 1, 2]
    assert "the disk is full" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_round_may_end_it() -> None:
    """With the code that it returns, be that 0; handlers of signals are those that were there before."""
    before = signal.getsignal(signal.SIGINT)
    for code in (0, 2):
        rounds = iter([None, None, code])
        assert repeat(0.001, rounds.__next__) == code
        assert not list(rounds)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("now", "expected"), [(130.0, 160.0), (160.0, 160.0), (400.0, 400.0)])
def test_rounds_that_were_missed_are_not_caught_up(now: float, expected: float) -> None:
    """The next round begins so long after the last one began, or at once."""
    assert next_start(100.0, 60.0, now) == expected
