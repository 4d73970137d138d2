"""Cases of RFC 9113: bytes that a client sends, and which of a server's reactions are right.

Frames and header blocks are made by hand here, with nothing of the server's and without compression, so that a case is
the same bytes whatever was sent before it.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from service.calls import Inlet, Outlet, StreamMethod, Submit
from service.http2 import Http2Limits
from service.status import Code
from tests.service.http2.raw import Answer, Field, RawClient, raw_frame, request
from tests.service.http2.serving import Serving, convert_body
from tests.service.http2.test_calls import assert_honest

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
UNKNOWN = 0xBE
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)

PROTOCOL_ERROR = 1
FLOW_CONTROL_ERROR = 3
STREAM_CLOSED = 5
FRAME_SIZE_ERROR = 6
REFUSED_STREAM = 7
CANCEL = 8
COMPRESSION_ERROR = 9
ENHANCE_YOUR_CALM = 11

BODY = convert_body(50.0)
WAIT = "/test.Rules/Wait"
POUR = "/test.Rules/Pour"
MOST_STREAMS = 8
LIMITS = Http2Limits(max_calls_per_connection=MOST_STREAMS)
AFTER = 1001
"""The stream of the call that follows a case on its connection."""


class Waiting(Inlet):
    """A handler that never answers."""

    busy = False

    def __init__(self, _outlet: Outlet, _submit: Submit) -> None:
        pass

    def receive(self, message: bytes) -> None:
        """Keep waiting."""

    def half_close(self) -> None:
        """Keep waiting."""

    def cancel(self) -> None:
        """It is over."""


class Pouring(Waiting):
    """A handler that answers a number with a message of so many bytes, and nothing before that."""

    def __init__(self, outlet: Outlet, submit: Submit) -> None:
        super().__init__(outlet, submit)
        self._outlet = outlet

    def receive(self, message: bytes) -> None:
        """Send as much as was asked for."""
        self._outlet.send(poured(int(message)))

    def half_close(self) -> None:
        """End."""
        self._outlet.close()


METHODS = [
    StreamMethod(WAIT, client_streams=True, server_streams=True, open=Waiting),
    StreamMethod(POUR, client_streams=True, server_streams=True, open=Pouring),
]


def poured(size: int) -> bytes:
    """A message of so many bytes, in which no part can be taken for another."""
    return b"".join(struct.pack(">I", index) for index in range(size // 4 + 1))[:size]


# Bytes ----------------------------------------------------------------------------------------------------------------


def literal(name: str | bytes, value: str | bytes, first: int = 0x00) -> bytes:
    """A field as HPACK writes it in full: not indexed (0x00), put into the table (0x40), or never indexed (0x10)."""
    return bytes((first,)) + _text(name) + _text(value)


def _text(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) < 0x7F:
        return bytes((len(raw),)) + raw
    rest, size = len(raw) - 0x7F, bytearray(b"\x7f")
    while rest > 0x7F:
        size.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*size, rest)) + raw


def block(fields: Sequence[Field]) -> bytes:
    """A header block that leaves the compression table as it is."""
    return b"".join(literal(name, value) for name, value in fields)


REQUEST = block(request())
WAITING = block(request(WAIT))


def headers(stream: int, of: bytes = REQUEST, flags: int = END_HEADERS) -> bytes:
    """A HEADERS frame: a call, unless told otherwise, that goes on."""
    return raw_frame(HEADERS, flags, stream, of)


def body(stream: int, data: bytes = BODY, flags: int = END_STREAM) -> bytes:
    """A DATA frame: a whole request and its end, unless told otherwise."""
    return raw_frame(DATA, flags, stream, data)


def call(stream: int, *extra: Field) -> bytes:
    """A whole call."""
    return headers(stream, REQUEST + block(extra)) + body(stream)


def waiting(stream: int, *, end: bool = True) -> bytes:
    """A call that stays open on the server's side; on the client's as well, where it does not end."""
    return headers(stream, WAITING) + body(stream, flags=END_STREAM if end else 0)


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return raw_frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def number(kind: int, stream: int, value: int) -> bytes:
    """A frame that carries one number: RST_STREAM, WINDOW_UPDATE."""
    return raw_frame(kind, 0, stream, struct.pack(">I", value))


def ping(data: bytes = b"are you?") -> bytes:
    """A PING frame."""
    return raw_frame(PING, 0, 0, data)


# Cases ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is sent after the greeting, and what may come of it: one of the reactions that are named."""

    name: str
    sent: bytes
    breaks: tuple[int, ...] = ()
    """Codes of a connection error."""
    resets: tuple[int, ...] = ()
    """Codes of a stream error; RFC 9113, 5.4.2, lets a server make a connection error of it."""
    goes_on: bool = False
    """Whether the connection may go on without a stream error."""
    answered: tuple[int, ...] = ()
    """Streams that are answered, unless the connection breaks; no other stream may be."""
    stream: int = 1
    """The stream that `resets` is about."""
    may_answer_400: bool = False
    """Whether a stream error may be said as an answer with an HTTP status (8.1.1)."""

    def __str__(self) -> str:
        return self.name


def broken(name: str, sent: bytes, *codes: int, answered: tuple[int, ...] = ()) -> Case:
    """A connection error; calls before it may be answered, where they were complete."""
    return Case(name, sent, breaks=codes, answered=answered)


def reset(name: str, sent: bytes, *codes: int, answered: tuple[int, ...] = ()) -> Case:
    """A stream error on stream 1."""
    return Case(name, sent, resets=codes, answered=answered)


def malformed(name: str, sent: bytes, answered: tuple[int, ...] = ()) -> Case:
    """A request on stream 1 that breaks a rule of messages: a stream error, or an answer that says so (8.1.1)."""
    return Case(name, sent, resets=(PROTOCOL_ERROR,), may_answer_400=True, answered=answered)


def fine(name: str, sent: bytes, *answered: int) -> Case:
    """Nothing is wrong, and the streams named are answered."""
    return Case(name, sent, goes_on=True, answered=answered)


def tolerable(name: str, sent: bytes, *codes: int, answered: tuple[int, ...] = ()) -> Case:
    """A server may object, with one of the codes, on the stream or the connection, or let it be."""
    return Case(name, sent, resets=codes, goes_on=True, answered=answered)


def judge(case: Case, client: RawClient, most: int = 1 << 20) -> None:
    """Send a case and a call after it, in pieces of so many bytes at most, and see that the reaction is a right one."""
    sent = case.sent + call(AFTER)
    for at in range(0, len(sent), most):
        if not client.try_send(sent[at : at + most]):
            break
    codes = {*case.breaks, *case.resets}
    assert codes or case.goes_on
    after = client.expect(AFTER)
    told = client.expect(case.stream)
    client.wait(lambda: client.closed or _is_settled(case, client))
    taken = {stream for stream, answer in client.answers.items() if answer.status == Code.OK}
    if client.closed:
        assert client.goaway is not None, "closed without a word"
        assert client.goaway.error_code in codes, client.goaway
        assert taken <= set(case.answered), client.answers
        return
    assert client.goaway is None, client.goaway
    assert after.status == Code.OK
    if _is_reset(told):
        assert told.reset in case.resets, told
        assert taken == {AFTER, *case.answered} - {case.stream}, client.answers
        return
    said_so = case.may_answer_400 and told.headers.get(":status", "").startswith("4")
    assert case.goes_on or said_so, "nobody was told"
    assert taken == {AFTER, *case.answered}, client.answers


def judge_beside(serving: Serving, bystander: RawClient, case: Case) -> None:
    """Judge a case on a connection of its own, and see that neither who was there notices, nor who comes."""
    with RawClient(serving.address) as client:
        judge(case, client)
    assert bystander.unary(BODY).status == Code.OK
    assert_honest(serving.address)


def _is_settled(case: Case, client: RawClient) -> bool:
    """Whether the call after a case is answered, and so is the case, or its stream is gone."""
    told = client.expect(case.stream)
    if _is_reset(told):
        return client.expect(AFTER).ended and _are_over(client, case.answered)
    if not _are_over(client, (AFTER, *case.answered)):
        return False
    return case.goes_on or not case.resets or told.ended


def _is_reset(told: Answer) -> bool:
    """Whether a stream was reset before it was answered: who was answered may be told to send no more of it (8.1)."""
    return told.reset is not None and not told.ended


def _are_over(client: RawClient, streams: Sequence[int]) -> bool:
    return all(client.expect(stream).ended or client.expect(stream).reset is not None for stream in streams)


def trickled(case: Case) -> int:
    """Into pieces of how many bytes a case is cut to see that it does not matter how it arrives."""
    return max(1, len(case.sent) // 200)
