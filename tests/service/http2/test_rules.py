"""The rules of RFC 9113 for frames and streams (sections 3 to 6), each against a real socket.

A case is what a client sends, and which reactions are right. After it somebody else is answered, on a connection that
was there before, and on a new one.
"""

import socket
import struct

import pytest

from service.status import Code
from tests.service.http2.raw import CONVERT, PREFACE, RawClient, raw_frame, request
from tests.service.http2.rules import (
    ACK,
    BODY,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    MOST_STREAMS,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    UNKNOWN,
    WAITING,
    WINDOW_UPDATE,
    Case,
    block,
    body,
    broken,
    call,
    fine,
    headers,
    judge_beside,
    literal,
    malformed,
    number,
    ping,
    reset,
    settings,
    tolerable,
    waiting,
)
from tests.service.http2.serving import Serving
from tests.service.http2.test_calls import assert_honest

MOST = (1 << 31) - 1
RESERVED = 1 << 31
FULL = 16_384
"""What a frame may carry at most, unless the server says otherwise."""


def priority(stream: int, on: int = 0) -> bytes:
    """A PRIORITY frame."""
    return raw_frame(PRIORITY, 0, stream, struct.pack(">IB", on, 15))


def goaway(stream: int = 0, code: int = 0) -> bytes:
    """A GOAWAY frame."""
    return raw_frame(GOAWAY, 0, stream, struct.pack(">II", 0, code))


def begun(stream: int = 1) -> bytes:
    """A header block of which the rest is to follow."""
    return headers(stream, REQUEST[:40], 0)


def rest(stream: int = 1, flags: int = END_HEADERS) -> bytes:
    """That rest."""
    return raw_frame(CONTINUATION, flags, stream, REQUEST[40:])


def in_pieces(stream: int, size: int, of: bytes = REQUEST) -> bytes:
    """A call whose header block comes in pieces of so many bytes."""
    pieces = [of[at : at + size] for at in range(0, len(of), size)]
    frames = [headers(stream, pieces[0], 0), *(raw_frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1])]
    return b"".join([*frames, raw_frame(CONTINUATION, END_HEADERS, stream, pieces[-1]), body(stream)])


def padded(kind: int, flags: int, stream: int, content: bytes, padding: bytes = bytes(9)) -> bytes:
    """A frame with padding."""
    return raw_frame(kind, flags | PADDED, stream, bytes((len(padding),)) + content + padding)


FRAME_FORMAT = [
    fine("unknown frames", raw_frame(UNKNOWN, 0, 0, b"what?") + raw_frame(UNKNOWN, 0, 7) + call(9), 9),
    fine("unknown frame on an open stream", headers(1) + raw_frame(UNKNOWN, 0xFF, 1, bytes(100)) + body(1), 1),
    fine("unknown frame of the largest size", raw_frame(0xFF, 0xFF, 0, bytes(FULL)) + call(1), 1),
    fine("unknown flags of DATA", headers(1) + body(1, flags=END_STREAM | 0xF6), 1),
    fine("unknown flags of HEADERS", headers(1, flags=END_HEADERS | 0xD2) + body(1), 1),
    fine("unknown flags of SETTINGS", raw_frame(SETTINGS, 0xFE, 0) + call(1), 1),
    fine("unknown flags of PING", raw_frame(PING, 0xFE, 0, bytes(8)) + call(1), 1),
    fine("unknown flags of WINDOW_UPDATE", raw_frame(WINDOW_UPDATE, 0xFF, 0, struct.pack(">I", 1)) + call(1), 1),
    fine("reserved bit of a stream", headers(RESERVED | 1) + body(RESERVED | 1), 1),
    fine("reserved bit of no stream", raw_frame(PING, 0, RESERVED, bytes(8)) + call(1), 1),
    fine("DATA of the largest size", headers(1, WAITING) + body(1, BODY * (FULL // len(BODY)), 0)),
    Case("DATA too large", headers(1, WAITING) + body(1, bytes(FULL + 1), 0), (FRAME_SIZE_ERROR,), (FRAME_SIZE_ERROR,)),
    broken("DATA announced far too large", headers(1, WAITING) + b"\xff\xff\xff\0\0\0\0\0\1", FRAME_SIZE_ERROR),
    broken("HEADERS too large", headers(1, block([*request(), ("x", "y" * FULL)])), FRAME_SIZE_ERROR),
    broken("CONTINUATION too large", begun() + raw_frame(CONTINUATION, 4, 1, bytes(FULL + 1)), FRAME_SIZE_ERROR),
    broken("SETTINGS too large", raw_frame(SETTINGS, 0, 0, bytes(6 * 2731)), FRAME_SIZE_ERROR),
    broken("PING too large", raw_frame(PING, 0, 0, bytes(FULL + 1)), FRAME_SIZE_ERROR),
    Case("PRIORITY too large", raw_frame(PRIORITY, 0, 1, bytes(FULL + 1)), (FRAME_SIZE_ERROR,), (FRAME_SIZE_ERROR,)),
    broken("GOAWAY too large", raw_frame(GOAWAY, 0, 0, bytes(FULL + 1)), FRAME_SIZE_ERROR),
    broken("unknown frame too large", raw_frame(UNKNOWN, 0, 0, bytes(FULL + 1)), FRAME_SIZE_ERROR),
]

NOT_BLOCKS = {
    "index of nothing": b"\x80",
    "index beyond the table": b"\xfe",
    "index far beyond the table": b"\xff\xff\xff\xff\x0f",
    "name beyond the table": b"\x7e\x01x",
    "number without end": b"\xff" + b"\xff" * 20 + b"\x00",
    "number that is cut off": b"\xff",
    "text that is cut off": b"\x00\x05abc",
    "value that is missing": b"\x00\x01a",
    "text longer than anything": b"\x00\x7f\xff\xff\xff\xff\x07a",
    "Huffman code that ends in a zero": b"\x00\x81\x00\x01a",
    "Huffman code with eight bits of padding": b"\x00\x82\x1f\xff\x01a",
    "Huffman code with the end of text in it": b"\x00\x84\xff\xff\xff\xff\x01a",
    "table larger than allowed": b"\x3f\xe2\x1f",
    "table changed after a field": literal("a", "b") + b"\x20",
}

COMPRESSION = [
    *(broken(name, headers(1, REQUEST + wrong), COMPRESSION_ERROR) for name, wrong in NOT_BLOCKS.items()),
    *(
        broken(f"{name}, in trailers", headers(1) + headers(1, wrong, END_HEADERS | END_STREAM), COMPRESSION_ERROR)
        for name, wrong in NOT_BLOCKS.items()
    ),
    broken(
        "index of nothing, on a closed stream",
        call(1) + headers(1, b"\x80", 5) + headers(3),
        COMPRESSION_ERROR,
        STREAM_CLOSED,
        answered=(1,),
    ),
    fine("table changed before a field", headers(1, b"\x20\x3f\xe1\x1f" + REQUEST) + body(1), 1),
    fine(
        "table changed twice",
        headers(1, b"\x20" + REQUEST) + body(1) + headers(3, b"\x3f\x01" + REQUEST) + body(3),
        1,
        3,
    ),
    fine("Huffman codes", headers(1, REQUEST + bytes.fromhex("0083f2b4ff83f4547f")) + body(1), 1),
    fine("never indexed", headers(1, REQUEST + literal("x-secret", "y", 0x10)) + body(1), 1),
    fine("field larger than the table", headers(1, REQUEST + literal("x", "y" * 5_000, 0x40)) + body(1), 1),
    malformed(
        "table kept after a malformed request",
        headers(1, literal("X", "y", 0x40) + literal("x-kept", "z", 0x40) + REQUEST)
        + headers(3, REQUEST + b"\xbe")
        + body(3),
        answered=(3,),
    ),
    fine(
        "table kept after trailers",
        headers(1)
        + body(1, flags=0)
        + headers(1, literal("x-kept", "z", 0x40), 5)
        + headers(3, REQUEST + b"\xbe")
        + body(3),
        1,
        3,
    ),
    tolerable(
        "table kept after trailers of a stream that was cancelled",
        waiting(1, end=False)
        + number(RST_STREAM, 1, CANCEL)
        + headers(1, literal("x-kept", "z", 0x40), 5)
        + headers(3, REQUEST + b"\xbe")
        + body(3),
        STREAM_CLOSED,
        PROTOCOL_ERROR,
        answered=(3,),
    ),
]

FIRST_ADDED = b"\xbe"
"""The field that was put into the table last."""
BY_INDEX = block([field for field in request() if field[0] != ":path"])
"""A request but for its path."""


def added(path: str) -> bytes:
    """A request that puts its path into the table."""
    return literal(":path", path, 0x40) + BY_INDEX


COMPRESSION.append(
    fine(
        "blocks that are the same and mean something else each time",
        headers(1, added(CONVERT))
        + body(1)
        + b"".join(headers(stream, FIRST_ADDED + BY_INDEX) + body(stream) for stream in (3, 5))
        + headers(7, added("/no/method"))
        + body(7)
        + headers(9, FIRST_ADDED + BY_INDEX)
        + body(9)
        + headers(11, added(CONVERT))
        + body(11),
        1,
        3,
        5,
        11,
    )
)

INTERRUPTIONS = {
    "DATA": body(1),
    "HEADERS": headers(3),
    "HEADERS of the same stream": headers(1),
    "PRIORITY": priority(1),
    "RST_STREAM": number(RST_STREAM, 1, CANCEL),
    "SETTINGS": settings(),
    "SETTINGS that acknowledge": raw_frame(SETTINGS, ACK, 0),
    "PUSH_PROMISE": raw_frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2)),
    "PING": ping(),
    "GOAWAY": goaway(),
    "WINDOW_UPDATE": number(WINDOW_UPDATE, 0, 1),
    "CONTINUATION of another stream": rest(3),
    "CONTINUATION of no stream": rest(0),
    "an unknown frame": raw_frame(UNKNOWN, 0, 0),
    "an unknown frame of its stream": raw_frame(UNKNOWN, 0, 1),
}

CONTINUATIONS = [
    *(
        broken(f"header block interrupted by {name}", begun() + frame + rest() + body(1), PROTOCOL_ERROR)
        for name, frame in INTERRUPTIONS.items()
    ),
    Case(
        "header block interrupted by the end of another request",
        call(1) + headers(3) + headers(5, REQUEST[:40], 0) + body(3) + rest(5) + body(5),
        breaks=(PROTOCOL_ERROR,),
        answered=(1,),
    ),
    Case(
        "header block interrupted by another request",
        call(1) + headers(3, REQUEST[:40], 0) + call(5) + rest(3) + body(3),
        breaks=(PROTOCOL_ERROR,),
        answered=(1,),
    ),
    Case(
        "header block interrupted by a request that was read before",
        call(1) + headers(3, REQUEST[:40], 0) + headers(5) + rest(3) + body(3) + body(5),
        breaks=(PROTOCOL_ERROR,),
        answered=(1,),
    ),
    broken("trailers interrupted", headers(1) + headers(1, b"", END_STREAM) + ping() + rest(), PROTOCOL_ERROR),
    broken("CONTINUATION of no stream", rest(0), PROTOCOL_ERROR),
    broken("CONTINUATION on an idle stream", rest(), PROTOCOL_ERROR),
    broken("CONTINUATION on an open stream", headers(1) + rest(), PROTOCOL_ERROR),
    broken("CONTINUATION after DATA", headers(1) + body(1, flags=0) + rest(), PROTOCOL_ERROR),
    broken("CONTINUATION after the last", begun() + rest() + rest(), PROTOCOL_ERROR),
    fine("block in two frames", begun() + rest() + body(1), 1),
    fine("block in five frames", in_pieces(1, len(REQUEST) // 4), 1),
    fine("block that begins with nothing", headers(1, b"", 0) + raw_frame(CONTINUATION, 4, 1, REQUEST) + body(1), 1),
    fine("block that ends with nothing", headers(1, flags=0) + raw_frame(CONTINUATION, 4, 1) + body(1), 1),
    fine("END_STREAM of CONTINUATION means nothing", begun() + rest(1, END_HEADERS | END_STREAM) + body(1), 1),
    fine(
        "trailers in two frames",
        headers(1) + body(1, flags=0) + headers(1, b"", END_STREAM) + raw_frame(9, 4, 1, literal("x", "y")),
        1,
    ),
    Case(
        "block in a hundred frames",
        in_pieces(1, 2, REQUEST + literal("x", "y" * 100)),
        breaks=(ENHANCE_YOUR_CALM, PROTOCOL_ERROR),
        goes_on=True,
    ),
]

STREAM_STATES = [
    *(
        broken(f"{name} on an idle stream", frame, PROTOCOL_ERROR)
        for name, frame in {
            "DATA": body(1),
            "RST_STREAM": number(RST_STREAM, 1, CANCEL),
            "WINDOW_UPDATE": number(WINDOW_UPDATE, 1, 1),
            "DATA of ours": body(2),
            "RST_STREAM of ours": number(RST_STREAM, 2, CANCEL),
            "WINDOW_UPDATE of ours": number(WINDOW_UPDATE, 2, 1),
        }.items()
    ),
    broken("DATA beyond the last stream", call(1) + body(3), PROTOCOL_ERROR, answered=(1,)),
    reset("DATA after the end", waiting(1) + body(1), STREAM_CLOSED),
    reset("DATA of nothing after the end", waiting(1) + body(1, b""), STREAM_CLOSED),
    reset("HEADERS after the end", waiting(1) + headers(1), STREAM_CLOSED),
    reset("trailers after the end", waiting(1) + headers(1, literal("x", "y"), 5), STREAM_CLOSED),
    reset("DATA after trailers", headers(1, WAITING) + headers(1, literal("x", "y"), 5) + body(1), STREAM_CLOSED),
    broken("CONTINUATION after the end", waiting(1) + rest(1), PROTOCOL_ERROR, STREAM_CLOSED),
    fine("PRIORITY after the end", waiting(1) + priority(1) + priority(9)),
    fine("WINDOW_UPDATE after the end", waiting(1) + number(WINDOW_UPDATE, 1, 100)),
    fine("RST_STREAM after the end", waiting(1) + number(RST_STREAM, 1, CANCEL) + call(3), 3),
    # What comes on a stream that is closed may be an error, or may be thrown away, but never is it another call.
    *(
        tolerable(
            f"{name} on a stream that was cancelled",
            waiting(1, end=False) + number(RST_STREAM, 1, CANCEL) + frame,
            STREAM_CLOSED,
            PROTOCOL_ERROR,
        )
        for name, frame in {
            "DATA": body(1),
            "HEADERS": headers(1),
            "a call": call(1),
            "trailers": headers(1, literal("x", "y"), 5),
            "RST_STREAM": number(RST_STREAM, 1, CANCEL),
            "WINDOW_UPDATE": number(WINDOW_UPDATE, 1, 1),
        }.items()
    ),
    broken(
        "CONTINUATION on a stream that was cancelled",
        waiting(1) + number(RST_STREAM, 1, CANCEL) + rest(1),
        PROTOCOL_ERROR,
        STREAM_CLOSED,
    ),
    fine("PRIORITY on a stream that was cancelled", waiting(1) + number(RST_STREAM, 1, CANCEL) + priority(1)),
    broken("stream of an even number", headers(2) + body(2), PROTOCOL_ERROR),
    broken("stream of an even number beyond others", call(1) + headers(4) + body(4), PROTOCOL_ERROR, answered=(1,)),
    broken("HEADERS of no stream", headers(0), PROTOCOL_ERROR),
    fine("streams left out", call(1) + call(5) + call(501), 1, 5, 501),
    tolerable("priority on itself", waiting(1) + priority(1, 1), PROTOCOL_ERROR),
    tolerable(
        "HEADERS with priority on itself",
        headers(1, struct.pack(">IB", 1, 15) + REQUEST, END_HEADERS | PRIORITISED) + body(1),
        PROTOCOL_ERROR,
        answered=(1,),
    ),
]

PADDING = [
    broken("DATA of no stream", body(0), PROTOCOL_ERROR),
    fine("padded DATA", headers(1) + padded(DATA, END_STREAM, 1, BODY), 1),
    fine("padded DATA, padding of nothing", headers(1) + padded(DATA, END_STREAM, 1, BODY, b""), 1),
    fine("DATA of padding alone", headers(1) + body(1, flags=0) + padded(DATA, END_STREAM, 1, b"", bytes(255)), 1),
    broken(
        "DATA with padding as long as itself", headers(1) + raw_frame(DATA, 9, 1, b"\x05" + bytes(4)), PROTOCOL_ERROR
    ),
    broken("DATA with padding longer than itself", headers(1) + raw_frame(DATA, 9, 1, b"\xff" + BODY), PROTOCOL_ERROR),
    broken("padded DATA of nothing", headers(1) + raw_frame(DATA, 9, 1), FRAME_SIZE_ERROR, PROTOCOL_ERROR),
    tolerable(
        "padding that is not zero", headers(1) + padded(DATA, 1, 1, BODY, b"secrets"), PROTOCOL_ERROR, answered=(1,)
    ),
    fine("padded HEADERS", padded(HEADERS, END_HEADERS, 1, REQUEST) + body(1), 1),
    broken("HEADERS with padding longer than itself", raw_frame(HEADERS, 12, 1, b"\xff" + REQUEST), PROTOCOL_ERROR),
    broken("HEADERS with padding as long as itself", raw_frame(HEADERS, 12, 1, b"\x05" + bytes(4)), PROTOCOL_ERROR),
    broken("padded HEADERS of nothing", raw_frame(HEADERS, 12, 1), FRAME_SIZE_ERROR, PROTOCOL_ERROR),
    broken(
        "padding that reaches into the priority",
        raw_frame(HEADERS, 0x2D, 1, b"\x03" + struct.pack(">IB", 0, 1)[:4] + bytes(2)),
        FRAME_SIZE_ERROR,
        PROTOCOL_ERROR,
    ),
    fine("HEADERS with priority", headers(1, struct.pack(">IB", 0, 15) + REQUEST, 0x24) + body(1), 1),
    fine("padded HEADERS with priority", padded(HEADERS, 0x24, 1, struct.pack(">IB", 0, 15) + REQUEST) + body(1), 1),
    broken("HEADERS that end in their priority", headers(1, bytes(4), 0x24), FRAME_SIZE_ERROR, PROTOCOL_ERROR),
]

PRIORITIES_AND_RESETS = [
    Case(
        "PRIORITY too short", waiting(1) + raw_frame(PRIORITY, 0, 1, bytes(4)), (FRAME_SIZE_ERROR,), (FRAME_SIZE_ERROR,)
    ),
    Case(
        "PRIORITY too long", waiting(1) + raw_frame(PRIORITY, 0, 1, bytes(6)), (FRAME_SIZE_ERROR,), (FRAME_SIZE_ERROR,)
    ),
    fine("PRIORITY of an idle stream", priority(77, 3) + call(1), 1),
    fine("PRIORITY of a closed stream", call(1) + call(3) + priority(1), 1, 3),
    broken("PRIORITY of no stream", priority(0), PROTOCOL_ERROR),
    broken("RST_STREAM of no stream", number(RST_STREAM, 0, CANCEL), PROTOCOL_ERROR),
    broken("RST_STREAM too short", waiting(1) + raw_frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    broken("RST_STREAM too long", waiting(1) + raw_frame(RST_STREAM, 0, 1, bytes(5)), FRAME_SIZE_ERROR),
    fine("RST_STREAM for an unknown reason", waiting(1) + number(RST_STREAM, 1, 0xFFFFFFFF) + call(3), 3),
    fine("RST_STREAM of a call that goes on", headers(1) + number(RST_STREAM, 1, CANCEL) + call(3), 3),
]

SETTINGS_AND_OTHERS = [
    fine("SETTINGS of nothing", settings() + call(1), 1),
    fine("SETTINGS that nobody knows", settings((0x7F00, 1), (0xFFFF, MOST), (0, 5)) + call(1), 1),
    fine("a setting twice", settings((INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 65_535)) + call(1), 1),
    broken("SETTINGS that acknowledge and say something", raw_frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    tolerable("SETTINGS that acknowledge nothing", raw_frame(SETTINGS, ACK, 0) * 2, PROTOCOL_ERROR),
    broken("SETTINGS of a stream", raw_frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    broken("SETTINGS of an open stream", headers(1) + raw_frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    broken("SETTINGS that acknowledge on a stream", headers(1) + raw_frame(SETTINGS, ACK, 1), PROTOCOL_ERROR),
    broken("SETTINGS too short", raw_frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    broken("SETTINGS one too long", raw_frame(SETTINGS, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    fine("ENABLE_PUSH 0, then 1", settings((ENABLE_PUSH, 0)) + settings((ENABLE_PUSH, 1)) + call(1), 1),
    broken("ENABLE_PUSH 2", settings((ENABLE_PUSH, 2)), PROTOCOL_ERROR),
    broken("ENABLE_PUSH, the largest", settings((ENABLE_PUSH, 0xFFFFFFFF)), PROTOCOL_ERROR),
    fine("largest INITIAL_WINDOW_SIZE", settings((INITIAL_WINDOW_SIZE, MOST)) + call(1), 1),
    broken("INITIAL_WINDOW_SIZE too large", settings((INITIAL_WINDOW_SIZE, MOST + 1)), FLOW_CONTROL_ERROR),
    broken("INITIAL_WINDOW_SIZE far too large", settings((INITIAL_WINDOW_SIZE, 0xFFFFFFFF)), FLOW_CONTROL_ERROR),
    fine("MAX_FRAME_SIZE at its edges", settings((MAX_FRAME_SIZE, FULL), (MAX_FRAME_SIZE, (1 << 24) - 1)) + call(1), 1),
    broken("MAX_FRAME_SIZE too small", settings((MAX_FRAME_SIZE, FULL - 1)), PROTOCOL_ERROR),
    broken("MAX_FRAME_SIZE of nothing", settings((MAX_FRAME_SIZE, 0)), PROTOCOL_ERROR),
    broken("MAX_FRAME_SIZE too large", settings((MAX_FRAME_SIZE, 1 << 24)), PROTOCOL_ERROR),
    broken(
        "INITIAL_WINDOW_SIZE that makes a window too large",
        waiting(1) + number(WINDOW_UPDATE, 1, 1) + settings((INITIAL_WINDOW_SIZE, MOST)),
        FLOW_CONTROL_ERROR,
    ),
    broken(
        "PUSH_PROMISE",
        headers(1) + raw_frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + REQUEST),
        PROTOCOL_ERROR,
    ),
    broken("PING of a stream", raw_frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    broken("PING of an open stream", headers(1) + raw_frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    *(
        broken(f"PING of {size} bytes", raw_frame(PING, flags, 0, bytes(size)), FRAME_SIZE_ERROR)
        for flags, size in ((0, 0), (0, 7), (ACK, 9), (0, 16))
    ),
    fine("PING that nobody sent is acknowledged", raw_frame(PING, ACK, 0, bytes(8)) + call(1), 1),
    broken("GOAWAY of a stream", goaway(1), PROTOCOL_ERROR),
    broken("GOAWAY of an open stream", headers(1) + goaway(1), PROTOCOL_ERROR),
    broken("GOAWAY too short", raw_frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
]

WINDOWS = [
    broken("WINDOW_UPDATE of nothing", number(WINDOW_UPDATE, 0, 0), PROTOCOL_ERROR),
    broken("WINDOW_UPDATE of the reserved bit alone", number(WINDOW_UPDATE, 0, RESERVED), PROTOCOL_ERROR),
    Case(
        "WINDOW_UPDATE of nothing on a stream",
        waiting(1) + number(WINDOW_UPDATE, 1, 0),
        (PROTOCOL_ERROR,),
        (PROTOCOL_ERROR,),
    ),
    broken("WINDOW_UPDATE too short", raw_frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    broken("WINDOW_UPDATE too long", raw_frame(WINDOW_UPDATE, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    broken(
        "WINDOW_UPDATE too long on a stream",
        waiting(1) + raw_frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1\0"),
        FRAME_SIZE_ERROR,
    ),
    fine(
        "reserved bit of WINDOW_UPDATE",
        waiting(1) + number(WINDOW_UPDATE, 0, RESERVED | 1) + number(WINDOW_UPDATE, 1, RESERVED | 1),
    ),
    fine(
        "largest window", number(WINDOW_UPDATE, 0, MOST - 65_535) + waiting(1) + number(WINDOW_UPDATE, 1, MOST - 65_535)
    ),
    broken("window too large by one", number(WINDOW_UPDATE, 0, MOST - 65_534), FLOW_CONTROL_ERROR),
    broken("window too large by much", number(WINDOW_UPDATE, 0, MOST) * 2, FLOW_CONTROL_ERROR),
    Case(
        "window of a stream too large by one",
        waiting(1) + number(WINDOW_UPDATE, 1, MOST - 65_534),
        (FLOW_CONTROL_ERROR,),
        (FLOW_CONTROL_ERROR,),
    ),
    fine("WINDOW_UPDATE of a stream that is answered", call(1) + call(3) + number(WINDOW_UPDATE, 1, 5), 1, 3),
]

# Who does not remember which streams were open once may take a lower number for one of those that are closed (5.1).
CLOSED_OR_NEVER_OPENED = [
    tolerable("stream of a lower number", call(5) + call(3), PROTOCOL_ERROR, answered=(5,)),
]

CASES = [
    *FRAME_FORMAT,
    *COMPRESSION,
    *CONTINUATIONS,
    *STREAM_STATES,
    *PADDING,
    *PRIORITIES_AND_RESETS,
    *SETTINGS_AND_OTHERS,
    *WINDOWS,
    *CLOSED_OR_NEVER_OPENED,
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rules(ruled: Serving, bystander: RawClient, case: Case) -> None:
    """Each rule, broken or kept: the reaction is a right one, and nobody else notices."""
    judge_beside(ruled, bystander, case)


NOT_PREFACES = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another version": b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n",
    "wrong in its last byte": PREFACE[:-1] + b"\r",
    "wrong in its first byte": b"p" + PREFACE[1:],
    "without its end": PREFACE[:16],
    "frames alone": settings() + call(1),
}
NOT_SETTINGS = {
    "PING": ping(),
    "HEADERS": call(1),
    "WINDOW_UPDATE": number(WINDOW_UPDATE, 0, 1),
    "GOAWAY": goaway(),
    "an unknown frame": raw_frame(UNKNOWN, 0, 0),
    "DATA": body(1),
    "the preface once more": PREFACE,
}
OPENINGS = {
    **{f"preface: {name}": wrong for name, wrong in NOT_PREFACES.items()},
    **{f"{name} before SETTINGS": PREFACE + wrong for name, wrong in NOT_SETTINGS.items()},
}


@pytest.mark.parametrize("name", OPENINGS)
def test_preface(ruled: Serving, bystander: RawClient, name: str) -> None:
    """Who does not begin with the preface and SETTINGS is sent away, and gets no answer (3.4)."""
    with RawClient(ruled.address, greet=False) as client:
        client.try_send(OPENINGS[name] + settings() + call(1001))
        client.wait_closed()
        assert not client.answers
        assert client.goaway is None or client.goaway.error_code in {PROTOCOL_ERROR, FRAME_SIZE_ERROR}
        if name.endswith("before SETTINGS"):
            assert client.goaway is not None
    assert bystander.unary(BODY).status == Code.OK
    assert_honest(ruled.address)


@pytest.mark.parametrize(
    "sent", [b"", PREFACE[:10], PREFACE, PREFACE + b"\0\0"], ids=["none", "short", "alone", "more"]
)
def test_preface_that_ends(ruled: Serving, sent: bytes) -> None:
    """A client that leaves before its preface is complete is let go."""
    with RawClient(ruled.address, greet=False) as client:
        client.send(sent)
        client.socket.shutdown(socket.SHUT_WR)
        client.wait_closed()
        assert not client.answers
    assert_honest(ruled.address)


def test_everything_at_once(ruled: Serving) -> None:
    """A client need not wait for the server's greeting before it calls (3.4)."""
    with RawClient(ruled.address, greet=False) as client:
        client.send(PREFACE + settings() + call(1) + ping(b"12345678"))
        assert client.finish(1).status == Code.OK
        client.wait(lambda: client.settings_taken == 1 and client.pings == [b"12345678"])


def test_each_settings_frame_is_acknowledged(ruled: Serving) -> None:
    """SETTINGS are acknowledged one by one, acknowledgements are not (6.5.3)."""
    with RawClient(ruled.address) as client:
        client.send(settings() + settings((ENABLE_PUSH, 0), (0x99, 1)) + settings((INITIAL_WINDOW_SIZE, 70_000)))
        client.send(ping())
        client.wait(lambda: len(client.pings) == 1)
        client.wait(lambda: client.settings_taken == 4)
        assert client.unary(BODY).status == Code.OK
        assert client.settings_taken == 4


def test_each_ping_is_answered(ruled: Serving) -> None:
    """PING is answered with the same bytes, in order; its answer is not (6.7)."""
    sent = [b"01234567", bytes(8), b"\xff" * 8]
    with RawClient(ruled.address) as client:
        client.send(raw_frame(PING, ACK, 0, b"unasked!") + b"".join(map(ping, sent)))
        assert client.unary(BODY).status == Code.OK
        client.wait(lambda: len(client.pings) >= len(sent))
        assert client.pings == sent


def test_last_stream_there_is(ruled: Serving) -> None:
    """The largest number is a stream like any other; whoever goes on after it is no harm (5.1.1)."""
    with RawClient(ruled.address) as client:
        client.send(call(MOST))
        assert client.finish(MOST).status == Code.OK
        client.try_send(call(1))
        client.drain(0.1)
        assert client.expect(1).status is None
    assert_honest(ruled.address)


def test_more_streams_than_allowed(ruled: Serving) -> None:
    """A stream too many is refused, or costs the connection; once one has ended there is room again (5.1.2)."""
    with RawClient(ruled.address) as client:
        assert client.settings[3] == MOST_STREAMS
        assert client.unary(BODY).status == Code.OK
        client.send(call(3))
        assert client.finish(3).status == Code.OK
        streams = range(5, 2 * MOST_STREAMS + 5, 2)
        client.send(b"".join(map(waiting, streams)) + ping())
        client.wait(lambda: len(client.pings) == 1)
        assert all(client.expect(stream).reset is None for stream in streams)
        client.send(call(101))
        client.wait(lambda: client.closed or client.expect(101).reset is not None)
        assert client.expect(101).status is None
        assert client.expect(101).reset in {None, REFUSED_STREAM, PROTOCOL_ERROR}
        if client.closed:
            assert client.goaway is not None
            assert client.goaway.error_code == PROTOCOL_ERROR
        else:
            client.send(number(RST_STREAM, 5, CANCEL) + call(103))
            assert client.finish(103).status == Code.OK
    assert_honest(ruled.address)
