"""Compression of messages, where a call asks for it and it pays."""

from typing import Final

from service.calls import (
    Body,
    Codec,
)
from service.errors import TooLargeError
from service.http2.headers import RequestHead
from service.http2.limits import Http2Limits
from service.http2.messages import IDENTITY, deflate, frame, inflate
from service.query import Answer, Query

_COMPRESSION_PAYS_BYTES: Final = 1024
_DEFLATING_COST: Final = 8
"""Times that deflating a float costs what inflating or reading one does."""


class Compressed(Codec):
    """A codec whose messages are compressed: so that the work is done where the others decode and encode."""

    __slots__ = ("_codec", "_head", "_inflating", "_max_bytes", "compressed_answer")

    def __init__(self, codec: Codec, head: RequestHead, max_bytes: int, *, inflating: bool) -> None:
        self._codec = codec
        self._head = head
        self._inflating = inflating
        self._max_bytes = max_bytes
        self.compressed_answer = False

    def decode(self, body: bytes) -> Query:
        """Inflate, and decode."""
        return self._codec.decode(inflate(body, self._head.encoding, self._max_bytes) if self._inflating else body)

    def encode(self, query: Query, answer: Answer) -> Body:
        """Encode, and compress where that pays."""
        body = self._codec.encode(query, answer)
        if not pays(body, self._head.answer_encoding):
            return body
        self.compressed_answer = True
        return [deflate(body, self._head.answer_encoding)]


def pays(body: Body, encoding: str) -> bool:
    """Whether an answer is worth compressing."""
    return encoding != IDENTITY and sum(map(len, body)) >= _COMPRESSION_PAYS_BYTES


def framed(body: Body, encoding: str) -> bytes:
    """Put the prefix before a body, compressed where that pays."""
    if not pays(body, encoding):
        return frame(body)
    return frame([deflate(body, encoding)], compressed=True)


class Allowance:
    """How much may be inflated and deflated on the event loop: `inline_bytes` at once, `inline_burst_bytes` in a turn.

    Bytes count at the larger of their sizes, compressed or not, and those to be deflated `_DEFLATING_COST` times.
    """

    __slots__ = ("_limits", "_spare_bytes")

    def __init__(self, limits: Http2Limits) -> None:
        self._limits = limits
        self._spare_bytes = limits.inline_burst_bytes

    def renew(self) -> None:
        """Begin another turn."""
        self._spare_bytes = self._limits.inline_burst_bytes

    def inflate(self, body: bytes, encoding: str) -> bytes | None:
        """Inflate a message, or return None where a worker has to; no more than is allowed was inflated then.

        Raises:
            MalformedError: as `service.http2.messages.inflate` does.
        """
        most = min(self._limits.inline_bytes, self._limits.max_message_bytes)
        if self._spare_bytes <= 0 or len(body) > most:
            return None
        try:
            inflated = inflate(body, encoding, most)
        except TooLargeError:  # a worker finds out by how much
            self._spare_bytes -= most
            return None
        self._spare_bytes -= max(len(body), len(inflated))
        return inflated

    def framed(self, body: Body, encoding: str) -> bytes:
        """Put the prefix before a body, compressed where that pays and is allowed: what is larger goes out as it is."""
        cost = _DEFLATING_COST * sum(map(len, body))
        if encoding == IDENTITY or cost > min(self._limits.inline_bytes, self._spare_bytes):
            return frame(body)
        self._spare_bytes -= cost
        return framed(body, encoding)
