"""The calls of one connection: what each has received, what becomes of it, and that it ends exactly once.

Nothing here knows HTTP/2's frames. A `Link` carries what a call sends; whoever owns the link tells the call what came.
"""

import math
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from service.calls import (
    Metadata,
    Request,
    Trace,
)
from service.errors import (
    ExpiredError,
    InternalError,
    ServiceError,
)
from service.http2.burst import Burst, Tally
from service.http2.headers import Headers, trailers_only
from service.http2.sending import Part
from service.status import Code, code_of
from service.traceparent import request_id

if TYPE_CHECKING:
    from service.http2.streaming import StreamCall
    from service.http2.unary import Call

log = structlog.get_logger(__name__)

FIELDS: Final = (
    "_ended",
    "_held",
    "_link",
    "_tally",
    "_trace",
    "armed",
    "deadline_seconds",
    "due",
    "moved_seconds",
    "phase",
    "received_seconds",
    "stream_id",
)
"""Slots that every call has."""

OPEN: Final = 0
"""The call waits for its message, or for its answer."""
ANSWERED: Final = 1
"""Its whole answer was handed to the link; it may wait there for the peer to take it."""
CLOSED: Final = 2
"""Nothing of it is left on the connection."""


class Link(Protocol):
    """The connection, as its calls see it. Called on the loop's thread."""

    burst: Burst

    @property
    def clogged(self) -> bool:
        """Whether no further call may be run: too many answers wait for the peer, or are being made for it."""

    @property
    def swamped(self) -> bool:
        """Whether so many answers wait for the peer that even calls that were begun must not add to them."""

    def send_answer(self, stream_id: int, head: Headers, parts: Sequence[Part], tail: Headers) -> None:
        """Send a whole answer with one message, its prefix in it."""

    def send_only(self, stream_id: int, headers: Headers) -> None:
        """Send a header block that is the whole answer."""

    def send_head(self, stream_id: int, headers: Headers) -> None:
        """Send the header block before the messages."""

    def send_message(self, stream_id: int, framed: bytes) -> None:
        """Send one message with its prefix."""

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """Send the header block that ends the call."""

    def stop_peer(self, stream_id: int) -> None:
        """Once the answer is sent, tell the peer that the rest of its request is not wanted."""

    def reset(self, stream_id: int) -> None:
        """Cut the stream off, with what is not yet sent."""

    def take(self, size: int) -> None:
        """Count bytes of a request into what is in hand."""

    def give(self, size: int) -> None:
        """Count them out."""

    def begin(self, size: int) -> None:
        """Count bytes of a request into what is in hand, and into what is being answered. Raises as `take`."""

    def finish(self, stream_id: int, size: int, message: bytes) -> None:
        """Count the bytes of a request out of both, and send its ordinary answer: one message with its prefix."""

    def run(self, request: Request, weight_bytes: int) -> None:
        """Have a request answered; its reply is called on the loop's thread."""

    def running(self, size: int) -> None:
        """Count bytes of requests that are being answered for this link, in and (negative) out."""

    def wait(self, call: "Call") -> None:
        """Keep a complete call until the link is no longer clogged, then `run` it."""

    def pump_later(self, stream: "StreamCall") -> None:
        """Have `pump` called before the next flush."""

    def is_full(self, stream_id: int) -> bool:
        """Whether a stream should be sent no more for the time being."""

    def resume_later(self, stream: "StreamCall") -> None:
        """Have `resume` called once the stream is not full, in another turn of the loop."""


class Stream:
    """What all calls have in common. Guarantees: it is told to the observer once, and gives back all it took."""

    if not TYPE_CHECKING:  # which would have it that nothing can be assigned
        __slots__ = ()  # the kinds of calls have FIELDS and their own: one of them is a Request as well

    _link: Link
    stream_id: int
    _tally: Tally
    received_seconds: float
    moved_seconds: float
    """When anything of it last came, or was sent; calls that came whole have none."""
    deadline_seconds: float
    phase: int
    due: float
    """When the call must be looked at next; infinity for never."""
    armed: bool
    """Whether whoever looks knows of it: most calls are over before they need to be looked at."""
    _ended: bool
    """Whether the peer sends no more."""
    _held: int
    _trace: Trace | None = None

    def _begin(  # noqa: PLR0917 - called for every call, where names cost
        self, link: Link, stream_id: int, path: str, received: float, deadline: float, trace: Trace | None
    ) -> None:
        self._link = link
        self._trace = trace
        self.stream_id = stream_id
        self._tally = link.burst.tally(path)
        self._tally.started += 1
        self.received_seconds = self.moved_seconds = received
        self.deadline_seconds = deadline
        self.phase = OPEN
        self.due = deadline
        self.armed = False
        self._ended = False
        self._held = 0

    def receive(self, data: bytes, ended: bool) -> bool:  # noqa: FBT001 - as the frame has it
        """Take what came, and tell whether the peer may send as much again."""
        self._ended |= ended
        if data:
            self.moved_seconds = monotonic()
        if self.phase != OPEN:
            return True
        try:
            return self._receive(data)
        except ServiceError as error:
            self.fail(error)
            return True

    def fail(self, error: ServiceError) -> None:
        """End the call with an error, where it was not answered yet."""
        if self.phase != OPEN:
            return
        if error.shed is not None:
            self._link.burst.shed(error.shed)
        self._send_error(error)
        self._answered(code_of(error))

    def closed(self) -> None:
        """Learn that the stream is gone, for whatever reason."""
        self._ended = True
        if self.phase == OPEN:
            self._answered(Code.CANCELLED)
        self.phase = CLOSED

    def look(self, now: float) -> None:
        """Do what is due. `due` may be set anew."""
        self.due = self.deadline_seconds
        if now < self.deadline_seconds:
            return
        if self.phase == OPEN:
            self.fail(ExpiredError("the deadline passed before the answer"))
        else:
            self._link.reset(self.stream_id)

    @property
    def idle_since(self) -> float:
        """Since when the call waits for its peer; infinity where its peer waits for us."""
        return self.moved_seconds if self.phase == ANSWERED or not self._ended else math.inf

    def _receive(self, data: bytes) -> bool:
        raise NotImplementedError

    def _send_error(self, error: ServiceError) -> None:
        self._link.send_only(self.stream_id, trailers_only(error))

    def _answered(self, code: Code) -> None:
        self.phase = ANSWERED
        seconds = monotonic() - self.received_seconds
        if code is Code.OK:
            self._tally.answered_seconds.append(seconds)
        else:
            self._link.burst.failed(self._tally.path, code, seconds)
        if self._trace is not None:
            self._trace.end(code, seconds)
        self._link.give(self._held)
        self._held = 0
        self._release()
        if not self._ended:
            self._link.stop_peer(self.stream_id)

    def _release(self) -> None:
        """Let go of everything that the call held."""

    def _take(self, size: int) -> None:
        self._link.take(size)
        self._held += size


def internal(fault: Exception, path: str, metadata: Metadata) -> InternalError:
    """Log a fault of a handler or a method under a new id, and return the error that tells the caller the id alone."""
    error = InternalError()
    log.error("call failed", method=path, error_id=error.id, request_id=request_id(metadata), exc_info=fault)
    return error
