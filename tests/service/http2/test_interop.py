"""The fast front under gRPC's interop cases, and under what streams need besides."""

import gzip
import threading
from collections.abc import Iterator

import grpc
import pytest

from service.calls import Inlet, Outlet, Request, StreamMethod, Submit
from service.codec import ConvertCodec
from service.errors import InvalidRequestError, ServiceError
from service.http2 import Http2Limits
from service.models import Models
from service.status import Code
from tests.service.http2.raw import Answer, RawClient, framed, request
from tests.service.http2.serving import Serving, convert_body
from tests.service.interop import InteropSuite, methods

STREAM = "/test.Streams/Convert"


class TestInterop(InteropSuite):
    """The fast front under gRPC's interop cases."""

    @pytest.fixture
    def address(self, models: Models) -> Iterator[str]:
        """Where the test service is."""
        with Serving(models, methods=methods()) as serving:
            yield serving.address


class Converting(Inlet):
    """A handler that has each message answered by the dataplane, and remembers what it was told."""

    told: list[str]
    room = 4

    def __init__(self, outlet: Outlet, submit: Submit) -> None:
        self._outlet = outlet
        self._submit = submit
        self._waiting = 0
        self._ended = False
        Converting.last = self
        self.told = []
        self.most = 0
        self.over = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether as many wait as may."""
        return self._waiting >= self.room

    def receive(self, message: bytes) -> None:
        """Have one answered; an empty one is refused, a special one is a bug."""
        self.told.append("receive")
        if not message:
            raise InvalidRequestError("message", "is empty")
        if message == b"bug":
            raise RuntimeError("a bug of the handler")
        self._waiting += 1
        self.most = max(self.most, self._waiting)
        self._submit(Request(ConvertCodec(), message, self._reply, 0.0))

    def _reply(self, request: Request) -> None:
        self._waiting -= 1
        outcome = request.outcome
        assert outcome is not None
        if isinstance(outcome, ServiceError):
            self._outlet.close(outcome)
            return
        self._outlet.send(outcome)
        if self._ended and not self._waiting:
            self._outlet.close()

    def half_close(self) -> None:
        """End, once all is answered."""
        self.told.append("half_close")
        self._ended = True
        if not self._waiting:
            self._outlet.close()

    def cancel(self) -> None:
        """Remember it."""
        self.told.append("cancel")
        self.over.set()

    last: "Converting"


def streaming(*, client: bool = True, server: bool = True) -> StreamMethod:
    """A method with that handler."""
    return StreamMethod(STREAM, client_streams=client, server_streams=server, open=Converting)


def test_messages_of_streams_share_runs(models: Models) -> None:
    """Messages of several streams that arrive together share a run, and a handler gets no more than it has room for."""
    with Serving(models, methods=[streaming()]) as serving, RawClient(serving.address) as client:
        calls = [client.call_bytes(request(STREAM), convert_body(50.0) * 10) for _ in range(5)]
        client.send(b"".join(out for _, out in calls))
        for stream, _ in calls:
            answer = client.finish(stream)
            assert answer.status == Code.OK
            assert len(answer.data) == 10 * (5 + len(answer.message))
        assert max(serving.ask(lambda: serving.tally.batches)) == 20
        assert Converting.last.most == Converting.room
        assert Converting.last.over.wait(60)
        assert Converting.last.told == ["receive"] * 10 + ["half_close", "cancel"]


@pytest.mark.parametrize(
    ("body", "code"),
    [(framed(b""), Code.INVALID_ARGUMENT), (framed(b"bug"), Code.INTERNAL), (framed(b"\xff"), Code.INTERNAL)],
    ids=["refused", "bug", "malformed"],
)
def test_handler_that_raises(models: Models, body: bytes, code: Code) -> None:
    """What a handler raises ends its call with the right status, and the handler learns that it is over."""
    with Serving(models, methods=[streaming()]) as serving, RawClient(serving.address) as client:
        assert client.unary(body, request(STREAM), end=False).status == code
        assert Converting.last.over.wait(60)


@pytest.mark.parametrize("body", [b"", convert_body(1.0) * 2, convert_body(1.0)[:-1]], ids=["none", "two", "part"])
def test_one_message_where_one_is_due(models: Models, body: bytes) -> None:
    """A server stream takes exactly one message."""
    with Serving(models, methods=[streaming(client=False)]) as serving, RawClient(serving.address) as client:
        assert client.unary(body, request(STREAM)).status == Code.INTERNAL


def test_reset_reaches_the_handler(models: Models) -> None:
    """A handler learns that its caller left, and what it submitted is not left behind."""
    with Serving(models, methods=[streaming()]) as serving, RawClient(serving.address) as client:
        stream = client.call(convert_body(50.0), request(STREAM), end=False)
        client.wait(lambda: bool(client.answers.get(stream) and client.answers[stream].data))
        client.reset(stream)
        assert Converting.last.over.wait(60)
        assert serving.ask(lambda: (serving.front.calls, serving.front.bytes_in_hand)) == (0, 0)


def test_busy_handler_holds_the_client_back(models: Models) -> None:
    """While a handler is busy, no window is opened beyond the first."""
    limits = Http2Limits(stream_window_bytes=70_000, connection_window_bytes=70_000, inline_bytes=1)
    with Serving(models, limits, methods=[streaming()]) as serving, RawClient(serving.address) as client:
        client.open_windows()
        serving.dataplane.go.clear()
        body = convert_body(*[50.0] * 1_000)
        stream = client.call(body * 15, request(STREAM), end=False)
        client.open_windows(stream, 1 << 20)
        while serving.ask(lambda: serving.front.calls) != 1:  # then the last handler is that of this call
            pass
        while serving.ask(lambda: Converting.last.most) < Converting.room:
            client.drain(0.01)
        client.drain(0.2)
        before = client.windows.get(stream, 0)
        assert Converting.last.most == Converting.room
        assert before < len(body) * 8
        serving.dataplane.go.set()
        answer = client.answers.setdefault(stream, Answer())
        client.wait(lambda: len(answer.data) > 15 * 4_000 and client.windows.get(stream, 0) > before)


def test_compressed_messages_of_a_stream(models: Models) -> None:
    """A bomb on a stream is refused as one on a unary call is."""
    limits = Http2Limits(max_message_bytes=100_000)
    with Serving(models, limits, methods=[streaming()]) as serving, RawClient(serving.address) as client:
        bomb = framed(gzip.compress(bytes(10_000_000)), 1)
        answer = client.unary(bomb, request(STREAM, ("grpc-encoding", "gzip")))
        assert answer.status == Code.RESOURCE_EXHAUSTED


def test_deadline_of_a_stream(models: Models) -> None:
    """A stream whose deadline passes ends, and its handler learns it."""
    with Serving(models, methods=[streaming()]) as serving, RawClient(serving.address) as client:
        answer = client.unary(b"", request(STREAM, ("grpc-timeout", "100m")), end=False)
        assert answer.status == Code.DEADLINE_EXCEEDED
        assert Converting.last.over.wait(60)


class Pouring(Inlet):
    """A handler that sends without end, however slowly it is taken."""

    busy = False

    def __init__(self, outlet: Outlet, _submit: Submit) -> None:
        self._outlet = outlet

    def receive(self, message: bytes) -> None:
        """Send a hundred megabytes."""
        for _ in range(1_000):
            self._outlet.send(message * 100)

    def half_close(self) -> None:
        """End."""
        self._outlet.close()

    def cancel(self) -> None:
        """Nothing is held."""


def test_handler_that_pours(models: Models) -> None:
    """A handler that sends far more than its caller takes loses its call, and the server holds a bounded part of it."""
    method = StreamMethod(STREAM, client_streams=False, server_streams=True, open=Pouring)
    with Serving(models, Http2Limits(max_unsent_bytes=1 << 20), [method]) as serving:
        with RawClient(serving.address) as client:
            stream = client.call(framed(bytes(1_000)), request(STREAM))
            client.drain(0.3)
            assert serving.ask(lambda: serving.front.bytes_in_hand) < 5 << 20
            client.open_windows()
            client.open_windows(stream)
            assert client.finish(stream).status == Code.RESOURCE_EXHAUSTED
        with RawClient(serving.address, settings={4: 1 << 30}) as eager:
            eager.open_windows()
            eager.call(framed(bytes(10)), request(STREAM))
            assert eager.finish(1).status == Code.OK


def test_half_close_without_answer_stays_open(models: Models) -> None:
    """A call that the server ends early tells its status to grpcio's client, too."""
    with Serving(models, methods=[streaming()]) as serving, grpc.insecure_channel(serving.address) as channel:
        hold = threading.Event()

        def messages() -> Iterator[bytes]:
            yield b""
            hold.wait(60)

        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM)
        with pytest.raises(grpc.RpcError) as raised:
            list(call(messages(), timeout=60))
        hold.set()
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
