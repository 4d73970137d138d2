"""What a header block asks for, and which kind of call that opens."""

from typing import Final, NamedTuple

from service.calls import (
    BatchedMethod,
    Codec,
    Method,
    StreamMethod,
    Trace,
)
from service.errors import (
    ExpiredError,
)
from service.http2.burst import Tally
from service.http2.headers import Headers, RequestHead
from service.http2.limits import FREE_HEAD_BYTES
from service.http2.messages import IDENTITY
from service.http2.streaming import StreamCall
from service.http2.streams import Link, Stream
from service.http2.unary import Call

_FIELD_BYTES: Final = 200
"""Two strings and two pairs, as CPython keeps them."""
_METADATA_FACTOR: Final = 2
"""The fields, and the metadata that is made of them."""


class Known(NamedTuple):
    """What a header block asks for."""

    headers: Headers
    head: RequestHead
    method: Method
    tally: Tally
    codec: Codec | None
    """Where a call that begins so may be a `WholeCall`: what decodes it."""
    head_bytes: int
    """What the header list takes to keep, where that is more than any call may."""

    @property
    def may_be_whole(self) -> bool:
        """Whether a call that begins so may be a `WholeCall`."""
        return self.codec is not None


def known_of(headers: Headers, head: RequestHead, method: Method, tally: Tally) -> Known:
    """Find out what a header list asks for."""
    is_plain = head.timeout_seconds > 0 and head.answer_encoding == IDENTITY
    head_bytes = kept_bytes(headers)
    if head_bytes <= FREE_HEAD_BYTES:
        head_bytes = 0
    codec = method.codec if isinstance(method, BatchedMethod) and is_plain and not head_bytes else None
    return Known(headers, head, method, tally, codec, head_bytes)


def kept_bytes(headers: Headers) -> int:
    """What a header list and its metadata take at the most while they are kept: more than came, where it was packed."""
    return _FIELD_BYTES * len(headers) + _METADATA_FACTOR * sum(len(name) + len(value) for name, value in headers)


def open_stream(  # noqa: PLR0917 - called for every call, where names cost
    link: Link, stream_id: int, method: Method, head: RequestHead, received: float, trace: Trace | None = None
) -> Stream:
    """Begin a call.

    Raises:
        ExpiredError: its deadline is over already, so that nothing is run.
    """
    if head.timeout_seconds <= 0:
        raise ExpiredError("the deadline passed before the call arrived")
    if not isinstance(method, StreamMethod):
        return Call(link, stream_id, method, head, received, trace)
    return StreamCall(link, stream_id, method, head, received, trace)
