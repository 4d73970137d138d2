"""Message framing and compression."""

import contextlib
import gzip
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MalformedError, ServiceError, TooLargeError
from service.http2.messages import Assembler, Message, deflate, frame, inflate

LIMIT = 100_000
BODIES = st.lists(st.binary(max_size=300) | st.integers(4_000, 20_000).map(bytes), max_size=8)


@given(BODIES, st.data())
def test_messages_survive_any_cutting(bodies: list[bytes], data: st.DataObject) -> None:
    """However a stream is cut into parts, the same messages come out, in order."""
    stream = b"".join(frame([body]) for body in bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    assembler, taken = Assembler(LIMIT), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        assembler.feed(stream[start:end])
        while message := assembler.take():
            taken.append(message.body)
    assert taken == bodies
    assert assembler.between_messages
    assert assembler.held_bytes == 0


@given(st.binary(min_size=1, max_size=300), st.integers(1, 304))
def test_a_part_of_a_message_is_none(body: bytes, size: int) -> None:
    """Less than a whole message is no message, and no place to end."""
    stream = frame([body])[: min(size, len(body) + 4)]
    assembler = Assembler(LIMIT)
    assembler.feed(stream)
    assert assembler.take() is None
    assert not assembler.between_messages


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_anything_is_read_or_refused(parts: list[bytes]) -> None:
    """Whatever comes, messages come out of it, or a refusal."""
    assembler = Assembler(LIMIT)
    with contextlib.suppress(ServiceError):
        for part in parts:
            assembler.feed(part)
            while message := assembler.take():
                assert len(message.body) <= LIMIT


def test_too_large_is_refused_at_the_prefix() -> None:
    """A message over the limit is refused before it arrives."""
    assembler = Assembler(LIMIT)
    assembler.feed(struct.pack(">BI", 0, LIMIT + 1))
    with pytest.raises(TooLargeError, match="100001 bytes: max_message_bytes is 100000"):
        assembler.take()


def test_single_bytes_weigh_what_they_hold() -> None:
    """A large message byte by byte is held in one piece, not in as many as it has bytes."""
    assembler = Assembler(LIMIT)
    for byte in frame([bytes(LIMIT)])[:-1]:
        assembler.feed(bytes((byte,)))
    assert assembler.take() is None
    assert len(assembler._parts) == 1  # noqa: SLF001 - that is the claim
    assembler.feed(b"\0")
    assert assembler.take() == Message(False, bytes(LIMIT))


@given(st.lists(st.binary(max_size=2_000), min_size=1, max_size=5), st.sampled_from(["gzip", "deflate"]))
def test_compression_there_and_back(parts: list[bytes], encoding: str) -> None:
    """What was deflated inflates to itself, up to its very size and not beyond."""
    body = b"".join(parts)
    packed = deflate(parts, encoding)
    assert inflate(packed, encoding, len(body)) == body
    if body:
        with pytest.raises(TooLargeError):
            inflate(packed, encoding, len(body) - 1)


# Names of their own: gzip writes the time into what it packs, and workers that collect at another second disagree.
@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(b"", "gzip", id="nothing"),
        pytest.param(b"garbage", "gzip", id="garbage"),
        pytest.param(gzip.compress(b"x" * 1000)[:-4], "gzip", id="cut short"),
        pytest.param(gzip.compress(b"x") + b"more", "gzip", id="more behind it"),
        pytest.param(zlib.compress(b"x"), "gzip", id="zlib for gzip"),
        pytest.param(gzip.compress(b"x"), "deflate", id="gzip for deflate"),
        pytest.param(b"x", "identity", id="nothing to inflate"),
    ],
)
def test_what_is_not_compressed_is_malformed(body: bytes, encoding: str) -> None:
    """What is not what its encoding promises is malformed."""
    with pytest.raises(MalformedError):
        inflate(body, encoding, LIMIT)


@given(st.binary(max_size=1_000), st.sampled_from(["gzip", "deflate"]))
def test_inflating_anything(body: bytes, encoding: str) -> None:
    """Whatever is inflated, it ends in bytes within the limit or in a refusal."""
    with contextlib.suppress(ServiceError):
        assert len(inflate(body, encoding, LIMIT)) <= LIMIT


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_parts_are_one_message(parts: list[bytes]) -> None:
    """A body in parts is one message."""
    body = b"".join(parts)
    assert frame([memoryview(part) for part in parts]) == struct.pack(">BI", 0, len(body)) + body
