"""What a front on an open port must withstand: each attack over a real socket, in a short, seeded form.

Each comes over TCP, and over TLS, which cuts what is sent in other places, and has buffers of its own. After each,
somebody else is answered right on another connection. What the attacks make the server hold is measured in
`test_memory.py`.
"""

import contextlib
import errno
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import (
    ContinuationFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)

from service.closed import Closed
from service.errors import Shed
from service.http2 import Http2Limits
from service.http2.frames import DEFAULT_WINDOW_BYTES
from service.models import Models
from service.status import Code
from tests.service.http2.mutations import damage
from tests.service.http2.raw import (
    CONVERT,
    FRAME_BYTES,
    PREFACE,
    Answer,
    RawClient,
    framed,
    raw_frame,
    request,
    window_update,
)
from tests.service.http2.serving import Serving, convert_body
from tests.service.http2.test_calls import BODY, assert_honest
from tests.service.http2.test_interop import STREAM, streaming

pytestmark = pytest.mark.usefixtures("transport")

ENHANCE_YOUR_CALM = 11
FLOW_CONTROL_ERROR = 3
PROTOCOL_ERROR = 1
CANCEL = 8
FLOOD = 6_000


def assert_sent_away(client: RawClient, *codes: int) -> None:
    """The server says GOAWAY with one of the codes, and closes."""
    client.wait_closed()
    assert client.goaway is not None
    assert client.goaway.error_code in codes, client.goaway


def flood(client: RawClient, frames: bytes, repeat: int) -> None:
    """Send frames over and over, as long as they are taken."""
    for _ in range(10):
        if not client.try_send(frames * (repeat // 10)):
            return


def half_open(client: RawClient) -> int:
    """A call whose message does not come."""
    stream = client.new_stream()
    client.send(client.headers_frame(request(), stream))
    return stream


FLOODS: dict[str, Callable[[RawClient], bytes]] = {
    "ping": lambda _: PingFrame(0, b"flooding").serialize(),
    "settings": lambda _: SettingsFrame(0, settings={SettingsFrame.ENABLE_PUSH: 0}).serialize(),
    "window update": lambda _: window_update(0, 1),
    "window update of a stream": lambda client: window_update(half_open(client), 1),
    "empty data": lambda client: client.data_frame(half_open(client), b""),
    "padded data": lambda client: raw_frame(0, 8, half_open(client), b"\x04\0\0\0\0"),
    "priority": lambda _: PriorityFrame(3, depends_on=0, stream_weight=1).serialize(),
    "priority update": lambda _: raw_frame(0x10, 0, 0, struct.pack(">I", 1) + b"u=1"),
    "unknown frames": lambda _: raw_frame(0xBE, 0, 0, b"what?"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(serving: Serving, client: RawClient, name: str) -> None:
    """Frames that bring no call are taken for a while; then the peer is sent away."""
    flood(client, FLOODS[name](client), FLOOD)
    client.wait_closed()
    assert client.goaway is not None
    assert client.goaway.error_code != 0
    assert_honest(serving.address)
    client.socket.close()
    while serving.ask(lambda: serving.front.connections):
        pass
    assert serving.tally.closed[Closed.MISUSE] == 1


def test_moderate_control_frames_are_welcome(client: RawClient) -> None:
    """A peer that pings now and then is answered."""
    client.send(PingFrame(0, b"are you?").serialize() * 100)
    client.wait(lambda: len(client.pings) == 100)
    assert client.unary(BODY).status == Code.OK


@pytest.mark.parametrize("with_body", [False, True], ids=["headers alone", "whole calls"])
def test_rapid_reset(serving: Serving, client: RawClient, with_body: bool) -> None:  # noqa: FBT001 - a parameter
    """Calls that are reset as soon as they are sent bring GOAWAY; an honest client meanwhile loses nothing."""
    out = bytearray()
    for _ in range(FLOOD):
        stream = client.new_stream()
        out += client.headers_frame(request(), stream)
        if with_body:
            out += client.data_frame(stream, BODY, end=True)
        out += RstStreamFrame(stream, CANCEL).serialize()
    with RawClient(serving.address) as honest:
        for at in range(0, len(out), len(out) // 20):
            if not client.try_send(bytes(out[at : at + len(out) // 20])):
                break
            assert honest.unary(BODY).status == Code.OK
    client.wait_closed()
    assert client.goaway is not None
    assert client.goaway.error_code != 0
    assert sum(serving.tally.begun.values()) < FLOOD


def test_continuation_flood(serving: Serving, client: RawClient) -> None:
    """A header block that goes on and on is cut off after a few frames."""
    stream = client.new_stream()
    client.send(HeadersFrame(stream, Encoder().encode(request())).serialize())
    for _ in range(100):
        if not client.try_send(ContinuationFrame(stream, b"").serialize()):
            break
    assert_sent_away(client, ENHANCE_YOUR_CALM, PROTOCOL_ERROR)
    assert_honest(serving.address)


def test_hpack_bomb(serving: Serving, client: RawClient) -> None:
    """A small block that unpacks to a large header list is not unpacked beyond the limit."""
    encoder = Encoder()
    block = encoder.encode([*request(), ("x-bomb", "b" * 3000)])
    block += encoder.encode([("x-bomb", "b" * 3000)]) * 5000
    assert len(block) < 10_000
    frame = HeadersFrame(client.new_stream(), block)
    frame.flags |= {"END_HEADERS", "END_STREAM"}
    client.send(frame.serialize())
    assert_sent_away(client, ENHANCE_YOUR_CALM)
    assert_honest(serving.address)


def test_many_header_fields(serving: Serving, client: RawClient) -> None:
    """A thousand small fields are too large a list, and the connection goes on."""
    fields = [(f"x-{index}", "") for index in range(1000)]
    assert client.unary(BODY, request(CONVERT, *fields)).status == Code.RESOURCE_EXHAUSTED
    assert client.unary(BODY).status == Code.OK
    assert_honest(serving.address)


def test_flood_of_large_header_blocks(serving: Serving, client: RawClient) -> None:
    """Header blocks far over the limit are answered for a while, each; then the peer is sent away."""
    fields = [*request(), *[(f"x-{index}", "v" * 1_000) for index in range(58)]]
    block = Encoder().encode([NeverIndexedHeaderTuple(*each) for each in fields], huffman=False)
    pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    for _ in range(FLOOD):
        stream = client.new_stream()
        frames = [raw_frame(9, 0, stream, piece) for piece in pieces[1:-1]]
        call = [raw_frame(1, 1, stream, pieces[0]), *frames, raw_frame(9, 4, stream, pieces[-1])]
        if not client.try_send(b"".join(call)):
            break
    client.wait_closed()
    assert client.goaway is not None
    assert client.goaway.error_code == ENHANCE_YOUR_CALM
    assert client.answers[1].status == Code.RESOURCE_EXHAUSTED
    assert_honest(serving.address)


def test_window_overflow_of_a_stream(serving: Serving, client: RawClient) -> None:
    """A stream's window that overflows costs the connection, which is stricter than it must be."""
    client.send(window_update(half_open(client), (1 << 31) - 1))
    assert_sent_away(client, FLOW_CONTROL_ERROR)
    assert_honest(serving.address)


def test_window_overflow_of_the_connection(serving: Serving, client: RawClient) -> None:
    """The connection's window that overflows costs the connection."""
    client.send(window_update(0, (1 << 31) - 1) * 2)
    assert_sent_away(client, FLOW_CONTROL_ERROR)
    assert_honest(serving.address)


def test_more_than_the_window(models: Models) -> None:
    """Who sends more than the window lets him loses the stream or the connection, and what he sent is not kept."""
    limits = Http2Limits(stream_window_bytes=65_535, connection_window_bytes=65_535, inline_bytes=1)
    with Serving(models, limits, [streaming()]) as serving, RawClient(serving.address) as client:
        serving.dataplane.go.clear()  # the handler gets busy, and no window is opened any more
        stream = client.call(convert_body(*[50.0] * 3_000) * 5, request(STREAM), end=False)
        while serving.ask(lambda: serving.front.bytes_in_hand) < 60_000:
            client.drain(0.01)
        allowed = 65_535 + client.windows.get(stream, 0)
        for _ in range(allowed // 16_000 + 1):
            client.try_send(client.data_frame(stream, bytes(16_000)))
        answer = client.answers.setdefault(stream, Answer())
        client.wait(lambda: client.goaway is not None or answer.reset is not None)
        told = {answer.reset, client.goaway and client.goaway.error_code}
        assert told & {FLOW_CONTROL_ERROR, PROTOCOL_ERROR}  # the latter where more came before the first could be told
        serving.dataplane.go.set()
        assert_honest(serving.address)
        client.socket.close()
        while serving.ask(lambda: serving.front.bytes_in_hand):
            pass


PROVOCATIONS = {
    "window update of nothing": lambda stream: window_update(stream, 0),
    "window overflow": lambda stream: window_update(stream, (1 << 31) - 1),
    "data after the end": lambda stream: raw_frame(0, 0, stream, b"x"),
    "headers after the end": lambda stream: raw_frame(1, 4, stream, Encoder().encode([("x", "y")])),
    "priority on itself": lambda stream: raw_frame(2, 0, stream, struct.pack(">IB", stream, 1)),
}


@pytest.mark.parametrize("name", PROVOCATIONS)
def test_made_you_reset(models: Models, name: str) -> None:
    """Calls that break a rule so that the server resets them bring GOAWAY, as if the client had reset them."""
    with Serving(models, Http2Limits(inline_bytes=1)) as serving, RawClient(serving.address) as client:
        serving.dataplane.go.clear()  # the calls stay open
        for _ in range(60):
            out = bytearray()
            for _ in range(50):
                stream = client.new_stream()
                out += client.headers_frame(request(), stream)
                out += client.data_frame(stream, BODY, end=True)
                out += PROVOCATIONS[name](stream)
            if not client.try_send(bytes(out)):
                break
        client.wait_closed()
        assert client.goaway is not None
        serving.dataplane.go.set()
        assert_honest(serving.address)
        assert sum(serving.tally.batches) < 60 * 50


@pytest.mark.parametrize(
    "settings",
    [
        {SettingsFrame.MAX_FRAME_SIZE: 16_384},
        {SettingsFrame.MAX_FRAME_SIZE: (1 << 24) - 1},
        {SettingsFrame.HEADER_TABLE_SIZE: 0},
        {SettingsFrame.HEADER_TABLE_SIZE: 0xFFFFFFFF},
        {SettingsFrame.INITIAL_WINDOW_SIZE: (1 << 31) - 1},
        {SettingsFrame.MAX_CONCURRENT_STREAMS: 0},
        {SettingsFrame.MAX_HEADER_LIST_SIZE: 0xFFFFFFFF},
    ],
    ids=str,
)
def test_settings_at_their_edges(serving: Serving, settings: dict[int, int]) -> None:
    """Settings at the edges of what is allowed change nothing for the caller."""
    with RawClient(serving.address, settings=settings) as client:
        assert client.unary(BODY).status == Code.OK


@pytest.mark.parametrize(
    ("identifier", "value"), [(5, 16_383), (5, 1 << 24), (4, 1 << 31), (2, 2)], ids=["small", "large", "window", "push"]
)
def test_settings_beyond_their_edges(serving: Serving, identifier: int, value: int) -> None:
    """Settings beyond what is allowed cost the connection."""
    with RawClient(serving.address) as client:
        client.send(raw_frame(4, 0, 0, struct.pack(">HI", identifier, value)))
        assert_sent_away(client, PROTOCOL_ERROR, FLOW_CONTROL_ERROR)
    assert_honest(serving.address)


def test_window_of_nothing(serving: Serving) -> None:
    """A client whose window is empty gets its answer once it opens it."""
    with RawClient(serving.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as client:
        stream = client.call(BODY)
        client.wait(lambda: stream in client.answers)  # the head, which no window holds back
        client.drain(0.2)
        assert not client.answers[stream].data
        assert_honest(serving.address)
        client.open_windows(stream, 1 << 20)
        assert client.finish(stream).status == Code.OK


def test_deadline_while_the_answer_waits(serving: Serving) -> None:
    """An answer that the client does not take is dropped at the deadline, and the stream reset."""
    with RawClient(serving.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as client:
        answer = client.unary(BODY, request(CONVERT, ("grpc-timeout", "150m")))
        assert answer.reset == CANCEL
        assert serving.ask(lambda: (serving.front.calls, serving.front.bytes_in_hand)) == (0, 0)


def test_answers_that_nobody_takes(models: Models) -> None:
    """Calls of a client that takes no answers wait, unrun, once enough answers lie there; others are not touched."""
    limits = Http2Limits(max_unsent_bytes=200_000)
    with Serving(models, limits) as serving:
        body = convert_body(*[50.0] * 5_000)  # 20 kB each way
        with RawClient(serving.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as client:
            streams = [client.call(body) for _ in range(40)]
            while serving.ask(lambda: serving.front.calls) != 40:
                client.drain(0.01)
            client.drain(0.3)
            assert sum(serving.tally.batches) < 20
            assert serving.ask(lambda: serving.front.bytes_in_hand) < 2_000_000
            assert_honest(serving.address)
            client.open_windows()
            for stream in streams:
                client.open_windows(stream, 1 << 20)
            for stream in streams:
                assert client.finish(stream).status == Code.OK
        while serving.ask(lambda: serving.front.bytes_in_hand):
            pass


def test_answers_count_until_they_are_taken(models: Models, tmp_path: Path) -> None:
    """What was written and lies with us is in hand, encrypted or not, but for a little."""
    little = 1 << 19
    body = convert_body(*[50.0] * 220_000)
    with (
        Serving(models, address=f"unix:{tmp_path / 'socket'}") as serving,  # it takes less at once than TCP does here
        RawClient(serving.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        answers = [client.expect(client.call(body)) for _ in range(3)]
        client.wait(lambda: all(answer.headers for answer in answers))
        left = whole = serving.ask(lambda: serving.front.bytes_in_hand)
        assert whole > 3 * len(body) - little
        client.send(b"".join(window_update(stream, 1 << 30) for stream in (0, *client.answers)))
        for taken in (0, 400_000):
            client.wait(lambda taken=taken: sum(len(answer.data) for answer in answers) >= taken)
            before = left
            while (left := serving.ask(lambda: serving.front.bytes_in_hand)) == before:
                pass
            assert left > whole - taken - little
        client.wait(lambda: all(answer.ended for answer in answers))
        while serving.ask(lambda: serving.front.bytes_in_hand):
            pass


def test_answers_taken_without_a_word_count_no_more(models: Models, tmp_path: Path) -> None:
    """What the loop still had to send is not in hand once it is sent, also where its peer says nothing after that."""
    limits = Http2Limits(keepalive_seconds=math.inf)
    with (
        Serving(models, limits, address=f"unix:{tmp_path / 'socket'}") as serving,
        RawClient(serving.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 24}) as client,
    ):
        client.open_windows()
        stream = client.call(convert_body(*[50.0] * 80_000))
        while not serving.ask(lambda: serving.tally.ended):
            pass
        assert client.finish(stream).status == Code.OK
        while serving.ask(lambda: serving.front.bytes_in_hand):
            pass


def test_half_open_streams(serving: Serving, client: RawClient) -> None:
    """Of ten thousand calls that never send their message, most are refused, and nobody else notices."""
    out = bytearray()
    for _ in range(10_000):
        out += client.headers_frame(request(), client.new_stream())
    client.try_send(bytes(out))
    client.drain(0.2)
    assert serving.ask(lambda: serving.front.calls) <= Http2Limits().max_calls_per_connection
    assert_honest(serving.address)


def test_calls_never_finished(models: Models) -> None:
    """Calls whose message never ends are ended after a while, and nobody else notices."""
    limits = Http2Limits(receive_seconds=0.3, max_calls_per_connection=1500)
    with Serving(models, limits) as serving, RawClient(serving.address) as client:
        streams = [client.call(BODY[:-1], end=False) for _ in range(1_500)]
        assert_honest(serving.address)
        assert client.finish(streams[-1]).status == Code.DEADLINE_EXCEEDED
        while serving.ask(lambda: serving.front.calls):
            client.drain(0.05)
        assert client.unary(BODY).status == Code.OK


def test_more_calls_than_allowed(models: Models) -> None:
    """Calls over the limit of all connections are refused with RESOURCE_EXHAUSTED, until there is room again."""
    with Serving(models, Http2Limits(max_calls=10)) as serving:
        with RawClient(serving.address) as greedy, RawClient(serving.address) as other:
            for _ in range(11):
                half_open(greedy)
            while serving.ask(lambda: serving.front.calls) != 10:
                greedy.drain(0.01)
            assert other.unary(BODY).status == Code.RESOURCE_EXHAUSTED
        assert_honest(serving.address)
        assert serving.ask(lambda: serving.tally.sheds) == {Shed.CALLS: 2}


def test_announced_length(client: RawClient) -> None:
    """A message that is announced too large is refused at its prefix."""
    answer = client.unary(struct.pack(">BI", 0, 0xFFFFFFFF) + b"x", end=False)
    assert answer.status == Code.RESOURCE_EXHAUSTED
    client.wait(lambda: answer.reset is not None)


def test_bytes_in_hand(models: Models) -> None:
    """What is in hand stays within its limit over all connections: windows stay closed first, refusals come after."""
    limits = Http2Limits(
        inline_bytes=1,
        lane_bytes=1,
        max_message_bytes=1 << 20,
        max_connection_bytes_in_hand=2 << 20,
        max_bytes_in_hand=4 << 20,
        stall_seconds=60,
    )
    with Serving(models, limits) as serving, contextlib.ExitStack() as opened:
        serving.dataplane.go.clear()
        clients = [opened.enter_context(RawClient(serving.address)) for _ in range(8)]
        body = convert_body(*[50.0] * 15_000)
        calls: list[tuple[RawClient, int]] = []
        for client in clients:
            calls += [(client, client.call(body)) for _ in range(14)]  # 840 kB: what the windows let in at first
        while not serving.ask(lambda: serving.tally.sheds[Shed.BYTES]):
            for client in clients:
                client.drain(0.005)
        assert serving.ask(lambda: serving.front.bytes_in_hand) <= (4 << 20) + (1 << 16)
        assert not any(client.windows.get(0, 0) > 4 << 20 for client in clients)
        for client in clients:
            client.open_windows()
        serving.dataplane.go.set()
        codes = {client.finish(stream).status for client, stream in calls}
        assert codes == {Code.OK, Code.RESOURCE_EXHAUSTED}
        assert serving.ask(serving.tally.sheds.keys) == {Shed.BYTES}
        for client in clients:
            client.socket.close()
        while serving.ask(lambda: serving.front.bytes_in_hand):
            pass
        assert_honest(serving.address)


def test_windows_stay_closed_within_large_messages(models: Models) -> None:
    """A client that sends what it may of messages that never end comes no further than one window beyond the limit."""
    window, limit = 1 << 17, 1 << 20
    limits = Http2Limits(
        stream_window_bytes=window,
        connection_window_bytes=window,
        max_message_bytes=limit,
        max_connection_bytes_in_hand=limit,
        stall_seconds=60,
    )
    with Serving(models, limits) as serving, RawClient(serving.address) as client:
        prefix = struct.pack(">BI", 0, 1_000_000)
        streams = [client.call(prefix, end=False) for _ in range(4)]
        sent = dict.fromkeys(streams, len(prefix))
        while serving.ask(lambda: serving.front.bytes_in_hand) <= limit:
            client.send(_data_within_windows(client, sent, most=900_000))
            client.drain(0.001)
        for _ in range(40):  # as often as would take all of it
            client.send(_data_within_windows(client, sent, most=900_000))
            _await_reading(client)
        held = serving.ask(lambda: serving.front.bytes_in_hand)
        assert limit < held <= limit + window + FRAME_BYTES
        assert held == sum(sent.values())


def _await_reading(client: RawClient) -> None:
    """Wait until the server has read what was sent."""
    pings = len(client.pings)
    client.send(PingFrame(0, b"all read").serialize())
    client.wait(lambda: len(client.pings) > pings)


def _data_within_windows(client: RawClient, sent: dict[int, int], most: int) -> bytes:
    """A frame of data for each stream whose windows have room for it, up to `most` bytes a stream; they are counted."""
    out = bytearray()
    for stream, size in sent.items():
        room = DEFAULT_WINDOW_BYTES + client.windows[0] - sum(sent.values())
        of_stream = client.settings[SettingsFrame.INITIAL_WINDOW_SIZE] + client.windows.get(stream, 0) - size
        if min(room, of_stream) >= FRAME_BYTES and size + FRAME_BYTES <= most:
            out += client.data_frame(stream, bytes(FRAME_BYTES))
            sent[stream] += FRAME_BYTES
    return bytes(out)


def test_large_messages_are_refused_beyond_the_bytes_in_hand(models: Models) -> None:
    """Of several clients that send large messages at once, those that find no room are refused, within one message."""
    limit = 1 << 20
    limits = Http2Limits(
        max_message_bytes=limit, max_connection_bytes_in_hand=limit, max_bytes_in_hand=limit, stall_seconds=60
    )
    with Serving(models, limits) as serving, contextlib.ExitStack() as opened:
        body = struct.pack(">BI", 0, 1_000_000) + bytes(600_000)
        for _ in range(4):
            client = opened.enter_context(RawClient(serving.address))
            client.call(body, end=False)
            _await_reading(client)
            assert serving.ask(lambda: serving.front.bytes_in_hand) <= limit + FRAME_BYTES
        assert serving.ask(lambda: serving.tally.sheds[Shed.BYTES])


def test_stalled_hoarder_is_cut(models: Models) -> None:
    """Where unfinished messages press and nothing moves, the connection that holds most loses its calls."""
    limits = Http2Limits(
        max_message_bytes=1 << 20, max_connection_bytes_in_hand=1 << 20, max_bytes_in_hand=1 << 20, stall_seconds=0.3
    )
    with Serving(models, limits) as serving, RawClient(serving.address) as client:
        prefix = struct.pack(">BI", 0, 1_000_000)
        with RawClient(serving.address) as patient:
            small = patient.call(prefix + b"x" * 1_000, end=False)
            streams = [client.call(prefix + b"x" * 150_000, end=False) for _ in range(3)]
            client.call(prefix + b"x" * 200_000, end=False)  # the one by which they press
            assert client.finish(streams[0]).status == Code.RESOURCE_EXHAUSTED
            client.wait_closed()
            assert patient.answers.get(small) is None
            assert patient.unary(BODY).status == Code.OK
            assert serving.ask(lambda: serving.tally.sheds) == {Shed.STALLED: 4}
            assert serving.tally.closed.keys() <= {Closed.STALLED}


@pytest.mark.parametrize("sent", [b"", PREFACE[:10]], ids=["nothing", "half a preface"])
def test_preface_never_finished(models: Models, sent: bytes) -> None:
    """Connections that never greet are closed after their time."""
    with Serving(models, Http2Limits(handshake_seconds=0.3)) as serving:
        silent = [RawClient(serving.address, greet=False) for _ in range(100)]
        for client in silent:
            client.send(sent)
        assert_honest(serving.address)
        for client in silent:
            client.wait_closed()
            client.socket.close()
        while serving.ask(lambda: serving.front.connections):
            pass


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(200)])
def test_other_protocols(serving: Serving, sent: bytes) -> None:
    """Who does not speak HTTP/2 is sent away."""
    with RawClient(serving.address, greet=False) as client:
        client.send(sent)
        assert_sent_away(client, PROTOCOL_ERROR)
    assert_honest(serving.address)


def test_calls_before_the_rules_were_broken_count_as_begun(serving: Serving, client: RawClient) -> None:
    """Who breaks the rules is told which calls were taken up, so that none is run a second time somewhere else."""
    assert [client.unary(BODY).status for _ in range(3)] == [Code.OK] * 3
    client.send(raw_frame(0, 0, 0, b"data of no stream"))
    assert_sent_away(client, PROTOCOL_ERROR)
    assert client.goaway is not None
    assert client.goaway.last_stream_id == 5
    assert_honest(serving.address)


def test_attacks_do_not_fill_the_log(serving: Serving) -> None:
    """What a peer does wrong is said at the level of debugging, so that nobody can fill a log, or the pipe to it."""
    with structlog.testing.capture_logs() as logged:
        for _ in range(20):
            with RawClient(serving.address, greet=False) as client:
                client.send(b"GET / HTTP/1.1\r\n\r\n" + bytes(20))
                client.wait_closed()
        with RawClient(serving.address) as client:
            flood(client, PingFrame(0, b"flooding").serialize(), FLOOD)
            client.wait_closed()
    assert len(logged) >= 20
    assert {entry["log_level"] for entry in logged} == {"debug"}


def test_peer_that_is_gone_as_its_connection_is_closed(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system says so, as it does now and then to asyncio's own loop, nothing of the peer's is left."""

    def gone(_transport: object) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with structlog.testing.capture_logs() as logged, Serving(models, loop="asyncio") as serving:
        with RawClient(serving.address) as client:
            kind = serving.ask(lambda: type(next(iter(serving.front._peers))._line._transport))  # noqa: SLF001 - nobody else knows it
        monkeypatch.setattr(kind, "write_eof", gone)
        for broken in (raw_frame(0, 0, 0, b"data of no stream"), PingFrame(0, b"flooding").serialize() * FLOOD):
            with RawClient(serving.address) as client:
                calls = [client.call_bytes(request(), BODY, end=index % 2 == 0)[1] for index in range(6)]
                client.try_send(b"".join(calls) + broken)
                client.wait_closed()
        while serving.ask(lambda: serving.front.connections):
            pass
        assert serving.ask(lambda: (serving.front.calls, serving.front.bytes_in_hand)) == (0, 0)
        assert_honest(serving.address)
        monkeypatch.undo()
    assert {entry["log_level"] for entry in logged} <= {"debug"}


def test_mutated_conversations(serving: Serving) -> None:
    """Conversations with bytes changed, dropped, or repeated end somehow, and leave nothing behind."""
    generator = random.Random(20_240_917)  # noqa: S311 - seeded on purpose
    for _ in range(150):
        with RawClient(serving.address, greet=False) as client:
            out = bytearray(PREFACE + SettingsFrame(0, settings={3: 100}).serialize())
            for _ in range(generator.randrange(1, 6)):
                out += client.call_bytes(request(), framed(generator.randbytes(generator.randrange(200))))[1]
                out += window_update(generator.randrange(8), generator.randrange(1 << 31))
            damage(out, generator)
            client.try_send(bytes(out))
            client.drain(0.005)
        if generator.random() < 0.1:
            assert_honest(serving.address)
    while serving.ask(lambda: serving.front.connections):
        pass
    assert serving.ask(lambda: (serving.front.calls, serving.front.bytes_in_hand)) == (0, 0)
    assert_honest(serving.address)
