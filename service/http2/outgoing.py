"""What a connection sends: the answers of its calls, and what it has to say itself."""

from collections.abc import Sequence
from typing import Final

import structlog

from service.calls import Request
from service.closed import Closed
from service.http2.backlog import Backlog
from service.http2.frames import ErrorCode
from service.http2.headers import Headers
from service.http2.sending import Part
from service.http2.shared import Shared

log = structlog.get_logger(__name__)

DRAIN_PING: Final = b"draining"
_KEEPALIVE_PING: Final = b"are you?"


class Outgoing(Backlog):
    """A `Link` to the calls of a connection. What they send is queued in the session, and written once a turn."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._stopping: set[int] = set()
        """Streams that are answered, or refused, while the peer may still send."""

    # A link to the calls ----------------------------------------------------------------------------------------------

    def run(self, request: Request, weight_bytes: int) -> None:
        """Have a request answered; its reply is called on the loop's thread."""
        size, reply = len(request.body), request.reply

        def answered(request: Request) -> None:
            self._running -= size
            self._budget.give(size)
            reply(request)

        self._running += size
        self._budget.take(size)
        request.reply = answered
        self.burst.add(request, weight_bytes)

    def finish(self, stream_id: int, size: int, message: bytes) -> None:
        """Count the bytes of a request out, and send its ordinary answer: one message with its prefix."""
        self._running -= size
        self._held -= size
        self._moved += size
        self._budget.bytes -= size
        self._queued += len(message)
        self._line.answers += 1
        self._http2.answer(stream_id, message)
        self.burst.touch(self)

    def send_answer(self, stream_id: int, head: Headers, parts: Sequence[Part], tail: Headers) -> None:
        """Send a whole answer with one message, its prefix in it."""
        http2 = self._http2
        self._queued += sum(map(len, parts))
        self._line.answers += 1
        http2.send_head(stream_id, head)
        http2.send_data(stream_id, parts)
        http2.send_tail(stream_id, tail)
        self.burst.touch(self)

    def send_only(self, stream_id: int, headers: Headers) -> None:
        """Send a header block that is the whole answer."""
        self._http2.send_head(stream_id, headers, end=True)
        self.burst.touch(self)
        self._line.answers += 1

    def send_head(self, stream_id: int, headers: Headers) -> None:
        """Send the header block before the messages."""
        self._http2.send_head(stream_id, headers)
        self.burst.touch(self)

    def send_message(self, stream_id: int, framed: bytes) -> None:
        """Send one message with its prefix."""
        self._queued += len(framed)
        self._http2.send_data(stream_id, (framed,))
        self.burst.touch(self)
        if self._queued > self._limits.max_unsent_bytes and self._line.push():
            self._count_unsent()

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """Send the header block that ends the call."""
        self._http2.send_tail(stream_id, headers)
        self.burst.touch(self)
        self._line.answers += 1

    def stop_peer(self, stream_id: int) -> None:
        """Once the answer is sent, tell the peer that the rest of its request is not wanted."""
        if stream_id in self._calls.streams:
            self._stopping.add(stream_id)

    def reset(self, stream_id: int) -> None:
        """Cut the stream off, with what is not yet sent."""
        self._http2.reset(stream_id, ErrorCode.CANCEL)
        self.burst.touch(self)

    # What becomes of streams ------------------------------------------------------------------------------------------

    def refuse(self, stream_id: int, headers: Headers, *, ended: bool) -> None:
        """Answer a request for which no call was opened; `ended` where its peer sends no more of it."""
        self.send_only(stream_id, headers)
        if not ended:
            self._stopping.add(stream_id)

    def forget(self, stream_ids: Sequence[int]) -> None:
        """Learn that streams are gone."""
        if self._stopping:
            self._stopping.difference_update(stream_ids)
        if self._heads:
            self.give(sum([self._heads.pop(stream_id, 0) for stream_id in stream_ids]))
        if self._owed:
            for stream_id in stream_ids:
                self._pay(stream_id)

    # What the connection itself says ----------------------------------------------------------------------------------

    def ask(self) -> None:
        """Find out whether the peer is there."""
        self._http2.ping(_KEEPALIVE_PING)
        self.burst.touch(self)

    def give_notice(self) -> None:
        """Tell the peer to open no more calls, and ask it to say when it knows."""
        self._http2.give_notice()
        self._http2.ping(DRAIN_PING)
        self.burst.touch(self)

    def last_call(self) -> None:
        """Name the last call that will be answered."""
        if not self._line.times.last_called:
            self._line.times.last_called = True
            self._http2.last_call()
            self.burst.touch(self)

    def end(self, code: ErrorCode, reason: str) -> None:
        """Say why the connection ends, and close it."""
        if not self._line.open:
            return
        log.debug("connection is ended", reason=reason)
        self._line.terminate(code)
        self.close()

    def break_off(self) -> None:
        """Close a connection whose peer broke the rules; the session has a GOAWAY for it."""
        self._line.write()
        self.close(Closed.MISUSE)

    def close(self, why: Closed | None = None) -> None:
        """Close the connection, and end its calls."""
        if why is not None:
            self._line.ends_by(why)
        if not self._line.open:
            return
        self._line.close()
        self._end_calls()

    def _end_calls(self) -> None:
        self._calls.end_all()
        self._forget()

    # Writing ----------------------------------------------------------------------------------------------------------

    def _stop_answered(self) -> None:
        """Reset streams whose answer is out, so that their peer stops sending."""
        for stream_id in [stream_id for stream_id in self._stopping if self._http2.is_answered(stream_id)]:
            self._stopping.discard(stream_id)
            self._http2.reset(stream_id, ErrorCode.NO_ERROR)
        self._line.write()

    def _count_unsent(self) -> None:
        self.leave_unsent(self._line.unsent_bytes)
