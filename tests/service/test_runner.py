"""The runner: batches form by themselves; nothing accepted is lost; nothing waits for ever."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.calls import Request
from service.codec import ConvertCodec
from service.errors import DrainingError, InternalError, OverloadedError, ServiceError, Shed
from service.runner import Runner
from service.runs import Run

LONG = 100


class Gate:
    """A dataplane that answers each request with its own body, when the gate is open. Bodies name their rows."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.bursts: list[list[bytes]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        if is_open:
            self.open.set()

    def plan(self, requests: Sequence[Request]) -> list[Run]:
        """One run for all, or one for each long request; requests whose body is `bad` get their error here."""
        self.bursts.append([request.body for request in requests])
        short = [request for request in requests if request.body.isdigit() and int(request.body) < LONG]
        long = [request for request in requests if request.body.isdigit() and int(request.body) >= LONG]
        for request in requests:
            if not request.body.isdigit():
                request.outcome = ServiceError("bad")
        return [_run(group) for group in ([short] if short else []) + [[request] for request in long]]

    def record(self, run: Run) -> None:
        """Tell nobody."""

    def execute(self, run: Run) -> None:
        """Wait for the gate, then answer."""
        self.entered.release()
        self.open.wait()
        for request in run.requests:
            if request.body != b"0":  # a run that forgets one of its calls
                request.outcome = [request.body]

    def delivered(self, requests: Sequence[Request]) -> None:
        """Learn of requests, each of which has its outcome."""
        assert all(request.outcome is not None for request in requests)


class _Call:
    def __init__(self, request: Request) -> None:
        self.requests = [request]


def _run(requests: Iterable[Request]) -> Run:
    listed = [_Call(request) for request in requests]
    rows = sum(int(call.requests[0].body) for call in listed)
    return Run(version=None, calls=listed, rows=rows)  # type: ignore[arg-type] # the runner looks at calls and rows alone


def _runner(
    gate: Gate, *, max_calls: int = 1000, max_bytes: int = 1 << 20, refused: Callable[[Shed], None] = lambda _: None
) -> Runner:
    runner = Runner(
        gate,  # type: ignore[arg-type] # the part of a dataplane that it uses
        max_waiting_calls=max_calls,
        max_waiting_bytes=max_bytes,
        long_run_rows=LONG,
        refused=refused,
    )
    runner.start()
    return runner


class Replies:
    """Collects replies, and can be waited for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.got: list[Request] = []

    def __call__(self, request: Request) -> None:
        """Keep one reply."""
        with self._changed:
            self.got.append(request)
            self._changed.notify_all()

    def wait_for(self, number: int) -> list[Request]:
        """Wait until that many replies are there."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.got) >= number, timeout=30)
            return list(self.got)

    def request(self, body: bytes) -> Request:
        """A request that replies to this."""
        return Request(ConvertCodec(), body, self, time.monotonic(), math.inf)


def test_what_arrives_during_a_run_is_the_next_batch() -> None:
    """No timer: while one run is under way the next batch forms, and holds all that came."""
    gate, replies = Gate(is_open=False), Replies()
    runner = _runner(gate)
    runner.submit(replies.request(b"1"))
    assert gate.entered.acquire(timeout=30)
    for body in (b"2", b"3", b"4"):
        runner.submit(replies.request(body))
    gate.open.set()
    replies.wait_for(4)
    runner.stop()
    assert gate.bursts == [[b"1"], [b"2", b"3", b"4"]]


def test_a_long_run_does_not_hold_up_short_ones() -> None:
    """A long run leaves the runner's thread; a short request that comes after it is answered before it."""
    gate, replies = Gate(is_open=False), Replies()
    runner = _runner(gate)
    runner.submit(replies.request(b"500"))
    assert gate.entered.acquire(timeout=30)
    gate.execute = _answer_at_once  # type: ignore[method-assign] # from here on runs are quick
    runner.submit(replies.request(b"1"))
    assert [request.body for request in replies.wait_for(1)] == [b"1"]
    gate.open.set()
    assert [request.body for request in replies.wait_for(2)] == [b"1", b"500"]
    runner.stop()


def _answer_at_once(run: Run) -> None:
    for request in run.requests:
        request.outcome = [request.body]


@pytest.mark.parametrize(
    ("max_calls", "max_bytes", "named", "reason"),
    [(2, 100, "max_waiting_calls", Shed.CALLS), (9, 4, "max_waiting_bytes", Shed.BYTES)],
)
def test_over_a_limit_a_request_is_refused_at_once(max_calls: int, max_bytes: int, named: str, reason: Shed) -> None:
    """A refused request is never answered later, and an accepted one always is; each refusal is told once."""
    gate, replies = Gate(is_open=False), Replies()
    refused: list[Shed] = []
    runner = _runner(gate, max_calls=max_calls, max_bytes=max_bytes, refused=refused.append)
    for _ in range(2):
        runner.submit(replies.request(b"11"))
    with pytest.raises(OverloadedError, match=named):
        runner.submit(replies.request(b"12"))
    gate.open.set()
    replies.wait_for(2)
    runner.submit(replies.request(b"13"))  # there is room again
    runner.stop()
    assert sorted(request.body for request in replies.got) == [b"11", b"11", b"13"]
    with pytest.raises(DrainingError):
        runner.submit(replies.request(b"14"))
    assert refused == [reason, Shed.DRAINING]


def test_one_message_over_the_byte_limit_is_taken_where_nothing_waits() -> None:
    """The bound on waiting bytes does not forbid a message that the bound on messages allows."""
    gate, replies = Gate(), Replies()
    runner = _runner(gate, max_bytes=1)
    runner.submit(replies.request(b"11"))
    assert replies.wait_for(1)[0].outcome == [b"11"]
    runner.stop()


def test_stopping_answers_what_was_accepted_and_refuses_the_rest() -> None:
    """A drain leaves nothing behind, long runs included."""
    gate, replies = Gate(is_open=False), Replies()
    runner = _runner(gate)
    for body in (b"1", b"2", b"500"):
        runner.submit(replies.request(body))
    threading.Timer(0.05, gate.open.set).start()
    runner.stop()
    assert sorted(request.body for request in replies.got) == [b"1", b"2", b"500"]
    with pytest.raises(DrainingError):
        runner.submit(replies.request(b"3"))


def test_a_reply_that_breaks_keeps_nobody_else_from_theirs() -> None:
    """A fault in what one caller does with its answer ends neither the batch nor the runner."""
    gate, replies = Gate(), Replies()
    runner = _runner(gate)

    def breaks(_: Request) -> None:
        raise ZeroDivisionError

    for body in (b"1", b"500"):
        runner.submit(Request(ConvertCodec(), body, breaks, time.monotonic(), math.inf))
        runner.submit(replies.request(body))
    assert sorted(request.body for request in replies.wait_for(2)) == [b"1", b"500"]
    runner.submit(replies.request(b"2"))
    replies.wait_for(3)
    runner.stop()


def test_a_request_that_a_run_forgot_is_answered_all_the_same() -> None:
    """Even a bug in what lies behind leaves nobody waiting."""
    gate, replies = Gate(), Replies()
    runner = _runner(gate)
    runner.submit(replies.request(b"0"))
    assert isinstance(replies.wait_for(1)[0].outcome, InternalError)
    runner.stop()


@given(
    bodies=st.lists(st.lists(st.sampled_from([b"1", b"7", b"500", b"bad", b"0"]), max_size=8), min_size=1, max_size=4)
)
@settings(max_examples=40, deadline=None)
def test_every_accepted_request_is_replied_to_exactly_once(bodies: list[list[bytes]]) -> None:
    """Several threads submit anything at once; each request comes back once, with its own outcome."""
    gate, replies = Gate(), Replies()
    runner = _runner(gate)

    def submit_all(own: list[bytes]) -> None:
        for body in own:
            runner.submit(replies.request(body))

    threads = [threading.Thread(target=submit_all, args=(own,)) for own in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runner.stop()
    assert sorted(request.body for request in replies.got) == sorted(body for own in bodies for body in own)
    assert len({id(request) for request in replies.got}) == len(replies.got)
    for request in replies.got:
        if request.body.isdigit() and request.body != b"0":
            assert request.outcome == [request.body]
        else:
            assert isinstance(request.outcome, ServiceError)
