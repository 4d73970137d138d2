"""Compression of messages, where a call asks for it and it pays."""

from typing import Final

from service.calls import (
    Body,
    Codec,
)
from service.http2.headers import RequestHead
from service.http2.messages import IDENTITY, deflate, frame, inflate
from service.query import Answer, Query

_COMPRESSION_PAYS_BYTES: Final = 1024


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


def framed(body: Body, encoding: str) -> tuple[bytes, bool]:
    """Put the prefix before a body, compressed where that pays, and tell whether it was."""
    if not pays(body, encoding):
        return frame(body), False
    return frame([deflate(body, encoding)], compressed=True), True
