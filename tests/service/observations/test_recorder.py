"""The recorder: every report is answered once, in order, when it is durable; too much is refused; the rate is kept."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.observation import Added, Observation
from proto.observations import ObservationStore
from proto.quicksilver.v1 import converter_pb2 as api
from service.errors import (
    AlreadyExistsError,
    DrainingError,
    InternalError,
    InvalidRequestError,
    MalformedError,
    OverloadedError,
    Shed,
    StoreError,
)
from service.observations import recorder as module
from service.observations.link import Link
from service.observations.recorder import MAX_OBSERVATIONS, Allowance, Outcome, Recorder, Report

NOW = 1_700_000_000.0


def _body(*ids: str, celsius: float = 10.0) -> bytes:
    observations = [
        api.Observation(id=known, fahrenheit=50, celsius=celsius, observed_at_seconds=NOW, source="bench")
        for known in ids
    ]
    return api.ReportObservationsRequest(observations=observations).SerializeToString()


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    """A store of SQLite."""
    link = Link(f"sqlite:///{tmp_path}/observations.db")
    yield link
    link.close()


def _record(link: Link, bodies: Sequence[bytes], *, per_second: float = 1e6) -> list[Outcome]:
    """What becomes of reports that all wait before the recorder begins, in the order of their answers."""
    outcomes: list[Outcome] = []
    recorder = Recorder(link, per_second, stored=lambda: None)
    for body in bodies:
        recorder.submit(Report(body, outcomes.append))
    recorder.start()
    recorder.stop()
    with pytest.raises(DrainingError):
        recorder.submit(Report(_body("late"), outcomes.append))
    assert sum(recorder.counts.values()) >= sum(one.accepted for one in outcomes if isinstance(one, Added))
    return outcomes


def test_reports_of_one_commit_do_not_touch_each_other(link: Link) -> None:
    """Bad ones are refused in their places, and the others are stored, with one commit."""
    bodies = [
        _body("a", "b"),
        b"\xff\xff",
        _body("b", "c"),
        _body("c", "a", celsius=11.0),
        _body(),
        _body("d", celsius=-300),
        _body(*(f"n{number}" for number in range(MAX_OBSERVATIONS + 1))),
        _body("d"),
    ]
    outcomes = _record(link, bodies)
    assert [outcomes[place] for place in (0, 2, 7)] == [Added(2, 0), Added(1, 1), Added(1, 0)]
    kinds = [MalformedError, AlreadyExistsError, InvalidRequestError, InvalidRequestError, InvalidRequestError]
    assert [type(outcomes[place]) for place in (1, 3, 4, 5, 6)] == kinds
    assert sorted(link.store().read().id) == ["a", "b", "c", "d"]


def test_what_waits_is_answered_before_the_end(link: Link) -> None:
    """A stop stores everything that was accepted, however many commits that takes, in the order in which it came."""
    bodies = [_body(*(f"{number}-{each}" for each in range(2000))) for number in range(40)]
    assert sum(map(len, bodies)) > module._COMMIT_BYTES  # noqa: SLF001 - or there is one commit
    assert _record(link, bodies) == [Added(2000, 0)] * 40


def test_a_store_that_fails_answers_everybody(tmp_path: Path) -> None:
    """With an error that says to try again; the recorder goes on, and stores when the store is back."""
    folder = tmp_path / "later"
    link = Link(f"sqlite:///{folder}/observations.db")
    assert [type(one) for one in _record(link, [_body("a"), _body("b")])] == [StoreError, StoreError]
    folder.mkdir()
    assert _record(link, [_body("a"), _body("b")]) == [Added(1, 0), Added(1, 0)]
    link.close()


def test_a_fault_is_answered_too(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in the store, nobody waits for ever, and the cause stays in the log."""

    def fail(_store: ObservationStore, _groups: Sequence[Sequence[Observation]]) -> list[Added]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ObservationStore, "add_groups", fail)
    assert [type(one) for one in _record(link, [_body("a"), _body("b")])] == [InternalError, InternalError]


def test_more_than_may_wait_is_refused(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and a single report always may."""
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 100)
    recorder = Recorder(link, 1e6, stored=lambda: None)
    recorder.submit(Report(_body("a", "b", "c", "d", "e"), lambda _: None))
    with pytest.raises(OverloadedError, match="wait to be stored") as refused:
        recorder.submit(Report(_body("f"), lambda _: None))
    assert refused.value.shed is Shed.OBSERVATIONS, "no conversion was refused"


def test_a_handler_that_fails_keeps_nobody_from_an_answer(link: Link) -> None:
    """Its fault concerns its own call alone."""
    answered = threading.Event()

    def fail(_outcome: Outcome) -> None:
        raise RuntimeError("a bug")

    recorder = Recorder(link, 1e6, stored=lambda: None)
    recorder.submit(Report(_body("a"), fail))
    recorder.submit(Report(_body("b"), lambda _: answered.set()))
    recorder.start()
    assert answered.wait(30)
    recorder.stop()


@given(
    per_second=st.floats(1, 1000),
    arrivals=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 500)), min_size=1, max_size=40),
)
def test_the_rate_is_kept_over_any_time(per_second: float, arrivals: list[tuple[float, int]]) -> None:
    """Never more than a second's worth, the rate times the time, and one report beyond them."""
    clock = _Clock()
    allowance = Allowance(per_second, clock)
    taken = 0
    for pause, observations in arrivals:
        clock.now += pause
        try:
            allowance.take(observations)
        except OverloadedError:
            continue
        taken += observations
        assert taken <= per_second * (1 + clock.now) + observations + 1e-6


def test_a_refusal_says_when_to_come_again() -> None:
    """Not before, and surely then."""
    clock = _Clock()
    allowance = Allowance(10, clock)
    allowance.take(40)
    with pytest.raises(OverloadedError, match=r"come again in 3\.1 s"):
        allowance.take(1)
    clock.now = 3.0
    with pytest.raises(OverloadedError):
        allowance.take(1)
    clock.now = 3.1001
    allowance.take(1)


class _Clock:
    """A clock that stands until it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
