"""Unary calls over a raw socket: what is answered, and with which status."""

import gzip
import time
import zlib

import pytest
from hyperframe.frame import RstStreamFrame, SettingsFrame

from proto.quicksilver.v1 import converter_pb2 as api
from service.http2 import Http2Limits
from service.models import Models
from service.status import Code
from tests.service.http2.raw import CONVERT, Field, RawClient, framed, request
from tests.service.http2.serving import Serving, celsius, convert_body

BODY = convert_body(50.0)


def assert_honest(address: str) -> None:
    """Another client is answered right."""
    with RawClient(address) as honest:
        answer = honest.unary(BODY)
        assert answer.status == Code.OK
        assert celsius(answer.message) == pytest.approx([10.0])


def test_answers(client: RawClient) -> None:
    """A call is answered with headers, one message, and status 0 in trailers."""
    answer = client.unary(BODY)
    assert answer.headers[":status"] == "200"
    assert answer.headers["content-type"] == "application/grpc"
    assert answer.status == Code.OK
    assert celsius(answer.message) == pytest.approx([10.0])


def test_many_on_one_connection_share_runs(serving: Serving, client: RawClient) -> None:
    """Calls that arrive together share runs, and each gets its own rows back."""
    calls = [client.call_bytes(request(), convert_body(float(value))) for value in range(100)]
    client.send(b"".join(out for _, out in calls))
    for value, (stream, _) in enumerate(calls):
        assert celsius(client.finish(stream).message) == pytest.approx([(value - 32) * 5 / 9], abs=1e-4)
    told = serving.ask(lambda: (serving.tally.begun, serving.tally.ended))  # once the turn that answered is over
    assert max(serving.tally.batches) > 1
    assert told == ({CONVERT: 100}, {(CONVERT, Code.OK): 100})


REFUSED: list[tuple[str, list[Field], bytes, Code]] = [
    ("unknown method", request("/quicksilver.v1.ConverterService/Unknown"), BODY, Code.UNIMPLEMENTED),
    ("unknown service", request("/nobody.Knows/Convert"), BODY, Code.UNIMPLEMENTED),
    ("path that is not UTF-8", request(b"/\xff\xfe/\x80"), BODY, Code.UNIMPLEMENTED),
    ("path with a query", request(CONVERT + "?x=1"), BODY, Code.UNIMPLEMENTED),
    ("very long path", request("/" + "x" * 8_000), BODY, Code.UNIMPLEMENTED),
    ("header list over its limit", request(CONVERT, ("x-long", "y" * 20_000)), BODY, Code.RESOURCE_EXHAUSTED),
    ("very very long path", request("/" + "x" * 20_000), BODY, Code.RESOURCE_EXHAUSTED),
    ("timeout without a unit", request(CONVERT, ("grpc-timeout", "10")), BODY, Code.INTERNAL),
    ("timeout of nine digits", request(CONVERT, ("grpc-timeout", "123456789S")), BODY, Code.INTERNAL),
    ("timeout below zero", request(CONVERT, ("grpc-timeout", "-1S")), BODY, Code.INTERNAL),
    ("timeout of nothing", request(CONVERT, ("grpc-timeout", "0n")), BODY, Code.DEADLINE_EXCEEDED),
    ("timeout already past", request(CONVERT, ("grpc-timeout", "1n")), BODY, Code.DEADLINE_EXCEEDED),
    ("unknown encoding", request(CONVERT, ("grpc-encoding", "zstd")), BODY, Code.UNIMPLEMENTED),
    ("-bin that is not base64", request(CONVERT, ("x-bin", "§$%&")), BODY, Code.INTERNAL),
    ("no message", request(), b"", Code.INTERNAL),
    ("three bytes of a prefix", request(), b"\x00\x00\x00", Code.INTERNAL),
    ("truncated message", request(), BODY[:-1], Code.INTERNAL),
    ("message of no bytes", request(), framed(b""), Code.INVALID_ARGUMENT),
    ("not a protobuf", request(), framed(b"\xff\xff\xff"), Code.INTERNAL),
    ("two messages", request(), BODY + BODY, Code.INTERNAL),
    ("flag 2", request(), b"\x02" + BODY[1:], Code.INTERNAL),
    ("flag 255", request(), b"\xff" + BODY[1:], Code.INTERNAL),
    ("flag without encoding", request(), b"\x01" + BODY[1:], Code.INTERNAL),
    ("flag with identity", request(CONVERT, ("grpc-encoding", "identity")), b"\x01" + BODY[1:], Code.INTERNAL),
    ("not gzip", request(CONVERT, ("grpc-encoding", "gzip")), framed(b"no gzip", 1), Code.INTERNAL),
    (
        "cut off gzip",
        request(CONVERT, ("grpc-encoding", "gzip")),
        framed(gzip.compress(BODY[5:])[:-9], 1),
        Code.INTERNAL,
    ),
]


@pytest.mark.parametrize(("fields", "body", "code"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refuses(serving: Serving, client: RawClient, fields: list[Field], body: bytes, code: Code) -> None:
    """A call that makes no sense gets its status at once; the connection goes on, and so does everybody else."""
    answer = client.unary(body, fields)
    assert answer.status == code, answer
    assert answer.headers["grpc-message"]
    assert client.unary(BODY).status == Code.OK
    assert_honest(serving.address)


def test_refuses_timeouts_without_running(serving: Serving, client: RawClient) -> None:
    """A call whose time is over when it arrives is not run."""
    client.unary(BODY, request(CONVERT, ("grpc-timeout", "0n")))
    assert serving.tally.batches == []


def test_largest_timeout(client: RawClient) -> None:
    """The largest timeout there is does no harm."""
    assert client.unary(BODY, request(CONVERT, ("grpc-timeout", "99999999H"))).status == Code.OK


def test_unknown_encoding_names_the_known(client: RawClient) -> None:
    """Who sends an unknown encoding learns which are known."""
    answer = client.unary(BODY, request(CONVERT, ("grpc-encoding", "zstd")))
    assert answer.headers["grpc-accept-encoding"] == "identity,gzip,deflate"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (request(contenttype="application/json"), "415"),
        (request(contenttype="application/grpc-web"), "415"),
        (request(contenttype=""), "415"),
        (request(method="GET"), "405"),
        (request(method="PUT"), "405"),
    ],
)
def test_not_grpc(serving: Serving, client: RawClient, fields: list[Field], status: str) -> None:
    """What is not gRPC gets an HTTP status."""
    assert client.unary(BODY, fields).headers[":status"] == status
    assert_honest(serving.address)


@pytest.mark.parametrize(
    "fields",
    [
        request(te=""),
        request(contenttype="application/grpc+proto"),
        request(contenttype="application/grpc;charset=utf-8"),
        request(CONVERT, ("x-bin", "AAECAw"), ("x-bin", "AAECAw=="), ("x-text", "a,b")),
    ],
    ids=["no te", "+proto", "parameter", "metadata"],
)
def test_accepts(client: RawClient, fields: list[Field]) -> None:
    """What is unusual but makes sense is answered."""
    assert client.unary(BODY, fields).status == Code.OK


@pytest.mark.parametrize(("name", "wbits"), [("gzip", 31), ("deflate", 15)])
def test_compression_both_ways(client: RawClient, name: str, wbits: int) -> None:
    """Compressed messages are read, and answered alike where the client reads that."""
    message = api.ConvertRequest(fahrenheit=[50.0] * 1000).SerializeToString()
    deflater = zlib.compressobj(wbits=wbits)
    body = framed(deflater.compress(message) + deflater.flush(), 1)
    plain = client.unary(body, request(CONVERT, ("grpc-encoding", name)))
    assert plain.data[0] == 0
    assert celsius(plain.message) == pytest.approx([10.0] * 1000)
    both = client.unary(body, request(CONVERT, ("grpc-encoding", name), ("grpc-accept-encoding", "identity," + name)))
    assert both.headers["grpc-encoding"] == name
    assert both.data[0] == 1
    assert celsius(zlib.decompress(both.message, wbits)) == pytest.approx([10.0] * 1000)


def test_message_in_single_bytes(client: RawClient) -> None:
    """A message that comes byte by byte is answered."""
    stream = client.new_stream()
    client.send(client.headers_frame(request(), stream))
    for index, byte in enumerate(BODY):
        client.send(client.data_frame(stream, bytes((byte,)), end=index == len(BODY) - 1))
    assert celsius(client.finish(stream).message) == pytest.approx([10.0])


def test_end_in_a_frame_of_its_own(client: RawClient) -> None:
    """A stream may end with an empty frame after the message."""
    stream = client.call(BODY, end=False)
    client.send(client.data_frame(stream, b"", end=True))
    assert client.finish(stream).status == Code.OK


def test_trailers_of_the_client(serving: Serving, client: RawClient) -> None:
    """Trailers of a client end its request."""
    stream = client.call(BODY, end=False)
    client.send(client.headers_frame([("x-trailer", "1")], stream, end=True))
    assert client.finish(stream).status == Code.OK
    assert_honest(serving.address)


def test_error_details(client: RawClient) -> None:
    """An error's message is percent-encoded, and its details travel with it."""
    answer = client.unary(convert_body(-500.0))
    assert answer.status == Code.INVALID_ARGUMENT
    assert "below absolute zero (-459.67 %C2%B0F)" in answer.headers["grpc-message"]
    assert answer.headers["grpc-status-details-bin"]


def test_refused_and_cancelled_at_once(client: RawClient) -> None:
    """A call that is refused, and was cancelled in the same breath, does not cost the connection."""
    stream, out = client.call_bytes(request("/no/method"), BODY)
    client.send(out + RstStreamFrame(stream, 8).serialize())
    assert client.unary(BODY).status == Code.OK


def test_unfinished_request_is_stopped(client: RawClient) -> None:
    """A client that is refused before it has sent everything is told to stop, after the answer."""
    answer = client.unary(BODY, request("/no/method"), end=False)
    assert answer.status == Code.UNIMPLEMENTED
    client.wait(lambda: answer.reset is not None)
    assert answer.reset == 0


def test_large_message_both_ways(serving: Serving) -> None:
    """A message of many frames is answered with one of many frames, row by row."""
    values = [float(value % 200) for value in range(60_000)]
    with RawClient(serving.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 24}) as client:
        client.open_windows()
        answer = client.unary(convert_body(*values))
    assert celsius(answer.message) == pytest.approx([(value - 32) * 5 / 9 for value in values], abs=1e-4)


@pytest.mark.parametrize("deadline", ["100m", "100000u", "99999999n"])
def test_deadline_while_it_waits(models: Models, deadline: str) -> None:
    """A call that waits for its run when its deadline passes is told so, and not run."""
    with Serving(models, Http2Limits(inline_bytes=1)) as serving, RawClient(serving.address) as client:
        serving.dataplane.go.clear()
        first = client.call(BODY)
        while serving.ask(lambda: serving.front.calls) != 1:  # or both might share a run
            pass
        answer = client.unary(BODY, request(CONVERT, ("grpc-timeout", deadline)))
        assert answer.status == Code.DEADLINE_EXCEEDED
        serving.dataplane.go.set()
        assert client.finish(first).status == Code.OK
        assert serving.ask(lambda: serving.tally.batches) == [1]


def test_large_calls_do_not_hold_up_small_ones(serving: Serving, client: RawClient) -> None:
    """While a large call is run, small ones are answered, on its own connection too."""
    serving.dataplane.held_rows = 20_000
    serving.dataplane.go.clear()
    large = client.call(convert_body(*[50.0] * 20_000))
    for _ in range(3):
        assert client.unary(BODY).status == Code.OK
    assert_honest(serving.address)
    assert large not in client.answers
    serving.dataplane.go.set()
    client.open_windows()
    client.open_windows(large)
    assert client.finish(large).status == Code.OK


def test_small_calls_of_a_slow_model_do_not_wait_for_large_ones(models: Models) -> None:
    """Those whose runs are expected to last leave the loop, and are answered while a large call is run."""
    with Serving(models, Http2Limits(inline_seconds=1e-9)) as serving, RawClient(serving.address) as client:
        assert client.unary(BODY).status == Code.OK
        serving.dataplane.held_rows = 20_000
        serving.dataplane.go.clear()
        large = client.call(convert_body(*[50.0] * 20_000))
        for _ in range(3):
            assert client.unary(BODY).status == Code.OK
        assert large not in client.answers
        serving.dataplane.go.set()
        client.open_windows()
        client.open_windows(large)
        assert client.finish(large).status == Code.OK


def test_cancelled_call_is_not_run(models: Models) -> None:
    """A call that is cancelled while it waits is not run, and touches no other."""
    with Serving(models, Http2Limits(inline_bytes=1)) as serving, RawClient(serving.address) as client:
        serving.dataplane.go.clear()
        first = client.call(BODY)
        while serving.ask(lambda: serving.front.calls) != 1:  # or the next one might share its run
            pass
        cancelled = client.call(BODY)
        client.reset(cancelled)
        last = client.call(BODY)
        while serving.ask(lambda: (serving.tally.begun, serving.front.calls)) != ({CONVERT: 3}, 2):
            pass
        serving.dataplane.go.set()
        assert client.finish(first).status == Code.OK
        assert client.finish(last).status == Code.OK
        ended = serving.ask(lambda: serving.tally.ended)  # once the turn that answered is over
        assert ended == {(CONVERT, Code.OK): 2, (CONVERT, Code.CANCELLED): 1}
        assert sum(serving.tally.batches) == 2


def test_observer_learns_of_a_client_that_vanished(serving: Serving) -> None:
    """Calls that end with their connection are told at once, though nobody else calls."""
    with RawClient(serving.address) as client:
        client.call(BODY[:7], end=False)
        while serving.ask(lambda: serving.front.calls) != 1:
            pass
    while serving.tally.ended != {(CONVERT, Code.CANCELLED): 1}:
        time.sleep(0.001)


def test_gone_client_leaves_nothing(models: Models) -> None:
    """A client that disappears in the middle of its calls leaves nothing behind."""
    with Serving(models, Http2Limits(inline_bytes=1)) as serving:
        serving.dataplane.go.clear()
        with RawClient(serving.address) as client:
            for _ in range(20):
                client.call(BODY)
            client.call(BODY[:7], end=False)
            while serving.ask(lambda: serving.front.calls) != 21:
                client.drain(0.01)
        while serving.ask(lambda: serving.front.connections):
            pass
        serving.dataplane.go.set()
        while serving.ask(lambda: serving.front.bytes_in_hand):
            pass
        assert serving.ask(lambda: serving.front.calls) == 0
        assert_honest(serving.address)
