"""The cases of gRPC's interop test descriptions, for any front: a test service, and a suite a real grpcio client runs.

The service follows grpc.testing.TestService, with messages in JSON: the messages are not what is tested. A status that
a test asks for is OUT_OF_RANGE rather than UNKNOWN: ours is a table of errors, and no error of ours is unknown.
Derive a class from `InteropSuite` and give it a fixture `address`, where `methods()` are served.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest

from service.calls import Context, Inlet, Method, Outlet, StreamMethod, Submit, UnaryMethod
from service.errors import OutsideDomainError

SERVICE = "/grpc.testing.TestService"
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
LARGE_REQUEST, LARGE_RESPONSE = 271_828, 314_159


def write(**fields: object) -> bytes:
    """A message."""
    return json.dumps(fields).encode()


def read(message: bytes) -> dict[str, Any]:
    """Its fields."""
    fields: dict[str, Any] = json.loads(message or b"{}")
    return fields


def payload(size: int) -> str:
    """A body of as many bytes."""
    return "0" * size


# The service ----------------------------------------------------------------------------------------------------------


def methods() -> list[Method]:
    """The methods of the test service."""
    return [
        UnaryMethod(SERVICE + "/EmptyCall", lambda _body, _context: b""),
        UnaryMethod(SERVICE + "/UnaryCall", unary_call),
        StreamMethod(SERVICE + "/StreamingInputCall", client_streams=True, server_streams=False, open=StreamingInput),
        StreamMethod(SERVICE + "/StreamingOutputCall", client_streams=False, server_streams=True, open=FullDuplex),
        StreamMethod(SERVICE + "/Pour", client_streams=False, server_streams=True, open=Pouring),
        StreamMethod(SERVICE + "/PourFromThread", client_streams=False, server_streams=True, open=PouringFromThread),
        StreamMethod(SERVICE + "/PourOver", client_streams=False, server_streams=True, open=PouringOver),
        StreamMethod(SERVICE + "/FullDuplexCall", client_streams=True, server_streams=True, open=FullDuplex),
    ]


def echo_metadata(context: Context) -> None:
    """Send back what a test wants to see again."""
    for key, value in context.metadata:
        if key == ECHO_INITIAL:
            context.initial_metadata.append((key, value))
        if key == ECHO_TRAILING:
            context.trailing_metadata.append((key, value))


def unary_call(body: bytes, context: Context) -> bytes:
    """One message of the size asked for, or the status asked for."""
    fields = read(body)
    echo_metadata(context)
    if "status" in fields:
        raise OutsideDomainError(fields["status"])
    return write(payload=payload(fields["size"]))


class StreamingInput(Inlet):
    """Adds up the sizes of what comes."""

    busy = False

    def __init__(self, outlet: Outlet, _submit: Submit) -> None:
        self._outlet = outlet
        self._size = 0

    def receive(self, message: bytes) -> None:
        """Add one."""
        self._size += len(read(message)["payload"])

    def half_close(self) -> None:
        """Answer."""
        self._outlet.send(write(size=self._size))
        self._outlet.close()

    def cancel(self) -> None:
        """Nothing is held."""


class FullDuplex(Inlet):
    """Answers each message with messages of the sizes it asks for, or ends with the status it asks for."""

    busy = False

    def __init__(self, outlet: Outlet, _submit: Submit) -> None:
        self._outlet = outlet
        echo_metadata(outlet.context)

    def receive(self, message: bytes) -> None:
        """Answer one message."""
        fields = read(message)
        for size in fields.get("sizes", ()):
            self._outlet.send(write(payload=payload(size)))
        if "status" in fields:
            raise OutsideDomainError(fields["status"])

    def half_close(self) -> None:
        """End."""
        self._outlet.close()

    def cancel(self) -> None:
        """Nothing is held."""


class Pouring(Inlet):
    """Sends as many messages of a size as it is asked for, pausing while its outlet is full."""

    busy = False
    last: "Pouring"

    def __init__(self, outlet: Outlet, _submit: Submit) -> None:
        self._outlet = outlet
        self._left = 0
        self._message = b""
        self.sent = 0
        self.pauses = 0
        self.over = threading.Event()
        Pouring.last = self

    def receive(self, message: bytes) -> None:
        """Begin to pour."""
        fields = read(message)
        self._left, self._message = fields["count"], write(payload=payload(fields["size"]))
        self.resume()

    def resume(self) -> None:
        """Pour until it is full, or done."""
        while self._left and not self._outlet.full:
            self._left -= 1
            self.sent += 1
            self._outlet.send(self._message)
        if self._left:
            self.pauses += 1
        else:
            self._outlet.close()

    def half_close(self) -> None:
        """Go on."""

    def cancel(self) -> None:
        """Tell the test."""
        self._left = 0
        self.over.set()


class PouringFromThread(Pouring):
    """Does the same on a thread of its own, which waits to be told to go on."""

    def __init__(self, outlet: Outlet, submit: Submit) -> None:
        super().__init__(outlet, submit)
        self._room = threading.Event()

    def receive(self, message: bytes) -> None:
        """Begin to pour."""
        fields = read(message)
        self._left, self._message = fields["count"], write(payload=payload(fields["size"]))
        threading.Thread(target=self._pour).start()

    def resume(self) -> None:
        """Let the thread go on."""
        self._room.set()

    def cancel(self) -> None:
        """Let the thread end."""
        super().cancel()
        self._room.set()

    def _pour(self) -> None:
        while self._left:
            super().resume()
            if self._left:
                assert self._room.wait(60)
                self._room.clear()


class PouringOver(Pouring):
    """Sends all of it at once, whether there is room or not."""

    def resume(self) -> None:
        """Pour."""
        for _ in range(self._left):
            self._outlet.send(self._message)
        self._outlet.close()


# The suite ------------------------------------------------------------------------------------------------------------


class InteropSuite:
    """Every case, run by a real client."""

    @pytest.fixture
    def channel(self, address: str) -> Iterator[grpc.Channel]:
        """A connection of grpcio's."""
        with grpc.insecure_channel(address) as channel:
            yield channel

    @pytest.fixture
    def gzip_channel(self, address: str) -> Iterator[grpc.Channel]:
        """One that compresses."""
        with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
            yield channel

    def test_empty_unary(self, channel: grpc.Channel) -> None:
        """A call with an empty message and an empty answer."""
        assert unary(channel, "EmptyCall")(b"", timeout=60) == b""

    def test_large_unary(self, channel: grpc.Channel) -> None:
        """A large message both ways."""
        request = write(size=LARGE_RESPONSE, payload=payload(LARGE_REQUEST))
        assert len(read(unary(channel, "UnaryCall")(request, timeout=60))["payload"]) == LARGE_RESPONSE

    def test_client_compressed_unary(self, gzip_channel: grpc.Channel) -> None:
        """A compressed message is read, and the answer that comes back compressed is understood."""
        self.test_large_unary(gzip_channel)

    def test_deflate_unary(self, address: str) -> None:
        """The same with deflate."""
        with grpc.insecure_channel(address, compression=grpc.Compression.Deflate) as channel:
            self.test_large_unary(channel)

    def test_concurrent_large_unary(self, channel: grpc.Channel) -> None:
        """Many large calls at once."""
        request = write(size=LARGE_RESPONSE, payload=payload(LARGE_REQUEST))
        calls = [unary(channel, "UnaryCall").future(request, timeout=60) for _ in range(50)]
        assert [len(read(call.result())["payload"]) for call in calls] == [LARGE_RESPONSE] * 50

    def test_client_streaming(self, channel: grpc.Channel) -> None:
        """Many messages, one answer."""
        requests = [write(payload=payload(size)) for size in (27_182, 8, 1_828, 45_904)]
        assert read(inward(channel)(iter(requests), timeout=60))["size"] == 74_922

    def test_client_compressed_streaming(self, gzip_channel: grpc.Channel) -> None:
        """The same, compressed."""
        self.test_client_streaming(gzip_channel)

    def test_server_streaming(self, channel: grpc.Channel) -> None:
        """One message, many answers."""
        sizes = [31_415, 9, 2_653, 58_979]
        answers = outward(channel)(write(sizes=sizes), timeout=60)
        assert [len(read(answer)["payload"]) for answer in answers] == sizes

    def test_server_compressed_streaming(self, gzip_channel: grpc.Channel) -> None:
        """The same, compressed."""
        self.test_server_streaming(gzip_channel)

    def test_ping_pong(self, channel: grpc.Channel) -> None:
        """Each message is answered before the next one is sent."""
        answered = threading.Semaphore(1)
        sizes = [(27_182, 31_415), (8, 9), (1_828, 2_653), (45_904, 58_979)]

        def requests() -> Iterator[bytes]:
            for sent, wanted in sizes:
                assert answered.acquire(timeout=60)
                yield write(payload=payload(sent), sizes=[wanted])

        received = []
        for answer in duplex(channel)(requests(), timeout=60):
            received.append(len(read(answer)["payload"]))
            answered.release()
        assert received == [wanted for _, wanted in sizes]

    def test_empty_stream(self, channel: grpc.Channel) -> None:
        """A stream without a message either way."""
        assert list(duplex(channel)(iter(()), timeout=60)) == []

    @pytest.mark.parametrize("streams", [False, True], ids=["unary", "stream"])
    def test_custom_metadata(self, channel: grpc.Channel, streams: bool) -> None:  # noqa: FBT001 - a parameter
        """Metadata comes back, text before the answer and bytes after it."""
        metadata: tuple[tuple[str, str | bytes], ...] = (
            (ECHO_INITIAL, "test_initial_metadata_value"),
            (ECHO_TRAILING, b"\xab\xab\xab"),
        )
        if streams:
            call: Any = duplex(channel)(iter([write(sizes=[5])]), timeout=60, metadata=metadata)
            assert len(list(call)) == 1
        else:
            _, call = unary(channel, "UnaryCall").with_call(write(size=5), timeout=60, metadata=metadata)
        assert (ECHO_INITIAL, "test_initial_metadata_value") in list(call.initial_metadata())
        assert (ECHO_TRAILING, b"\xab\xab\xab") in list(call.trailing_metadata())

    @pytest.mark.parametrize("message", ["test status message", SPECIAL_MESSAGE], ids=["plain", "special"])
    @pytest.mark.parametrize("streams", [False, True], ids=["unary", "stream"])
    def test_status_code_and_message(self, channel: grpc.Channel, streams: bool, message: str) -> None:  # noqa: FBT001 - a parameter
        """A status and its message arrive as they were sent, also with letters of every kind."""
        call: Callable[[], object] = partial(unary(channel, "UnaryCall"), write(status=message), timeout=60)
        if streams:
            call = partial(exhaust, duplex(channel), [write(status=message)])
        with pytest.raises(grpc.RpcError) as raised:
            call()
        assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert raised.value.details() == message

    @pytest.mark.parametrize("path", [SERVICE + "/UnimplementedCall", "/grpc.testing.UnimplementedService/Call"])
    def test_unimplemented(self, channel: grpc.Channel, path: str) -> None:
        """A method or a service that is not there is UNIMPLEMENTED."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        with pytest.raises(grpc.RpcError) as raised:
            call(b"", timeout=60)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_cancel_after_begin(self, channel: grpc.Channel) -> None:
        """A call that is cancelled before it sent anything is CANCELLED."""
        hold = threading.Event()

        def requests() -> Iterator[bytes]:
            hold.wait(60)
            yield from ()

        call = inward(channel).future(requests(), timeout=60)
        call.cancel()
        hold.set()
        assert call.code() is grpc.StatusCode.CANCELLED

    def test_cancel_after_first_response(self, channel: grpc.Channel) -> None:
        """A call that is cancelled after its first answer is CANCELLED."""
        hold = threading.Event()

        def requests() -> Iterator[bytes]:
            yield write(payload=payload(27_182), sizes=[31_415])
            hold.wait(60)

        call = duplex(channel)(requests(), timeout=60)
        assert len(read(next(call))["payload"]) == 31_415
        call.cancel()
        hold.set()
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.CANCELLED

    def test_timeout_on_sleeping_server(self, channel: grpc.Channel) -> None:
        """A call that is not answered in time is DEADLINE_EXCEEDED."""
        hold = threading.Event()

        def requests() -> Iterator[bytes]:
            yield write(payload=payload(27_182))
            hold.wait(60)

        with pytest.raises(grpc.RpcError) as raised:
            list(duplex(channel)(requests(), timeout=0.1))
        hold.set()
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    @pytest.mark.parametrize("name", ["Pour", "PourFromThread"])
    def test_handler_that_pours_waits_for_its_caller(self, channel: grpc.Channel, name: str) -> None:
        """A handler with far more to send than its caller takes pauses, holds a bounded part, and then goes on."""
        answers = poured(channel, name)(write(count=400, size=100_000), timeout=60)
        assert len(read(next(answers))["payload"]) == 100_000
        settled(lambda: Pouring.last.sent)
        assert 1 <= Pouring.last.sent < 300  # 30 MB: what lies in sockets, in grpcio's client, and with us
        assert [len(read(answer)["payload"]) for answer in answers] == [100_000] * 399
        assert Pouring.last.pauses > 0
        assert Pouring.last.over.wait(60)

    def test_handler_that_paused_learns_that_its_caller_left(self, channel: grpc.Channel) -> None:
        """A handler that waits for room is told when nobody will take anything any more."""
        answers = poured(channel, "PourFromThread")(write(count=1_000, size=100_000), timeout=60)
        next(answers)
        settled(lambda: Pouring.last.sent)
        answers.cancel()
        assert Pouring.last.over.wait(60)

    def test_handler_that_pours_over_loses_its_call(self, channel: grpc.Channel) -> None:
        """One that does not pause where it should is refused, before it fills the memory."""
        answers = poured(channel, "PourOver")(write(count=2_000, size=100_000), timeout=60)
        with pytest.raises(grpc.RpcError) as raised:
            exhausted(answers)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    def test_soak(self, address: str) -> None:
        """Many calls over few channels, one after the other, are all answered."""
        for _ in range(3):
            with grpc.insecure_channel(address) as channel:
                call = unary(channel, "UnaryCall")
                assert {len(call(write(size=3), timeout=60)) for _ in range(100)} == {len(write(payload="000"))}


def exhaust(call: "grpc.StreamStreamMultiCallable[bytes, bytes]", requests: list[bytes]) -> list[bytes]:
    """Send messages, and take what comes."""
    return list(call(iter(requests), timeout=60))


def exhausted(answers: Iterator[bytes]) -> int:
    """Count what comes, until the end or an error."""
    return sum(1 for _ in answers)


def settled(count: Callable[[], int]) -> int:
    """Wait until something stays as it is for a while, and return it."""
    last, seen = -1, 0
    while seen < 10:
        time.sleep(0.02)
        now = count()
        seen = seen + 1 if now == last else 0
        last = now
    return last


def poured(channel: grpc.Channel, name: str) -> "grpc.UnaryStreamMultiCallable[bytes, bytes]":
    """A method whose server pours."""
    return channel.unary_stream(f"{SERVICE}/{name}")


def unary(channel: grpc.Channel, name: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    """A unary method of the test service, as bytes."""
    return channel.unary_unary(f"{SERVICE}/{name}")


def inward(channel: grpc.Channel) -> "grpc.StreamUnaryMultiCallable[bytes, bytes]":
    """Its method whose client streams."""
    return channel.stream_unary(SERVICE + "/StreamingInputCall")


def outward(channel: grpc.Channel) -> "grpc.UnaryStreamMultiCallable[bytes, bytes]":
    """Its method whose server streams."""
    return channel.unary_stream(SERVICE + "/StreamingOutputCall")


def duplex(channel: grpc.Channel) -> "grpc.StreamStreamMultiCallable[bytes, bytes]":
    """Its bidirectional method."""
    return channel.stream_stream(SERVICE + "/FullDuplexCall")
