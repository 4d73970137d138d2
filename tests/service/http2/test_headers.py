"""gRPC's header blocks, read and written."""

import contextlib
import math
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InternalError, InvalidRequestError, MalformedError, NotReadyError
from service.http2.headers import (
    Refusal,
    RequestHead,
    percent_encode,
    read_head,
    read_metadata,
    read_timeout,
    response,
    trailers,
    trailers_only,
)
from service.status import Code

GOOD = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/B"), (b"content-type", b"application/grpc"))
KEYS = st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda key: not key.startswith("grpc-") and key not in {"te", "content-type"}
)
TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=50)


@given(st.text(max_size=200))
def test_messages_are_percent_encoded(message: str) -> None:
    """A message becomes printable ASCII, and comes back from it."""
    encoded = percent_encode(message)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote(encoded.decode("ascii")) == message.encode("utf-8", "replace").decode()


def test_long_messages_are_cut() -> None:
    """A message stays so short that clients take its trailers."""
    assert len(percent_encode("x" * 100_000)) == 1024


@given(st.integers(0, 99_999_999), st.sampled_from("HMSmun"))
def test_timeouts(value: int, unit: str) -> None:
    """A timeout is a number of its unit."""
    seconds = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}[unit]
    assert read_timeout(f"{value}{unit}".encode()) == pytest.approx(value * seconds)


@given(st.binary(max_size=12))
def test_no_timeout_surprises(value: bytes) -> None:
    """Whatever stands there is a time from zero, or malformed."""
    with contextlib.suppress(MalformedError):
        assert read_timeout(value) >= 0


def test_no_timeout() -> None:
    """Without a timeout there is no end."""
    assert read_timeout(None) == math.inf


@given(st.lists(st.tuples(KEYS, TEXT) | st.tuples(KEYS.map(lambda key: key + "-bin"), st.binary(max_size=50))))
def test_metadata_there_and_back(metadata: list[tuple[str, str | bytes]]) -> None:
    """Metadata that was written is read as it was."""
    expected = [pair for pair in metadata if pair[0].endswith("-bin") == isinstance(pair[1], bytes)]
    block = response(metadata=expected)
    assert list(read_metadata(block)) == expected


def test_joined_binary_metadata() -> None:
    """Values of a -bin key may come joined by commas, padded or not."""
    assert read_metadata([(b"x-bin", b"YWI=,YWI, ")]) == (("x-bin", b"ab"), ("x-bin", b"ab"), ("x-bin", b""))


@pytest.mark.parametrize(
    "pair", [("Upper", "x"), ("", "x"), ("x-bin", "text"), ("x", b"bytes"), (":path", "x"), ("x", "ümlaut")]
)
def test_metadata_that_cannot_be_written(pair: tuple[str, str | bytes]) -> None:
    """Metadata that HTTP/2 cannot carry is refused where it is written."""
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeEncodeError is one as well
        response(metadata=[pair])


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40)), max_size=10))
def test_any_block_is_read_or_refused(fields: list[tuple[bytes, bytes]]) -> None:
    """Whatever a block holds, it becomes a head or a refusal."""
    head = read_head((*GOOD, *fields), 10_000)
    assert isinstance(head, RequestHead | Refusal)


def test_head() -> None:
    """A head holds what the block says."""
    extra = ((b"grpc-encoding", b"gzip"), (b"grpc-accept-encoding", b"identity, gzip"), (b"grpc-timeout", b"2S"))
    head = read_head((*GOOD, *extra, (b"x-key", b"value")), 10_000)
    assert head == RequestHead(b"/a/B", 2.0, "gzip", "gzip", (("x-key", "value"),))


def test_block_over_its_limit() -> None:
    """A block over its limit is RESOURCE_EXHAUSTED."""
    refusal = read_head(GOOD, 100)
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", [b"x-bin", b"grpc-accept-encoding"])
def test_many_values_in_one_field(name: bytes) -> None:
    """Values that stand in one field are counted as fields are: a comma each would make much of few bytes."""
    fields = [(b":method", b"POST"), (b":path", b"/a/b"), (b"content-type", b"application/grpc")]
    assert isinstance(read_head([*fields, (name, b"," * 400)], 16_384), RequestHead)
    refused = read_head([*fields, (name, b"," * 600)], 16_384)
    assert isinstance(refused, Refusal)
    assert refused.code is Code.RESOURCE_EXHAUSTED


def test_trailers() -> None:
    """Trailers hold the status, its message, its details, and the metadata."""
    assert trailers(None) == [(b"grpc-status", b"0")]
    fields = dict(trailers(InvalidRequestError("field", "is wrong"), [("x-key", "value")]))
    assert fields[b"grpc-status"] == b"3"
    assert fields[b"grpc-message"] == b"field: is wrong"
    assert fields[b"x-key"] == b"value"
    assert fields[b"grpc-status-details-bin"]
    assert b"=" not in fields[b"grpc-status-details-bin"]


def test_trailers_only() -> None:
    """A failure without messages is one block, with HTTP's status and gRPC's."""
    fields = dict(trailers_only(NotReadyError("not yet")))
    assert (fields[b":status"], fields[b"grpc-status"]) == (b"200", b"14")
    assert dict(trailers_only(InternalError()))[b"grpc-status"] == b"13"
