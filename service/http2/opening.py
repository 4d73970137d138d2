"""What a header block asks for, and which kind of call that opens."""

from typing import NamedTuple

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
from service.http2.messages import IDENTITY
from service.http2.streaming import StreamCall
from service.http2.streams import Link, Stream
from service.http2.unary import Call


class Known(NamedTuple):
    """What a header block asks for."""

    headers: Headers
    head: RequestHead
    method: Method
    tally: Tally
    codec: Codec | None
    """Where a call that begins so may be a `WholeCall`: what decodes it."""

    @property
    def may_be_whole(self) -> bool:
        """Whether a call that begins so may be a `WholeCall`."""
        return self.codec is not None


def known_of(headers: Headers, head: RequestHead, method: Method, tally: Tally) -> Known:
    """Find out what a header list asks for."""
    is_plain = head.timeout_seconds > 0 and head.answer_encoding == IDENTITY
    codec = method.codec if isinstance(method, BatchedMethod) and is_plain else None
    return Known(headers, head, method, tally, codec)


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
