"""The rules of RFC 9113 that take more than one exchange: windows, settings that change, and how bytes arrive."""

import struct
from collections import Counter
from itertools import pairwise

import pytest
from hpack import Encoder

from service.http2 import Http2Limits
from service.models import Models
from service.status import Code
from tests.service.http2 import test_rules, test_rules_messages
from tests.service.http2.raw import CONVERT, PREFACE, RawClient, framed, raw_frame, request
from tests.service.http2.rules import (
    ACK,
    BODY,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    METHODS,
    PADDED,
    POUR,
    PRIORITISED,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    UNKNOWN,
    WAIT,
    WINDOW_UPDATE,
    Case,
    block,
    body,
    call,
    headers,
    judge,
    number,
    ping,
    poured,
    settings,
    trickled,
)
from tests.service.http2.serving import Serving, celsius, convert_body
from tests.service.http2.test_calls import assert_honest

PREFIX = 5
SMALL = 65_535
"""The smallest windows that a front can be given, and the windows before any SETTINGS."""


def pour(client: RawClient, size: int) -> int:
    """Ask for an answer of so many bytes, prefix included."""
    return client.call(framed(str(size - PREFIX).encode()), request(POUR))


def goaway(code: int = 0) -> bytes:
    """A GOAWAY frame."""
    return raw_frame(GOAWAY, 0, 0, struct.pack(">II", 0, code))


def assert_stays_at(client: RawClient, **sizes: int) -> None:
    """So many bytes come on each stream (`s1=…`), and no more, however often the server has been round since."""
    wanted = {int(name[1:]): size for name, size in sizes.items()}
    client.wait(lambda: all(len(client.expect(stream).data) >= size for stream, size in wanted.items()))
    for _ in range(3):
        answered = len(client.pings) + 1
        client.send(ping())
        client.wait(lambda answered=answered: len(client.pings) == answered)
    assert {stream: len(client.expect(stream).data) for stream in wanted} == wanted
    assert not any(client.expect(stream).ended for stream in wanted)


def assert_poured(client: RawClient, stream: int, size: int) -> None:
    """An answer comes whole."""
    answer = client.finish(stream)
    assert answer.status == Code.OK
    assert bytes(answer.data) == framed(poured(size - PREFIX))


# What the server sends ------------------------------------------------------------------------------------------------


def test_window_of_a_stream(ruled: Serving) -> None:
    """No more comes on a stream than its window allows, to the byte (6.9)."""
    with RawClient(ruled.address, settings={INITIAL_WINDOW_SIZE: 1_000}) as client:
        stream = pour(client, 5_000)
        assert_stays_at(client, s1=1_000)
        client.open_windows(stream, 1)
        assert_stays_at(client, s1=1_001)
        client.open_windows(stream, 3_998)
        assert_stays_at(client, s1=4_999)
        client.open_windows(stream, 1)
        assert_poured(client, stream, 5_000)


def test_window_of_the_connection(ruled: Serving) -> None:
    """No more comes on all streams together than the connection's window allows, to the byte (6.9)."""
    with RawClient(ruled.address, settings={INITIAL_WINDOW_SIZE: 1 << 20}) as client:
        first, second = pour(client, 100_000), pour(client, 50_000)
        client.wait(lambda: sum(len(client.expect(stream).data) for stream in (first, second)) >= SMALL)
        had = {f"s{stream}": len(client.expect(stream).data) for stream in (first, second)}
        assert_stays_at(client, **had)
        assert sum(had.values()) == SMALL
        client.open_windows(0, 150_000 - SMALL - 1)
        client.wait(lambda: sum(len(client.expect(stream).data) for stream in (first, second)) == 149_999)
        client.open_windows(0, 1)
        assert_poured(client, first, 100_000)
        assert_poured(client, second, 50_000)


def test_a_closed_window_holds_up_no_other_stream(ruled: Serving) -> None:
    """A stream without a window waits alone."""
    with RawClient(ruled.address, settings={INITIAL_WINDOW_SIZE: 0}) as client:
        held, other = pour(client, 3_000), pour(client, 3_000)
        client.open_windows(other, 3_000)
        assert_poured(client, other, 3_000)
        assert_stays_at(client, s1=0)
        client.open_windows(held, 3_000)
        assert_poured(client, held, 3_000)


def test_windows_opened_before_the_answer(ruled: Serving) -> None:
    """What a window was opened by, and by settings, before there was an answer counts."""
    with RawClient(ruled.address, settings={INITIAL_WINDOW_SIZE: 100}) as client:
        stream = client.new_stream()
        client.send(client.headers_frame(request(POUR), stream))
        client.open_windows(stream, 50)
        client.send(settings((INITIAL_WINDOW_SIZE, 200)))
        client.send(body(stream, framed(b"995")))
        assert_stays_at(client, s1=250)
        client.open_windows(stream, 750)
        assert_poured(client, stream, 1_000)


def test_initial_window_changes(ruled: Serving) -> None:
    """Settings change the windows of streams that are open, and make them negative; the connection's they do not."""
    with RawClient(ruled.address, settings={INITIAL_WINDOW_SIZE: 0}) as client:
        first, second = pour(client, 5_000), pour(client, 5_000)
        client.send(settings((INITIAL_WINDOW_SIZE, 1_000)))
        assert_stays_at(client, s1=1_000, s3=1_000)
        client.send(settings((INITIAL_WINDOW_SIZE, 400)))  # 600 below nothing
        assert_stays_at(client, s1=1_000, s3=1_000)
        client.open_windows(first, 600)
        assert_stays_at(client, s1=1_000, s3=1_000)
        client.open_windows(first, 1)
        assert_stays_at(client, s1=1_001, s3=1_000)
        client.send(settings((INITIAL_WINDOW_SIZE, 0)) + settings((INITIAL_WINDOW_SIZE, 1_002)))
        assert_stays_at(client, s1=1_603, s3=1_002)
        client.open_windows(first)
        assert_poured(client, first, 5_000)
        client.send(settings((INITIAL_WINDOW_SIZE, 5_000)))
        assert_poured(client, second, 5_000)


def test_initial_window_leaves_the_connection_alone(ruled: Serving) -> None:
    """The connection's window is opened by WINDOW_UPDATE only (6.9.2)."""
    with RawClient(ruled.address, settings={INITIAL_WINDOW_SIZE: 1 << 24}) as client:
        stream = pour(client, SMALL + 1)
        client.send(settings((INITIAL_WINDOW_SIZE, 1 << 25)))
        assert_stays_at(client, s1=SMALL)
        client.open_windows(0, 1)
        assert_poured(client, stream, SMALL + 1)


@pytest.mark.parametrize("size", [16_384, 16_385, 32_768, 100_000, (1 << 24) - 1])
def test_size_of_frames(ruled: Serving, size: int) -> None:
    """No frame of the server's is larger than the client allows (4.2)."""
    wide = {INITIAL_WINDOW_SIZE: 1 << 24, MAX_FRAME_SIZE: size}
    with RawClient(ruled.address, settings=wide) as client:
        client.open_windows(0, 1 << 24)
        assert_poured(client, pour(client, 1_000_000), 1_000_000)
        assert client.largest_frame <= size
        client.largest_frame, acknowledged = 0, client.settings_taken
        client.send(settings((MAX_FRAME_SIZE, 16_384)))
        client.wait(lambda: client.settings_taken == acknowledged + 1)
        client.largest_frame = 0
        assert_poured(client, pour(client, 1_000_000), 1_000_000)
        assert client.largest_frame <= 16_384


def test_size_of_frames_unless_told(ruled: Serving) -> None:
    """Who says nothing gets no frame larger than 16,384 bytes."""
    with RawClient(ruled.address, settings={INITIAL_WINDOW_SIZE: 1 << 24}) as client:
        client.open_windows(0, 1 << 24)
        assert_poured(client, pour(client, 1_000_000), 1_000_000)
        assert client.largest_frame <= 16_384


@pytest.mark.parametrize("sizes", [(0,), (4_096, 0, 4_096), (100,), (1 << 16,), (50, 0, 30), (0xFFFFFFFF, 0)], ids=str)
def test_compression_table_of_the_client(ruled: Serving, sizes: tuple[int, ...]) -> None:
    """What the server compresses fits the client's table, also where that changes between calls (4.3.1)."""
    with RawClient(ruled.address) as client:
        client.wait(lambda: client.settings_taken == 1)
        for size in sizes:
            assert client.unary(BODY).status == Code.OK
            client.table_bytes.append(size)
            acknowledged = client.settings_taken
            client.send(settings((HEADER_TABLE_SIZE, size)))
            client.wait(lambda acknowledged=acknowledged: client.settings_taken == acknowledged + 1)
            for _ in range(3):
                answer = client.unary(BODY)
                assert answer.status == Code.OK
                assert answer.headers["content-type"] == "application/grpc"
            refused = client.unary(BODY, request("/no/method"))
            assert refused.status == Code.UNIMPLEMENTED


def test_compression_table_that_was_small_in_between(ruled: Serving) -> None:
    """A table that shrinks and grows between two header blocks is told to have shrunk (RFC 7541, 4.2)."""
    with RawClient(ruled.address) as client:
        for _ in range(3):
            assert client.unary(BODY).status == Code.OK
        acknowledged = client.settings_taken
        client.send(settings((HEADER_TABLE_SIZE, 0), (HEADER_TABLE_SIZE, 4_096)))
        client.wait(lambda: client.settings_taken == acknowledged + 1)
        answer = client.unary(BODY)
        assert answer.status == Code.OK
        assert answer.blocks[0].startswith(b"\x20")


# What the server takes ------------------------------------------------------------------------------------------------


class Upload:
    """A client that sends no more data than the windows of a server with the smallest allow."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._sent: Counter[int] = Counter()

    def send(self, frame: bytes) -> None:
        """Send a DATA frame once both windows have room for it."""
        stream, size = int.from_bytes(frame[5:9], "big"), len(frame) - 9
        self._client.wait(lambda: min(self._room(0), self._room(stream)) >= size)
        self._sent.update({0: size, stream: size})
        self._client.send(frame)

    def _room(self, stream: int) -> int:
        return SMALL + self._client.windows.get(stream, 0) - self._sent[stream]


def test_uploads_get_windows(models: Models) -> None:
    """A message larger than the windows arrives, since they are opened again."""
    limits = Http2Limits(stream_window_bytes=SMALL, connection_window_bytes=SMALL)
    with Serving(models, limits) as serving, RawClient(serving.address) as client:
        stream, message = client.new_stream(), convert_body(*[50.0] * 100_000)
        client.send(client.headers_frame(request(), stream))
        client.open_windows(stream, 1 << 20)
        client.open_windows(0, 1 << 20)
        upload = Upload(client)
        for at in range(0, len(message), 16_384):
            end = END_STREAM if at + 16_384 >= len(message) else 0
            upload.send(body(stream, message[at : at + 16_384], end))
        assert celsius(client.finish(stream).message) == [10.0] * 100_000


def test_windows_that_grow_once_settings_are_acknowledged(ruled: Serving) -> None:
    """A stream that was opened before the client knew the server's windows has these once it says so (6.9.2)."""
    message = convert_body(*[50.0] * 50_000)
    pieces = [message[at : at + 16_000] for at in range(0, len(message), 16_000)]
    with RawClient(ruled.address, greet=False) as client:
        client.acknowledge_settings = False
        client.send(PREFACE + settings() + headers(1) + b"".join(body(1, piece, 0) for piece in pieces[:4]) + ping())
        client.wait(lambda: len(client.pings) == 1 and client.windows.get(0, 0) > len(message))
        assert client.settings[INITIAL_WINDOW_SIZE] > len(message)
        client.send(raw_frame(SETTINGS, ACK, 0) + b"".join(body(1, piece, 0) for piece in pieces[4:]))
        client.send(body(1, b""))
        client.open_windows(1)
        client.open_windows(0)
        assert celsius(client.finish(1).message) == [10.0] * 50_000


LOST = {
    "padding": lambda stream: [raw_frame(DATA, PADDED, stream, b"\xff" + b"x" + bytes(255))] * 200,
    "a call that is cancelled": lambda stream: [
        *(body(stream, bytes(9_000), 0) for _ in range(5)),
        number(RST_STREAM, stream, CANCEL),
    ],
    "a call that nobody knows": lambda stream: [body(stream, bytes(9_000), 0) for _ in range(5)],
}


@pytest.mark.parametrize("name", LOST)
def test_window_of_the_connection_is_given_back(models: Models, name: str) -> None:
    """Bytes that bring nothing count against the connection's window, and are given back (5.2, 6.1, 6.9)."""
    limits = Http2Limits(stream_window_bytes=SMALL, connection_window_bytes=SMALL)
    path = "/no/method" if "nobody" in name else WAIT
    with Serving(models, limits, METHODS) as serving, RawClient(serving.address) as client:
        upload = Upload(client)
        prefix = framed(bytes(1 << 20))[:PREFIX]
        for _ in range(6):  # four times the window in all
            stream = client.new_stream()
            client.send(client.headers_frame(request(path), stream))
            upload.send(body(stream, prefix, 0))
            for frame in LOST[name](stream):
                if frame[3] == DATA:
                    upload.send(frame)
                else:
                    client.send(frame)
        assert client.windows[0] > 2 * SMALL
        assert_honest(serving.address)


# Leaving --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 2, 0xFFFFFFFF])
def test_client_that_leaves(ruled: Serving, code: int) -> None:
    """After the client's GOAWAY calls that are open are answered; then the connection ends (6.8)."""
    with RawClient(ruled.address) as client:
        client.send(call(1) + headers(3) + body(3, BODY[:4], 0) + call(5) + goaway(code))
        assert client.finish(1).status == Code.OK
        assert client.finish(5).status == Code.OK
        client.send(ping())
        client.wait(lambda: len(client.pings) == 1)
        client.send(body(3, BODY[4:]))
        assert client.finish(3).status == Code.OK
        client.wait_closed()
    assert_honest(ruled.address)


def test_client_that_leaves_without_a_call(ruled: Serving) -> None:
    """After the client's GOAWAY a connection on which nothing is open ends at once."""
    with RawClient(ruled.address) as client:
        assert client.unary(BODY).status == Code.OK
        client.send(goaway())
        client.wait_closed()
        assert client.goaway is None or client.goaway.error_code == 0
    assert_honest(ruled.address)


# How bytes arrive -----------------------------------------------------------------------------------------------------

ENDED = (1, 3, 7, 9, 11)


def conversation() -> bytes:
    """A client that keeps to the rules, and uses most of what they allow."""
    encoder = Encoder()
    first, again = encoder.encode(request()), encoder.encode(request(CONVERT, ("x-more", "y" * 30)))
    third, trailers = encoder.encode(request(CONVERT, ("x-more", "y" * 30))), encoder.encode([("x-last", "z")])
    return b"".join(
        [
            PREFACE,
            settings((INITIAL_WINDOW_SIZE, 70_000), (0x99, 7)),
            number(WINDOW_UPDATE, 0, 1_000_000),
            headers(1, first),
            body(1, BODY[:3], 0),
            ping(b"\x00\x00\x08\x06\x00\x00\x00\x00"),
            headers(3, again[:7], 0)
            + raw_frame(CONTINUATION, 0, 3)
            + raw_frame(CONTINUATION, END_HEADERS, 3, again[7:]),
            raw_frame(DATA, PADDED | END_STREAM, 3, b"\x06" + convert_body(32.0) + bytes(6)),
            headers(5, block(request(WAIT))),
            raw_frame(UNKNOWN, 0xFF, 5, b"\x00\x00\x04\x08"),
            number(RST_STREAM, 5, CANCEL),
            body(1, BODY[3:]),
            raw_frame(PRIORITY, 0, 7, struct.pack(">IB", 3, 200)),
            headers(7, struct.pack(">IB", 0, 5) + third, END_HEADERS | PRIORITISED),
            body(7, convert_body(212.0, 50.0), 0),
            headers(7, trailers, END_HEADERS | END_STREAM),
            settings((INITIAL_WINDOW_SIZE, 80_000)),
            headers(9, block(request("/no/method"))) + body(9, b"", 0) + body(9, b""),
            headers(11, block(request()), END_HEADERS | END_STREAM),
            ping(b"the last"),
        ]
    )


def converse(serving: Serving, pieces: list[bytes]) -> dict[str, object]:
    """What comes of a conversation whose pieces arrive one by one."""
    with RawClient(serving.address, greet=False) as client:
        for piece in pieces:
            client.send(piece)
            if len(pieces) > 1:
                serving.ask(lambda: None)  # the loop has been round: it has read what had come
        client.wait(lambda: client.settings_taken == 2 and len(client.pings) == 2)
        for stream in ENDED:
            client.finish(stream)
        assert client.goaway is None
        answers = {
            stream: (answer.headers, bytes(answer.data)) for stream, answer in client.answers.items() if answer.headers
        }
        return {"answers": answers, "pings": client.pings, "settings": client.settings}


def test_bytes_cut_anywhere(ruled: Serving) -> None:
    """Wherever a conversation is cut in two, or into single bytes, the same answers come as to the whole."""
    whole = conversation()
    right = converse(ruled, [whole])
    answers = right["answers"]
    assert isinstance(answers, dict)
    assert [answers[stream][0].get("grpc-status") for stream in ENDED] == ["0", "0", "0", "12", "13"]
    assert celsius(answers[7][1][5:]) == pytest.approx([100.0, 10.0])
    for at in range(1, len(whole)):
        assert converse(ruled, [whole[:at], whole[at:]]) == right, at
    assert converse(ruled, [whole[at : at + 1] for at in range(len(whole))]) == right
    for size in (2, 3, 7, 9, 10, 16, 24, 33, 100):
        cuts = [*range(0, len(whole), size), len(whole)]
        assert converse(ruled, [whole[start:end] for start, end in pairwise(cuts)]) == right, size


@pytest.mark.parametrize("cases", [test_rules.CASES, test_rules_messages.CASES], ids=["frames", "messages"])
def test_cases_that_trickle(ruled: Serving, cases: list[Case]) -> None:
    """Each case of the rules brings a right reaction also where it arrives in small pieces."""
    for case in cases:
        with RawClient(ruled.address) as client:
            judge(case, client, trickled(case))
    assert_honest(ruled.address)
