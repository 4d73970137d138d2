"""What time brings about: deadlines, ages, paces, costs, budgets; each with a clock of the test's own."""

import contextlib
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import OverloadedError
from service.http2 import Http2Limits
from service.http2.ages import NOTICE_SECONDS, Step, Times, age_limit, next_step
from service.http2.budget import Budget
from service.http2.costs import Costs
from service.http2.deadlines import SLOT_SECONDS, Wheel
from service.http2.limits import LimitsError
from service.http2.pace import Pace
from service.models import Models

LIMITS = Http2Limits(max_idle_seconds=1_000.0)
FRESH = Times(connected=0.0, age_limit=math.inf, heard=0.0, idle_since=0.0, greeted=True)


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_wheel_gives_each_once_and_in_time(whens: list[float], looks: list[float]) -> None:
    """Each thing comes out once, not before its time, and not later than a slot after the next look."""
    wheel: Wheel[int] = Wheel(0.0)
    for index, when in enumerate(whens):
        wheel.add(index, when)
    out: dict[int, float] = {}
    for now in [*sorted(looks), 101.0]:
        for thing in wheel.due(now):
            assert thing not in out
            assert now >= whens[thing]
            out[thing] = now
        assert all(thing in out for thing, when in enumerate(whens) if when <= now - SLOT_SECONDS)
    assert len(out) == len(whens)
    assert not wheel


@given(st.lists(st.floats(0, 10), min_size=1), st.data())
def test_wheel_forgets(whens: list[float], data: st.DataObject) -> None:
    """What was discarded does not come out, and takes no place."""
    wheel: Wheel[int] = Wheel(0.0)
    for index, when in enumerate(whens):
        wheel.add(index, when)
    gone = data.draw(st.sets(st.sampled_from(range(len(whens)))))
    for index in gone:
        wheel.discard(index, whens[index])
    assert set(wheel.due(11.0)) == set(range(len(whens))) - gone


@pytest.mark.parametrize(
    ("times", "now", "step"),
    [
        (FRESH, 1.0, Step.NOTHING),
        (replace(FRESH, greeted=False), 9.9, Step.NOTHING),
        (replace(FRESH, greeted=False), 10.0, Step.ABORT),
        (replace(FRESH, greeted=False, notified=3.0, drain_end=30.0), 3.9, Step.NOTHING),
        (replace(FRESH, greeted=False, notified=3.0, drain_end=30.0), 4.0, Step.ABORT),
        (FRESH, 60.0, Step.PING),
        (replace(FRESH, pinged=60.0), 79.9, Step.NOTHING),
        (replace(FRESH, pinged=60.0), 80.0, Step.ABORT),
        (replace(FRESH, pinged=60.0, heard=61.0), 100.0, Step.NOTHING),
        (replace(FRESH, pinged=60.0, heard=61.0), 121.0, Step.PING),
        (replace(FRESH, age_limit=50.0), 50.0, Step.DRAIN),
        (replace(FRESH, heard=1_000.0), 1_000.0, Step.DRAIN),
        (replace(FRESH, heard=1_000.0, idle_since=math.inf), 1_000.0, Step.NOTHING),
        (replace(FRESH, notified=10.0, drain_end=40.0), 10.0 + NOTICE_SECONDS, Step.LAST_CALL),
        (replace(FRESH, notified=10.0, drain_end=40.0, last_called=True), 39.9, Step.NOTHING),
        (replace(FRESH, notified=10.0, drain_end=40.0, last_called=True), 40.0, Step.CUT_CALLS),
        (replace(FRESH, notified=10.0, drain_end=40.0, last_called=True, stopping=True), 40.0, Step.NOTHING),
        (replace(FRESH, closing=5.0), 5.9, Step.NOTHING),
        (replace(FRESH, closing=5.0), 6.0, Step.ABORT),
    ],
)
def test_steps(times: Times, now: float, step: Step) -> None:
    """A connection's next step follows from its times."""
    assert next_step(times, now, LIMITS) is step


@given(st.integers(0))
def test_ages_are_spread(seed: int) -> None:
    """Connections that come together grow old at times of their own, each within a tenth of the setting."""
    limits = Http2Limits(max_age_seconds=100.0)
    chance = random.Random(seed)  # noqa: S311 - any will do
    ages = [age_limit(7.0, limits, chance) - 7.0 for _ in range(200)]
    assert all(90.0 <= age <= 110.0 for age in ages)
    assert len(set(ages)) == 200
    assert max(ages) - min(ages) > 10.0
    assert age_limit(7.0, Http2Limits(), chance) == math.inf


def test_pace() -> None:
    """A burst is allowed, then the rate; what is sent to the peer adds to it."""
    pace = Pace(Http2Limits(control_frames_burst=100, control_frames_per_second=10), 0.0)
    assert pace.left(0.0) == 100
    pace.spend(100)
    assert pace.left(0.0) == 0
    pace.spend(1)
    assert pace.left(1.0) == 9
    pace.spend(9)
    assert pace.left(1.0) == 0
    pace.sent(10, 10_240)
    assert pace.left(1.0) == 50


def test_budget() -> None:
    """From half of it on windows stay closed, at all of it calls are refused, and what is given back counts."""
    budget = Budget(
        Http2Limits(max_bytes_in_hand=100, max_connection_bytes_in_hand=100, max_message_bytes=10, max_calls=2)
    )
    budget.take(49)
    assert not budget.pressed
    budget.take(50)
    assert budget.pressed
    budget.admit_call(0)
    budget.take(1)
    with pytest.raises(OverloadedError, match="max_waiting_bytes is 100"):
        budget.admit_call(0)
    budget.give(100)
    budget.calls = 2
    budget.admit_bytes()
    with pytest.raises(OverloadedError, match="max_waiting_calls is 2"):
        budget.admit_call(0)
    assert budget.bytes == 0


@pytest.mark.parametrize(
    ("calls", "own", "admitted"),
    [
        (0, 0, True),
        (3584, 3584, True),
        (3585, 31, True),
        (3585, 32, False),
        (3585, 1024, False),
        (4080, 1, True),
        (4081, 1, False),
        (4095, 0, True),
        (4096, 0, False),
    ],
)
def test_last_places_are_for_those_with_few_calls(calls: int, own: int, admitted: bool) -> None:  # noqa: FBT001 - a parameter
    """Of the last eighth of the calls a connection gets a sixteenth of what is left."""
    budget = Budget(Http2Limits(max_calls=4096))
    budget.calls = calls
    with contextlib.nullcontext() if admitted else pytest.raises(OverloadedError, match="max_waiting_calls is 4096"):
        budget.admit_call(own)


def test_excess() -> None:
    """Bytes are too many from a half on, calls beyond three quarters."""
    budget = Budget(
        Http2Limits(max_bytes_in_hand=100, max_connection_bytes_in_hand=100, max_message_bytes=10, max_calls=64)
    )
    budget.take(70)
    assert budget.excess_bytes == 21
    budget.give(21)
    assert not budget.pressed
    budget.calls = 49
    assert budget.excess_calls == 1


def test_costs(models: Models) -> None:
    """Costs are near the least of late; one slow run changes little; unknown sizes are judged by smaller ones."""
    version = models.catalogue.resolve("", None)
    costs = Costs()
    assert costs.expected_seconds(version, 1_000) == 0.0
    costs.learn(version, 1_000, 0.010)
    costs.learn(version, 1_000, 0.001)
    assert costs.expected_seconds(version, 1_000) == 0.001
    costs.learn(version, 1_000, 5.0)
    assert costs.expected_seconds(version, 1_000) == pytest.approx(0.00105)
    assert costs.expected_seconds(version, 8_000) == pytest.approx(8 * 0.00105)
    for _ in range(100):
        costs.learn(version, 1_000, 0.1)
    assert costs.expected_seconds(version, 1_000) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_calls": 0}, "max_calls must be greater than 0"),
        ({"stall_seconds": math.nan}, "stall_seconds"),
        ({"stream_window_bytes": 1 << 30}, "stream_window_bytes ≤ connection_window_bytes"),
        ({"max_message_bytes": 1 << 40}, "max_message_bytes"),
        ({"max_connection_bytes_in_hand": 1 << 40}, "max_connection_bytes_in_hand"),
    ],
)
def test_limits_that_make_no_sense(limits: dict[str, float], message: str) -> None:
    """A limit that makes no sense is named."""
    with pytest.raises(LimitsError, match=message):
        Http2Limits(**limits)  # type: ignore[arg-type]  # all of them numbers
