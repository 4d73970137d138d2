"""Nobody keeps the event loop: of what one connection sends, however it is made, only so much is read in a turn."""

import struct
import threading
from collections.abc import Iterable, Iterator

import grpc
import pytest

from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.http2.control_frames import SessionLimits
from service.http2.events import Begun, Ended, Event, More, Parts
from service.http2.session import Session
from service.models import Models
from service.open_inference import stream
from service.open_inference.infer import InferCodec
from service.open_inference.request import Asked
from service.status import Code
from tests.service.http2.raw import PREFACE, RawClient, raw_frame, request
from tests.service.http2.rules import (
    BODY,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    METHODS,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WAITING,
    block,
    literal,
)
from tests.service.http2.serving import Serving, convert_body
from tests.service.open_inference.calls import fahrenheit

LIMITS = SessionLimits(
    max_streams=1024,
    stream_window_bytes=1 << 20,
    connection_window_bytes=1 << 22,
    max_list_bytes=1 << 14,
    hard_list_bytes=1 << 16,
    hard_list_fields=1 << 10,
)
READ_BYTES = 250_000
"""About what the loop reads at once."""
AT_ONCE = 300
"""Small frames, at most, that are read at once."""


def greeted() -> Session:
    """A session whose peer greeted."""
    session = Session(LIMITS)
    session.greet()
    session.receive(PREFACE + raw_frame(SETTINGS, 0, 0) + raw_frame(SETTINGS, 1, 0), 10)
    session.events.clear()
    return session


def steps(session: Session, data: bytes) -> Iterator[list[Event]]:
    """What each step of reading these bytes brings."""
    while True:
        session.receive(data, 10_000)
        events, session.events = session.events, []
        yield events
        if not session.behind:
            return
        data = b""


def data_of(events: Iterable[Event]) -> Iterator[bytes]:
    """The data that came, frame by frame."""
    for event in events:
        if isinstance(event, Parts):
            yield from (data for _, data in event)
        elif isinstance(event, More):
            yield event.data


def test_small_frames_are_read_in_steps() -> None:
    """A read full of data in pieces of one byte takes many steps; all of it comes, in its order, and none twice."""
    session = greeted()
    count = READ_BYTES // 10
    pieces = [bytes((index % 251,)) for index in range(count)]
    flood = b"".join(raw_frame(DATA, 0, 1, piece) for piece in pieces)
    seen = list(
        steps(session, raw_frame(HEADERS, END_HEADERS, 1, WAITING) + flood + raw_frame(DATA, 0, 1, b"rest")[:-2])
    )
    assert max(len(list(data_of(events))) for events in seen) <= AT_ONCE
    events = [event for each in seen for event in each]
    assert isinstance(events.pop(0), Begun)
    assert list(data_of(events)) == [*pieces, b"re"]
    session.receive(b"st", 10)
    assert session.events == [More(1, b"st", False)]


def test_what_came_meanwhile_is_read_after_the_rest() -> None:
    """Bytes that come while a session is behind stand after those that it has; a frame may be cut between them."""
    session = greeted()
    pieces = [bytes((index % 251,)) for index in range(2_000)]
    flood = raw_frame(HEADERS, END_HEADERS, 1, WAITING) + b"".join(raw_frame(DATA, 0, 1, piece) for piece in pieces)
    session.receive(flood[:10_005], 10)
    assert session.behind
    session.receive(flood[10_005:], 10)
    assert session.behind
    list(steps(session, b""))
    assert not session.behind
    session.receive(raw_frame(RST_STREAM, 0, 1, struct.pack(">I", 8)), 10)
    assert session.closed == [1]


HEAVY = {
    "many fields": block(request()) + b"\x95" * 900,
    "many literals": block(request()) + literal("x", "y") * 900,
    "huffman": block(request()) + b"\0\x01x\xff\xbd\x7c" + b"\x18\xc6\x31\x8c\x63" * 3_212,
}


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_header_blocks_are_read_in_steps(name: str) -> None:
    """A read full of header blocks that take long is read a few blocks at a time."""
    session = greeted()
    heavy = HEAVY[name]
    each = [
        raw_frame(HEADERS, END_STREAM, stream, heavy[:10_000]) + raw_frame(9, END_HEADERS, stream, heavy[10_000:])
        for stream in range(1, 200, 2)
    ]
    seen = list(steps(session, b"".join(each)))
    assert max(map(len, seen)) <= 4
    assert sum(map(len, seen)) == len(each)


def test_windows_that_change_over_and_over() -> None:
    """What SETTINGS say of windows is carried out once a frame, on as many streams as there are, and in steps."""
    session = greeted()
    streams = range(1, 2 * LIMITS.max_streams, 2)
    list(steps(session, b"".join(raw_frame(HEADERS, END_HEADERS, stream, WAITING) for stream in streams)))
    sizes = [struct.pack(">HI", INITIAL_WINDOW_SIZE, 70_000 + index) for index in range(32)]
    changes = raw_frame(SETTINGS, 0, 0, b"".join(sizes)) + raw_frame(SETTINGS, 0, 0, b"".join(reversed(sizes)))
    assert len(list(steps(session, changes * 500))) > 200
    assert {state.window for state in session.streams.values() if state is not None} == {70_000}


def test_others_have_their_turn(models: Models) -> None:
    """A call that comes beside a read full of small frames is answered before these are read to their end."""
    with (
        Serving(models, methods=METHODS) as serving,
        RawClient(serving.address) as flood,
        RawClient(serving.address) as honest,
    ):
        assert honest.unary(BODY).status == Code.OK
        serving.ask(serving.tally.batches.clear)  # asked on the loop, which has kept its books by then
        serving.ask(lambda: serving_holds(flood, honest))
        last = flood.expect(5)
        flood.wait(lambda: last.ended)
        assert honest.finish(3).status == Code.OK
        assert serving.ask(lambda: serving.tally.batches) == [1, 1]


def serving_holds(flood: RawClient, honest: RawClient) -> None:
    """Send a flood that ends in a call, and an honest call, while the loop cannot read either."""
    small = raw_frame(DATA, 0, 3, b"\0") * 10_000
    wait = raw_frame(HEADERS, END_HEADERS, 3, WAITING) + raw_frame(DATA, 0, 3, b"\0" + (1 << 20).to_bytes(4, "big"))
    ends = raw_frame(HEADERS, END_HEADERS, 5, REQUEST) + raw_frame(DATA, END_STREAM, 5, BODY)
    flood.send(wait + small + ends)
    honest.call(BODY)


def test_nothing_follows_the_end() -> None:
    """A call of which only the header list came, in front of what breaks the rules, is not begun behind the end."""
    session = greeted()
    session.receive(raw_frame(HEADERS, END_HEADERS, 1, WAITING) + raw_frame(SETTINGS, 0, 1), 10)
    assert [type(event) for event in session.events] == [Ended]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_message_in_pieces_of_a_byte(models: Models, loop: str) -> None:
    """A message whose every byte has its own frame arrives, and what follows on its connection is answered."""
    body = convert_body(*[float(index) for index in range(10_000)])
    frames = raw_frame(HEADERS, END_HEADERS, 1, REQUEST)
    frames += b"".join(raw_frame(DATA, 0, 1, body[at : at + 1]) for at in range(len(body) - 1))
    frames += raw_frame(DATA, END_STREAM, 1, body[-1:])
    with Serving(models, methods=METHODS, loop=loop) as serving, RawClient(serving.address) as client:
        client.new_stream()
        client.open_windows()
        client.send(frames)
        assert client.finish(1).status == Code.OK
        whole = client.unary(body)
        assert whole.status == Code.OK
        assert whole.message == client.expect(1).message
        assert serving.ask(lambda: serving.front.bytes_in_hand) == 0


def test_large_requests_of_a_stream_are_read_by_a_worker(models: Models) -> None:
    """The loop reads small ones, and answers all in their order."""
    codec = SpiedCodec()
    small = fahrenheit(32, id="small", model="linear")
    large = fahrenheit(*[50.0] * 20_000, id="large", model="linear", typed=True)
    with Serving(models, methods=[stream.method(codec)]) as serving, grpc.insecure_channel(serving.address) as channel:
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([small, large, small]), timeout=20)
        answers = [answer.infer_response.id for answer in call]
        loop = serving.ask(lambda: threading.current_thread().name)
    assert answers == ["small", "large", "small"]
    assert [name for size, name in codec.read_on if size < 1000] == [loop, loop]
    assert [name.rpartition("_")[0] for size, name in codec.read_on if size > 1000] == ["large-calls"]


class SpiedCodec(InferCodec):
    """Remembers the size of what it read, and on which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.read_on: list[tuple[int, str]] = []

    def read(self, body: bytes) -> Asked:
        """Remember, and read."""
        self.read_on.append((len(body), threading.current_thread().name))
        return super().read(body)
