"""Compressed messages of every kind of call: where they are inflated, and what is left when nobody waits any longer.

The one worker is kept occupied by a run that is held up: what is answered meanwhile did not need it.
"""

import gzip
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from hyperframe.frame import SettingsFrame

from proto.quicksilver.v1 import converter_pb2 as api
from service.calls import BatchedMethod, Body, Context, Inlet, Method, Outlet, StreamMethod, Submit, UnaryMethod
from service.codec import ConvertCodec
from service.errors import ServiceError
from service.http2 import Http2Limits
from service.http2.compression import Allowance
from service.models import Models
from service.ordered_stream import OrderedStream, StreamCodec
from service.query import Answer as AnyAnswer
from service.query import Query
from service.status import Code
from tests.service.http2.raw import CONVERT, Field, RawClient, framed, request
from tests.service.http2.serving import Serving, celsius, convert_body
from tests.service.http2.test_calls import BODY, assert_honest
from tests.service.http2.test_interop import STREAM, Converting, streaming

KIB = 1 << 10
MIB = 1 << 20
GZIP = ("grpc-encoding", "gzip")
ORDERED = "/test.Compressed/Ordered"
WHERE = "/test.Compressed/Where"
NOTED = "/test.Compressed/Noted"
HELD_ROWS = 20_000


class OrderedCodec(ConvertCodec, StreamCodec):
    """Conversions whose errors end the stream."""

    def encode_error(self, error: ServiceError) -> None:
        """End the call."""
        del error


def ordered(outlet: Outlet, submit: Submit) -> Inlet:
    """Answer conversions in the order in which they came."""
    return OrderedStream(outlet, submit, lambda _message: OrderedCodec())


def where(body: bytes, context: Context) -> bytes:
    """Tell which thread the method runs on; the message's size and 16 KiB that compress well follow."""
    context.trailing_metadata.append(("x-bytes", str(len(body))))
    return threading.current_thread().name.encode() + bytes(16 * KIB)


METHODS: list[Method] = [
    StreamMethod(ORDERED, client_streams=True, server_streams=True, open=ordered),
    UnaryMethod(WHERE, where),
    streaming(),
]


@pytest.fixture
def serving(models: Models) -> Iterator[Serving]:
    """A front with the limits that it ships with."""
    with Serving(models, methods=METHODS) as started:
        yield started


@pytest.fixture
def client(serving: Serving) -> Iterator[RawClient]:
    """A raw client of it."""
    with RawClient(serving.address) as connected:
        yield connected


def fields(path: str, *extra: Field) -> list[Field]:
    """The header of a call whose messages are compressed."""
    return request(path, GZIP, *extra)


def packed(size: int) -> bytes:
    """A framed message that inflates to so many bytes: one value to convert, and a long field that nobody knows."""
    start = api.ConvertRequest(fahrenheit=[50.0]).SerializeToString() + varint(1000 << 3 | 2)
    length = next(n for n in range(size - len(start), 0, -1) if len(start) + len(varint(n)) + n == size)
    return framed(gzip.compress(start + varint(length) + bytes(length), mtime=0), 1)


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for a condition, generously."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.002)


def roomy(address: str) -> RawClient:
    """A raw client that takes large answers at once."""
    client = RawClient(address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 24})
    client.open_windows()
    return client


@contextmanager
def occupied(serving: Serving) -> Iterator[Callable[[], None]]:
    """Keep the one worker occupied; yields what lets it go on. Nothing is left in hand afterwards."""
    entered = threading.Event()
    serving.dataplane.held_rows = HELD_ROWS
    serving.dataplane.go.clear()
    execute = serving.dataplane.execute

    def noted(run: object) -> None:
        entered.set()
        execute(run)  # type: ignore[arg-type]  # handed on as it came

    serving.dataplane.execute = noted  # type: ignore[method-assign]  # tells when the worker is there
    with roomy(serving.address) as other:
        held = other.call(convert_body(*[50.0] * HELD_ROWS))
        assert entered.wait(60)
        yield serving.dataplane.go.set
        serving.dataplane.go.set()
        assert other.finish(held, 60).status == Code.OK
    wait_until(lambda: serving.ask(lambda: serving.front.bytes_in_hand) == 0)


# The same values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_streams_of_all_sizes(serving: Serving, compression: grpc.Compression) -> None:
    """Messages small and large, some with answers that are compressed, are answered each in its place."""
    generator = random.Random(7)  # noqa: S311 - values, not secrets
    sizes = [1, 400, 30_000, 2, 1_000, 17_000, 5, 200_000, 3, 16_000, 700, 60_000] * 3
    rows = [[round(generator.uniform(-40, 200), 1) for _ in range(size)] for size in sizes]
    requests = (api.ConvertRequest(fahrenheit=values).SerializeToString() for values in rows)
    with grpc.insecure_channel(serving.address, compression=compression) as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(ORDERED)
        answers = list(call(requests, timeout=60))
    assert len(answers) == len(rows)
    for values, answer in zip(rows, answers, strict=True):
        np.testing.assert_allclose(celsius(answer), (np.array(values) - 32) * 5 / 9, rtol=0, atol=1e-4)
    wait_until(lambda: serving.ask(lambda: serving.front.bytes_in_hand) == 0)


@pytest.mark.parametrize("size", [20 * KIB, 64 * KIB, 64 * KIB + 1, 8 * MIB], ids=str)
@pytest.mark.parametrize("path", [CONVERT, ORDERED, STREAM, WHERE])
def test_sizes_around_the_bounds(client: RawClient, path: str, size: int) -> None:
    """A message on either side of what the loop inflates is read alike by every kind of method."""
    answer = client.unary(packed(size), fields(path))
    assert answer.status == Code.OK
    if path == WHERE:
        assert answer.headers["x-bytes"] == str(size)
    else:
        assert celsius(answer.message) == pytest.approx([10.0])


@pytest.mark.parametrize("path", [CONVERT, ORDERED, STREAM, WHERE])
def test_bombs_are_refused(serving: Serving, client: RawClient, path: str) -> None:
    """What inflates to more than a message may have is refused, whichever kind of call brings it."""
    for size in (8 * MIB + 1, 200 * MIB):
        answer = client.unary(packed(size), fields(path))
        assert answer.status == Code.RESOURCE_EXHAUSTED
        assert "max_message_bytes" in answer.headers["grpc-message"]
    assert_honest(serving.address)
    wait_until(lambda: serving.ask(lambda: serving.front.bytes_in_hand) == 0)


@pytest.mark.parametrize("path", [CONVERT, ORDERED, STREAM, WHERE])
def test_large_garbage_is_malformed(client: RawClient, path: str) -> None:
    """A long message that is no gzip after all is malformed, wherever that is found out."""
    whole = packed(2 * MIB)[5:]
    assert client.unary(framed(whole[:-9], 1), fields(path)).status == Code.INTERNAL
    assert client.unary(framed(whole + b"more", 1), fields(path)).status == Code.INTERNAL


def test_a_limit_below_what_the_loop_may_inflate(models: Models) -> None:
    """A message limit smaller than the loop's own bound holds as well."""
    limits = Http2Limits(max_message_bytes=32 * KIB)
    with Serving(models, limits, METHODS) as serving, RawClient(serving.address) as client:
        for path in (CONVERT, ORDERED, WHERE):
            assert client.unary(packed(32 * KIB), fields(path)).status == Code.OK
            assert client.unary(packed(32 * KIB + 1), fields(path)).status == Code.RESOURCE_EXHAUSTED


# Where it is done -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "worker"),
    [
        pytest.param(packed(20 * KIB), False, id="small"),
        pytest.param(packed(4 * MIB), True, id="bomb"),
        pytest.param(framed(bytes(64 * KIB)), False, id="plain"),
        pytest.param(framed(bytes(64 * KIB + 1)), True, id="large and plain"),
    ],
)
def test_large_unary_messages_are_answered_by_a_worker(client: RawClient, body: bytes, worker: bool) -> None:  # noqa: FBT001 - by its name
    """A method that is not batched runs on the loop for a small message, and on a worker for a large one."""
    answer = client.unary(body, fields(WHERE, ("grpc-accept-encoding", "gzip")))
    assert answer.status == Code.OK
    assert (answer.data[0] == 1) is worker, "what is large is compressed by a worker alone"
    message = gzip.decompress(answer.message) if worker else answer.message
    assert message.startswith(b"large-calls") is worker


@pytest.mark.parametrize("path", [STREAM, WHERE])
def test_the_loop_goes_on_while_a_large_message_waits(serving: Serving, client: RawClient, path: str) -> None:
    """What inflates to much waits for the worker, and small calls are answered on the same connection meanwhile."""
    with occupied(serving) as go_on:
        waiting = client.call(packed(4 * MIB), fields(path))
        assert celsius(client.unary(BODY).message) == pytest.approx([10.0])
        assert client.unary(packed(20 * KIB), fields(path)).status == Code.OK
        assert waiting not in client.answers or not client.answers[waiting].ended
        go_on()
        assert client.finish(waiting, 60).status == Code.OK


def test_later_messages_wait_for_the_one_that_is_inflated(serving: Serving, client: RawClient) -> None:
    """The handler is told nothing that came behind a message before it has that message."""
    with occupied(serving) as go_on:
        stream = client.call(packed(4 * MIB) + convert_body(212.0) * 3, fields(STREAM))
        assert client.unary(BODY).status == Code.OK
        assert Converting.last.told == []
        assert serving.ask(lambda: serving.front.bytes_in_hand) > 3 * len(convert_body(212.0))
        go_on()
        assert client.finish(stream, 60).status == Code.OK
    assert Converting.last.told == ["receive"] * 4 + ["half_close", "cancel"]


def test_many_small_messages_in_one_turn(models: Models) -> None:
    """What one turn of the loop may inflate is bounded, however small each message is."""
    limits = Http2Limits(inline_burst_bytes=64 * KIB)
    with (
        Serving(models, limits, METHODS) as serving,
        RawClient(serving.address) as client,
        occupied(serving) as go_on,
    ):
        stream = client.call(packed(40 * KIB) * 4, fields(STREAM))
        assert client.unary(BODY).status == Code.OK
        assert Converting.last.told == ["receive"] * 2  # the third is the worker's
        go_on()
        assert client.finish(stream, 60).status == Code.OK


def test_allowance() -> None:
    """What may be done on the loop is bounded at once and in a turn, and grows back with the next turn."""
    allowance = Allowance(Http2Limits(inline_bytes=10_000, inline_burst_bytes=25_000))
    zeros = bytes(10_000)
    assert allowance.inflate(gzip.compress(zeros + b"1"), "gzip") is None  # counts as 10,000
    assert allowance.inflate(gzip.compress(zeros), "gzip") == zeros
    assert allowance.framed([bytes(1_024)], "gzip")[0] == 0  # 8 × 1,024 > 5,000
    assert allowance.inflate(gzip.compress(zeros), "gzip") == zeros
    assert allowance.inflate(gzip.compress(b""), "gzip") is None
    allowance.renew()
    assert allowance.framed([bytes(1_250)], "gzip")[0] == 1
    assert allowance.framed([bytes(1_251)], "gzip")[0] == 0
    assert allowance.framed([bytes(1_250)], "identity")[0] == 0


# What is left ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["reset", "disconnect", "deadline"])
@pytest.mark.parametrize("path", [ORDERED, STREAM, WHERE])
def test_nothing_is_left_of_a_call_that_is_over(serving: Serving, path: str, end: str) -> None:
    """A call that ends before a worker came to its message leaves no bytes, no call, and no work behind."""
    body = packed(4 * MIB)
    with RawClient(serving.address) as client, occupied(serving) as go_on:
        before = serving.ask(lambda: serving.front.bytes_in_hand)
        extra: list[Field] = [("grpc-timeout", "200m")] if end == "deadline" else []
        streams = [client.call(body, fields(path, *extra), end=path != STREAM) for _ in range(20)]
        if end == "reset":
            wait_until(lambda: serving.ask(lambda: serving.front.calls) == 21)
            for stream in streams:
                client.reset(stream)
        elif end == "disconnect":
            wait_until(lambda: serving.ask(lambda: serving.front.calls) == 21)
            client.socket.close()
        else:
            assert {client.finish(stream).status for stream in streams} == {Code.DEADLINE_EXCEEDED}
        wait_until(lambda: serving.ask(lambda: serving.front.calls) == 1)
        assert serving.ask(lambda: serving.front.bytes_in_hand) == before
        go_on()
    if path == STREAM:
        assert Converting.last.told == ["cancel"]
    with roomy(serving.address) as after:
        assert after.unary(body, fields(path)).status == Code.OK
        assert after.unary(convert_body(*[50.0] * HELD_ROWS)).status == Code.OK


def test_calls_that_end_while_a_worker_inflates(serving: Serving) -> None:
    """Connections lost at any moment of the work give back what they took, and the worker goes on."""
    generator = random.Random(11)  # noqa: S311 - moments, not secrets
    body = packed(8 * MIB)
    for _ in range(30):
        with RawClient(serving.address) as client:
            for path in generator.sample([CONVERT, ORDERED, STREAM, WHERE], 3):
                client.call(body, fields(path))
            client.drain(generator.uniform(0, 0.02))
    wait_until(lambda: serving.ask(lambda: (serving.front.calls, serving.front.bytes_in_hand)) == (0, 0))
    with RawClient(serving.address) as after:
        assert after.unary(body, fields(WHERE)).status == Code.OK


def test_large_calls_and_large_messages_take_turns(models: Models) -> None:
    """A flood of messages to inflate does not keep a large call waiting until all of them are done."""
    done: list[str] = []

    def note(_body: bytes, _context: Context) -> bytes:
        done.append("message")
        return b""

    class Noting(ConvertCodec):
        def encode(self, query: Query, answer: AnyAnswer) -> Body:
            done.append("call")
            return super().encode(query, answer)

    methods: list[Method] = [UnaryMethod(WHERE, note), BatchedMethod(NOTED, Noting())]
    with (
        Serving(models, methods=methods) as serving,
        RawClient(serving.address) as client,
        occupied(serving) as go_on,
    ):
        flood = [client.call(packed(2 * MIB), fields(WHERE)) for _ in range(30)]
        assert client.unary(BODY).status == Code.OK
        with roomy(serving.address) as other:
            large = other.call(convert_body(*[50.0] * 17_000), request(NOTED))
            assert other.unary(BODY).status == Code.OK
            go_on()
            assert other.finish(large, 60).status == Code.OK
        assert {client.finish(stream, 60).status for stream in flood} == {Code.OK}
    assert done.index("call") <= 2
    assert done.count("message") == 30
