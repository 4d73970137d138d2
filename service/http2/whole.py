"""A unary call whose message came whole and at once, as nearly all do: one object is the call and its request.

It behaves as any other call does; it only takes fewer steps. Whatever is out of the ordinary is left to `Call`.
"""

import math
import struct
from typing import Final

import structlog

from service.calls import BatchedMethod, Body, Request
from service.errors import InternalError, ServiceError
from service.http2.burst import Tally
from service.http2.headers import RequestHead
from service.http2.messages import IDENTITY, PREFIX_BYTES, frame
from service.http2.streams import ANSWERED, OPEN, RESPONSE, TRAILERS, Link, Stream

log = structlog.get_logger(__name__)

_PREFIX: Final = struct.Struct(">BI")
_PREFIXES: Final = [_PREFIX.pack(0, size) for size in range(1024)]


class WholeCall(Request, Stream):
    """A call that waits for its answer.

    Making one counts its bytes among those in hand and those being answered. Raises OverloadedError where no more may
    be taken; then nothing was counted.
    """

    __slots__ = ("_ended", "_held", "_link", "_tally", "armed", "due", "phase", "stream_id")

    def __init__(  # noqa: PLR0917 - called for every call, where names cost
        self,
        link: Link,
        stream_id: int,
        tally: Tally,
        method: BatchedMethod,
        head: RequestHead,
        data: bytes,
        received: float,
    ) -> None:
        link.begin(len(data))
        tally.started += 1
        self._link = link
        self._tally = tally
        self.stream_id = stream_id
        self.codec = method.codec
        self.body = data[PREFIX_BYTES:]
        self.received_seconds = received
        self.deadline_seconds = self.due = received + head.timeout_seconds
        self.metadata = head.metadata
        self.cancelled = self.armed = False
        self.outcome = self.trace = None  # a call that is followed is a `Call`
        self.phase = OPEN
        self._ended = True
        self._held = len(data)

    def deliver(self) -> None:
        """Send the outcome, where somebody still waits for it."""
        link = self._link
        size = len(self.body) + PREFIX_BYTES
        if self.phase != OPEN:
            link.running(-size)
            return
        outcome = self.outcome
        if outcome is None or isinstance(outcome, ServiceError):
            link.running(-size)
            self.fail(outcome or _forgotten())
            return
        link.finish(size)
        self._held = 0
        self.phase = ANSWERED
        self._tally.answered_seconds.append(link.burst.now - self.received_seconds)
        link.send_answer(self.stream_id, RESPONSE, _framed(outcome), TRAILERS)

    @property
    def idle_since(self) -> float:
        """Since when the answer waits for its peer, at the earliest; infinity while it is made."""
        return self.received_seconds if self.phase == ANSWERED else math.inf

    def _release(self) -> None:
        self.cancelled = True  # of no consequence where it was answered


def _framed(body: Body) -> bytes:
    first = body[0]
    size = len(first)
    if len(body) == 1 and size < len(_PREFIXES):
        return _PREFIXES[size] + first
    return frame(body)


def whole_call(  # noqa: PLR0917 - called for every call, where names cost
    link: Link, stream_id: int, tally: Tally, method: BatchedMethod, head: RequestHead, data: bytes, received: float
) -> WholeCall | None:
    """Make the call, or None where it is no plain one.

    That is: its message is not all there, too large, or compressed, or its answer is to be; or the connection is
    clogged.

    Raises:
        OverloadedError: no more bytes may be taken.
    """
    if len(data) < PREFIX_BYTES or head.answer_encoding != IDENTITY or link.clogged:
        return None
    flag, length = _PREFIX.unpack_from(data)
    if flag or length != len(data) - PREFIX_BYTES or length > link.burst.limits.max_message_bytes:
        return None
    return WholeCall(link, stream_id, tally, method, head, data, received)


def _forgotten() -> InternalError:
    error = InternalError()
    log.error("request came back without an outcome", error_id=error.id)
    return error
