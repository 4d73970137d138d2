"""The rules of RFC 9113 for requests as messages (section 8), each against a real socket.

A malformed request costs its stream: RST_STREAM with PROTOCOL_ERROR, an answer of 400, or the connection where a server
is strict (5.4.2, 8.1.1). It is never answered as a call.
"""

import pytest

from service.status import Code
from tests.service.http2.raw import CONVERT, Field, RawClient, raw_frame, request
from tests.service.http2.rules import (
    BODY,
    DATA,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PROTOCOL_ERROR,
    REQUEST,
    Case,
    block,
    body,
    call,
    fine,
    headers,
    judge_beside,
    literal,
    malformed,
    tolerable,
)
from tests.service.http2.serving import Serving
from tests.service.http2.test_calls import assert_honest

SIZE = len(BODY)
FIRST = [(str(field[0]), field[1]) for field in request() if str(field[0]).startswith(":")]
OTHERS = [field for field in request() if not str(field[0]).startswith(":")]
ENDS = END_HEADERS | END_STREAM


def of(*fields: Field) -> bytes:
    """A whole call with just these fields."""
    return headers(1, block(fields)) + body(1)


def without(name: str) -> bytes:
    """A whole call that lacks a field."""
    return of(*(field for field in request() if field[0] != name))


def replaced(name: str, value: str | bytes) -> bytes:
    """A whole call with another value of a field."""
    return of(*((key, value if key == name else old) for key, old in request()))


def trailed(*trailers: Field, flags: int = ENDS) -> bytes:
    """A whole call that ends with trailers."""
    return headers(1) + body(1, flags=0) + headers(1, block(trailers), flags)


def sized(length: str, *pieces: bytes) -> bytes:
    """A call that says how many bytes it has, and sends these."""
    frames = [body(1, piece, END_STREAM if index == len(pieces) - 1 else 0) for index, piece in enumerate(pieces)]
    return headers(1, REQUEST + literal("content-length", length)) + b"".join(frames)


NAMES: dict[str, str | bytes] = {
    "of upper case": "X-Upper",
    "with an upper-case letter": "x-uppeR",
    "of nothing": "",
    "with a space": "x y",
    "with a colon in it": "x:y",
    "with a tab": "x\ty",
    "with a line feed": "x\ny",
    "with a zero": "x\0y",
    "with a byte of 127": "x\x7fy",
    "with a byte over 127": b"x\xe4y",
    "with a bracket": "x(y)",
}
VALUES: dict[str, str | bytes] = {
    "with a zero": "y\0y",
    "with a line feed": "y\ny",
    "with a carriage return": "y\ry",
    "with a line feed at its end": "y\n",
    "that begins with a space": " y",
    "that ends with a space": "y ",
    "that begins with a tab": "\ty",
    "that ends with a tab": "y\t",
    "of a space": " ",
}
FIELDS = [
    *(malformed(f"name {name}", call(1, (wrong, "y"))) for name, wrong in NAMES.items()),
    *(malformed(f"value {name}", call(1, ("x", wrong))) for name, wrong in VALUES.items()),
    *(malformed(f"name {name}, in trailers", trailed((wrong, "y"))) for name, wrong in NAMES.items()),
    *(malformed(f"value {name}, in trailers", trailed(("x", wrong))) for name, wrong in VALUES.items()),
    fine("value of nothing", call(1, ("x", "")), 1),
    fine("value with spaces and tabs in it", call(1, ("x", "y \t y")), 1),
    fine("value with bytes over 127", call(1, ("x", b"\xff\x80\xe4")), 1),
    fine("every character of a name", call(1, ("x!#$%&'*+-.^_`|~09az", "y")), 1),
]

PSEUDO = [
    *(malformed(f"no {name}", without(name)) for name in (":method", ":scheme", ":path")),
    *(malformed(f"{name} twice", of((name, value), *request())) for name, value in FIRST),
    *(malformed(f"{name} in trailers", trailed((name, value))) for name, value in FIRST),
    *(
        malformed(f"{name} after others", of(*(field for field in request() if field[0] != name), (name, value)))
        for name, value in FIRST
    ),
    malformed("pseudo-field that nobody knows", of((":unknown", "x"), *request())),
    malformed("pseudo-field without a name", of((":", "x"), *request())),
    malformed("pseudo-field of an answer", of((":status", "200"), *request())),
    malformed("pseudo-field of an answer in trailers", trailed((":status", "200"))),
    malformed("pseudo-field of upper case", of((":Path", CONVERT), *request())),
    malformed(":protocol, which was not allowed", of((":protocol", "websocket"), *request(method="CONNECT"))),
    malformed(":path of nothing", replaced(":path", "")),
    malformed(":path with a line feed", replaced(":path", CONVERT + "\n")),
    malformed(":path with a zero", replaced(":path", CONVERT + "\0")),
    malformed(":path of an asterisk and more", replaced(":path", "*" + CONVERT)),
    malformed(":method with a space", replaced(":method", "POST x")),
    malformed(":method of nothing", replaced(":method", "")),
    malformed(":authority with a line feed", replaced(":authority", "x\ny")),
    tolerable(":path with a space", replaced(":path", CONVERT + " x"), PROTOCOL_ERROR),
    tolerable(":scheme with a space", replaced(":scheme", "ht tp"), PROTOCOL_ERROR, answered=(1,)),
    tolerable(":path without its slash", replaced(":path", CONVERT[1:]), PROTOCOL_ERROR),
    tolerable("CONNECT with a path", replaced(":method", "CONNECT"), PROTOCOL_ERROR),
    tolerable("CONNECT", of((":method", "CONNECT"), (":authority", "localhost:1"), *OTHERS), PROTOCOL_ERROR),
    fine("order of pseudo-fields", of(*reversed(FIRST), *OTHERS), 1),
    tolerable("neither :authority nor host", without(":authority"), PROTOCOL_ERROR, answered=(1,)),
    fine("host in its place", of(*(field for field in request() if field[0] != ":authority"), ("host", "x")), 1),
    fine("https", replaced(":scheme", "https"), 1),
]

CONNECTION_FIELDS = {
    "connection": "close",
    "proxy-connection": "keep-alive",
    "keep-alive": "timeout=5",
    "transfer-encoding": "chunked",
    "upgrade": "h2c",
}
OF_A_CONNECTION = [
    *(
        malformed(f"field {name}", call(1, field))
        for name, field in ((pair[0], pair) for pair in CONNECTION_FIELDS.items())
    ),
    *(malformed(f"field {name} in trailers", trailed((name, value))) for name, value in CONNECTION_FIELDS.items()),
    malformed("te of another kind", replaced("te", "gzip")),
    malformed("te of trailers and another kind", replaced("te", "trailers, deflate")),
]

TRAILERS = [
    fine("trailers", trailed(("x", "y")), 1),
    fine("trailers of nothing", trailed(), 1),
    malformed("trailers that do not end", trailed(("x", "y"), flags=END_HEADERS)),
    malformed("trailers that do not end, and data", trailed(("x", "y"), flags=END_HEADERS) + body(1)),
    malformed("a request twice", headers(1) + call(1)),
]

LENGTHS = [
    fine("content-length", sized(str(SIZE), BODY), 1),
    fine("content-length of several frames", sized(str(SIZE), BODY[:3], b"", BODY[3:]), 1),
    fine(
        "content-length without padding",
        headers(1, REQUEST + literal("content-length", str(SIZE)))
        + raw_frame(DATA, PADDED | END_STREAM, 1, b"\x07" + BODY + bytes(7)),
        1,
    ),
    fine(
        "content-length and trailers",
        headers(1, REQUEST + literal("content-length", str(SIZE)))
        + body(1, flags=0)
        + headers(1, literal("x", "y"), ENDS),
        1,
    ),
    malformed("content-length too small", sized(str(SIZE - 1), BODY)),
    malformed("content-length too large", sized(str(SIZE + 1), BODY)),
    malformed("content-length of nothing", sized("0", BODY)),
    malformed("content-length too small for several frames", sized(str(SIZE - 1), BODY[:3], BODY[3:])),
    malformed("content-length too large for several frames", sized(str(SIZE + 1), BODY[:3], BODY[3:])),
    malformed("content-length too large for several frames, the last of nothing", sized(str(SIZE + 1), BODY, b"")),
    malformed("content-length, and no data", headers(1, REQUEST + literal("content-length", "5"), ENDS)),
    malformed(
        "content-length, no data, and trailers",
        headers(1, REQUEST + literal("content-length", "5")) + headers(1, literal("x", "y"), ENDS),
    ),
    malformed(
        "content-length too large, and trailers",
        headers(1, REQUEST + literal("content-length", str(SIZE + 1)))
        + body(1, flags=0)
        + headers(1, literal("x", "y"), ENDS),
    ),
    malformed("content-length below zero", sized("-1", BODY)),
    malformed("content-length with a sign", sized(f"+{SIZE}", BODY)),
    malformed("content-length that is no number", sized("x", BODY)),
    malformed("content-length without a value", sized("", BODY)),
    malformed("content-length beyond all numbers", sized("9" * 40, BODY)),
    malformed("two content-lengths", call(1, ("content-length", str(SIZE)), ("content-length", str(SIZE + 1)))),
]

CASES = [*FIELDS, *PSEUDO, *OF_A_CONNECTION, *TRAILERS, *LENGTHS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_messages(ruled: Serving, bystander: RawClient, case: Case) -> None:
    """Each rule, broken or kept: the reaction is a right one, and nobody else notices."""
    judge_beside(ruled, bystander, case)


def test_a_malformed_request_in_a_crowd(ruled: Serving) -> None:
    """Of many calls that came together, those before a malformed one are answered; those after it where it is alone."""
    wrong = call(7, ("X", "y"))
    with RawClient(ruled.address) as client:
        client.send(b"".join(map(call, (1, 3, 5))) + wrong + b"".join(map(call, (9, 11))))
        for stream in (1, 3, 5):
            assert client.finish(stream).status == Code.OK
        client.wait(lambda: client.closed or client.expect(7).reset is not None or client.expect(7).ended)
        assert client.expect(7).status is None
        for stream in () if client.closed else (9, 11):
            assert client.finish(stream).status == Code.OK
    assert_honest(ruled.address)
