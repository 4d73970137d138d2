"""What attacks can make the server hold: resident memory and descriptors of a server process, read from /proc.

Each test warms the server first, so that what it reads is what the attack added.
"""

import contextlib
import gzip
import struct
from pathlib import Path
from typing import Any

import grpc
import pytest
from hyperframe.frame import RstStreamFrame, SettingsFrame

from service.http2 import Http2Limits
from service.status import Code
from tests.service.http2.authority import Authority
from tests.service.http2.raw import CONVERT, Answer, RawClient, framed, raw_frame, request
from tests.service.http2.rules import END_HEADERS, HEADERS, block, literal
from tests.service.http2.serving import INFER, INFER_STREAM, ServerProcess, convert_body, server_process
from tests.service.http2.test_calls import BODY, assert_honest

MIB = 1 << 20
FRAME = 16_000


@pytest.fixture
def server() -> "contextlib.AbstractContextManager[ServerProcess]":
    """A server with a small budget, so that passing it shows."""
    return server_process(
        max_bytes_in_hand=16 * MIB,
        max_connection_bytes_in_hand=8 * MIB,
        max_message_bytes=4 * MIB,
        max_unsent_bytes=2 * MIB,
        stall_seconds=0.5,
    )


def warmed(server: ServerProcess) -> int:
    """Resident memory after some large and some small calls."""
    body = convert_body(*[50.0] * 100_000)
    with RawClient(server.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 24}) as client:
        client.open_windows()
        for _ in range(4):
            assert client.unary(body).status == Code.OK
        for _ in range(200):
            assert client.unary(BODY).status == Code.OK
    return server.memory_bytes()


def test_gzip_bomb(server: "contextlib.AbstractContextManager[ServerProcess]") -> None:
    """Megabytes of zeros in kilobytes of gzip are inflated up to the limit of a message, one at a time."""
    bomb = framed(gzip.compress(bytes(200 * MIB)), 1)
    with server as started:
        before = warmed(started)
        with RawClient(started.address) as client:
            fields = request(CONVERT, ("grpc-encoding", "gzip"))
            streams = [client.call(bomb, fields) for _ in range(4)]
            for stream in streams:
                assert client.finish(stream).status == Code.RESOURCE_EXHAUSTED
        assert started.memory_bytes("VmHWM") < before + 48 * MIB
        assert_honest(started.address)


@pytest.mark.parametrize(
    "unit", [b"\x2a\x00", b"\x32\x00", b"\x22\x00", b"\x3a\x00"], ids=["inputs", "outputs", "parameters", "raw"]
)
def test_fields_without_number(server: "contextlib.AbstractContextManager[ServerProcess]", unit: bytes) -> None:
    """Two million empty tensors in four megabytes, or in kilobytes of gzip, are refused before any is made."""
    message = b"\x0a\x06linear" + unit * (2 * MIB - 8)
    with server as started, grpc.insecure_channel(started.address) as channel:
        before = warmed(started)
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        infer_stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(INFER_STREAM)
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            for call in (
                infer.future(message, compression=compression, timeout=20),
                infer_stream(iter([message]), compression=compression, timeout=20),
            ):
                assert call.code() is grpc.StatusCode.INVALID_ARGUMENT, call.details()
                assert "more than 2048 fields" in call.details()
                assert_honest(started.address)
        assert started.memory_bytes("VmHWM") < before + 48 * MIB


def test_body_without_end(server: "contextlib.AbstractContextManager[ServerProcess]") -> None:
    """A message that is announced within the limit and goes on beyond it is refused, and its stream reset."""
    with server as started:
        before = warmed(started)
        with RawClient(started.address) as client:
            stream = client.new_stream()
            client.send(client.headers_frame(request(), stream))
            client.send(client.data_frame(stream, struct.pack(">BI", 0, 4 * MIB)))
            answer = client.answers.setdefault(stream, Answer())
            sent = 0
            while not answer.ended and sent < 64 * MIB:
                client.wait(lambda sent=sent: answer.ended or sent + FRAME < MIB + client.windows.get(stream, 0))
                client.try_send(client.data_frame(stream, bytes(FRAME)))
                sent += FRAME
            assert answer.status == Code.INTERNAL  # more than one message
            client.wait(lambda: answer.reset is not None)
            assert sent < 8 * MIB
        assert started.memory_bytes("VmHWM") < before + 32 * MIB
        assert_honest(started.address)


def test_announced_lengths(server: "contextlib.AbstractContextManager[ServerProcess]") -> None:
    """A thousand messages that announce four megabytes each, and never come, reserve nothing."""
    with server as started:
        before = warmed(started)
        with RawClient(started.address) as client:
            for _ in range(1_000):
                client.call(struct.pack(">BI", 0, 4 * MIB) + b"x", end=False)
            assert_honest(started.address)
            assert started.memory_bytes("VmHWM") < before + 16 * MIB


def test_reader_that_takes_nothing(server: "contextlib.AbstractContextManager[ServerProcess]") -> None:
    """Asked for far more than its budget by readers that take nothing, the server keeps it, and the deadlines."""
    body = convert_body(*[50.0] * 50_000)
    with server as started:
        before = warmed(started)
        with contextlib.ExitStack() as opened:
            readers = [
                opened.enter_context(RawClient(started.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
                for _ in range(4)
            ]
            fields = request(CONVERT, ("grpc-timeout", "1500m"))
            ends = [(reader, reader.call(body, fields)) for reader in readers for _ in range(5)]
            assert_honest(started.address)
            for reader, stream in ends:
                with contextlib.suppress(ConnectionResetError):  # it held most
                    answer = reader.finish(stream)
                    assert answer.reset == 8 or answer.status in {Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED}
        assert started.memory_bytes("VmHWM") < before + 64 * MIB
        assert_honest(started.address)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("hold_seconds", [0.05, 0.3, 1.5], ids=["hardly", "for-some-calls", "for-all-calls"])
def test_crowd_before_a_model_that_stalls(hold_seconds: float, tls: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """Twenty connections with 45 calls of 240 kB each, while the model stalls, stay within the stated bound.

    Where it stalls for a part of them, answers that nobody takes yet come to lie between requests.
    """
    budget = 32 * MIB
    limits: dict[str, Any] = {
        "max_bytes_in_hand": budget,
        "max_connection_bytes_in_hand": 16 * MIB,
        "max_connections": 20,
        "max_calls": 1_000,
        "max_message_bytes": MIB,
        "lane_bytes": MIB,
        "stall_seconds": 60,
    }
    bound = Http2Limits(**limits).memory_bound_bytes(tls=tls)
    authority = Authority(tmp_path, "authority") if tls else None
    server = server_process(hold_seconds=hold_seconds, authority=authority, **limits)
    with server as started, contextlib.ExitStack() as opened:
        before = started.memory_bytes()
        body = convert_body(*[50.0] * 60_000)
        clients = [
            opened.enter_context(RawClient(started.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 24}))
            for _ in range(20)
        ]
        calls: list[tuple[RawClient, int]] = []
        for turn in range(1, 46):  # each client sends what its window allows, reading what comes between
            for client in clients:
                client.drain(0.001)
                if turn * (len(body) + 1_000) < 65_535 + client.windows[0]:
                    calls.append((client, client.call(body)))
        for client in clients:
            client.open_windows()
        codes = {client.finish(stream, 40).status for client, stream in calls}
        assert codes <= {Code.OK, Code.RESOURCE_EXHAUSTED}
        assert Code.OK in codes
        assert len(calls) * len(body) > 1.5 * bound
        assert started.memory_bytes("VmHWM") < before + bound


def test_idle_connections() -> None:
    """A thousand idle connections cost 20 kB each, or less, and what they took comes back."""
    with server_process() as started:
        warmed(started)
        descriptors = started.descriptors()
        with contextlib.ExitStack() as opened:
            for _ in range(100):  # what a first crowd costs once
                opened.enter_context(RawClient(started.address))
            before = started.memory_bytes()
            for _ in range(1_000):
                opened.enter_context(RawClient(started.address))
            assert (started.memory_bytes() - before) / 1_000 <= 20_000
            assert started.descriptors() > 1_100
        while started.descriptors() > descriptors:
            assert_honest(started.address)


def test_connections_over_tls(tmp_path: Path) -> None:
    """What TLS takes for a connection, and keeps for its life, is no more than the stated bound counts for it."""
    limits = Http2Limits(max_connections=20)
    body = convert_body(*[50.0] * 220_000)
    with server_process(authority=Authority(tmp_path, "authority")) as started, contextlib.ExitStack() as opened:
        warmed(started)
        before = started.memory_bytes()
        clients = [opened.enter_context(RawClient(started.address)) for _ in range(20)]
        for client in clients:
            calls = [client.call(body) for _ in range(3)]
            client.open_windows()
            for stream in calls:
                client.open_windows(stream)
            for stream in calls:
                assert client.finish(stream).status == Code.OK
        assert started.memory_bytes() - before < limits.memory_bound_bytes(tls=True) - limits.memory_bound_bytes()
        assert_honest(started.address)


def test_nothing_leaks() -> None:
    """Crowds of clients that come, ask, reset, and disappear leave memory and descriptors as they were."""
    with server_process() as started:
        warmed(started)
        descriptors = started.descriptors()

        def crowd() -> None:
            for _ in range(60):
                with RawClient(started.address) as client:
                    out = bytearray()
                    for index in range(50):
                        stream, call = client.call_bytes(request(), BODY, end=index % 3 != 0)
                        out += call
                        if index % 5 == 0:
                            out += RstStreamFrame(stream, 8).serialize()
                    client.send(bytes(out))
                    if len(out) % 2:
                        client.drain(0.002)

        crowd()
        before = started.memory_bytes()
        for _ in range(4):
            crowd()
        while started.descriptors() > descriptors:
            assert_honest(started.address)
        assert started.memory_bytes() < before + 4 * MIB


def test_header_lists_of_idle_connections() -> None:
    """What a connection remembers of header lists is bounded in bytes: many large ones leave little on it."""
    with server_process() as server, contextlib.ExitStack() as opened:
        call_with_large_lists(opened.enter_context(RawClient(server.address)))
        before = server.memory_bytes()
        for _ in range(20):
            call_with_large_lists(opened.enter_context(RawClient(server.address)))
        assert server.memory_bytes() - before < 20 * 200 * 1024
        assert_honest(server.address)


def call_with_large_lists(client: RawClient) -> None:
    """Make calls whose header lists are near the limit, each with fields of its own."""
    client.open_windows()
    for index in range(40):
        fields = [(f"x-{index}-{field}", f"{index}.{field}") for field in range(320)]
        stream = client.new_stream()
        block = b"".join(literal(name, value) for name, value in request(CONVERT, *fields))
        client.send(raw_frame(HEADERS, END_HEADERS, stream, block) + client.data_frame(stream, BODY, end=True))
        assert client.finish(stream).status == Code.OK


def test_header_lists_of_open_calls() -> None:
    """Header lists that are short on the wire and large to keep count as bytes in hand: calls with them are refused."""
    calls, fields = 1_000, 400
    limits = Http2Limits(max_bytes_in_hand=8 * MIB, max_connection_bytes_in_hand=8 * MIB)
    with (
        server_process(max_bytes_in_hand=8 * MIB, max_connection_bytes_in_hand=8 * MIB) as server,
        RawClient(server.address) as client,
    ):
        before = warmed(server)
        table = b"".join(literal(f"x-{index}", "v", 0x40) for index in range(60))
        packed = bytes(0x80 | 62 + index % 60 for index in range(fields))
        lists = [block(request(INFER_STREAM)) + (table if call == 0 else packed) for call in range(calls)]
        streams = [client.new_stream() for _ in lists]
        for call, (stream, each) in enumerate(zip(streams, lists, strict=True)):
            client.send(raw_frame(HEADERS, END_HEADERS, stream, each + literal("call", str(call))))
        assert client.finish(streams[-1]).status == Code.RESOURCE_EXHAUSTED
        assert server.memory_bytes() - before < limits.max_bytes_in_hand + calls * 10 * 1024
        client.socket.close()
        assert_honest(server.address)
