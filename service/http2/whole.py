"""A unary call whose message came whole and at once, as nearly all do: one object is the call and its request.

It behaves as any other call does; it only takes fewer steps. Whatever is out of the ordinary is left to `Call`.
"""

import math
from collections.abc import Sequence

import structlog

from service.calls import Codec, Request
from service.errors import InternalError, ServiceError
from service.http2.events import Whole
from service.http2.messages import PREFIX_BYTES, frame, prefix
from service.http2.opening import Known
from service.http2.streams import ANSWERED, OPEN, Link, Stream

log = structlog.get_logger(__name__)


class WholeCall(Request, Stream):
    """A call that waits for its answer. Its bytes are counted among those in hand, and those being answered."""

    __slots__ = ("_ended", "_held", "_link", "_tally", "armed", "due", "phase", "stream_id")

    def __init__(  # noqa: PLR0917 - called for every call, where names cost
        self, link: Link, stream_id: int, known: Known, codec: Codec, body: bytes, received: float, deadline: float
    ) -> None:
        self._link = link
        self._tally = known.tally
        self.stream_id = stream_id
        self.codec = codec
        self.body = body
        self.received_seconds = received
        self.deadline_seconds = self.due = deadline
        self.metadata = known.head.metadata
        self.cancelled = self.armed = False
        self.outcome = self.trace = None  # a call that is followed is a `Call`
        self.phase = OPEN
        self._ended = True
        self._held = len(body) + PREFIX_BYTES

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
        self._held = 0
        self.phase = ANSWERED
        self._tally.answered_seconds.append(link.burst.now - self.received_seconds)
        link.finish(self.stream_id, size, frame(outcome))

    @property
    def idle_since(self) -> float:
        """Since when the answer waits for its peer, at the earliest; infinity while it is made."""
        return self.received_seconds if self.phase == ANSWERED else math.inf

    def _release(self) -> None:
        self.cancelled = True  # of no consequence where it was answered


def whole_calls(
    link: Link, known: Known, wholes: Sequence[Whole], received: float
) -> tuple[list[WholeCall], list[Whole]]:
    """Make calls of those that ask for what is known, and are plain; the others are given back.

    Plain is what has one message, that is not compressed, and not too large. There is room for them: who calls looked.
    """
    codec = known.codec
    assert codec is not None  # noqa: S101 - who calls has looked
    headers, max_bytes = known.headers, link.burst.limits.max_message_bytes
    deadline = received + known.head.timeout_seconds
    calls, others, size = [], [], 0
    for whole in wholes:
        stream_id, fields, data = whole
        length = len(data) - PREFIX_BYTES
        if fields is headers and 0 <= length <= max_bytes and data.startswith(prefix(length)):
            calls.append(WholeCall(link, stream_id, known, codec, data[PREFIX_BYTES:], received, deadline))
            size += len(data)
        else:
            others.append(whole)
    known.tally.started += len(calls)
    link.begin(size)
    return calls, others


def _forgotten() -> InternalError:
    error = InternalError()
    log.error("request came back without an outcome", error_id=error.id)
    return error
