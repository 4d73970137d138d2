"""What a connection sends: the answers of its calls, and what it has to say itself."""

from collections.abc import Callable
from typing import Final

import structlog
from ngh2 import Connection, ErrorCode, NGH2Error

from service.calls import Request
from service.closed import Closed
from service.http2.backlog import Backlog
from service.http2.headers import Headers
from service.http2.shared import Shared

log = structlog.get_logger(__name__)

DRAIN_PING: Final = b"draining"
_KEEPALIVE_PING: Final = b"are you?"


class Outgoing(Backlog):
    """A `Link` to the calls of a connection. What they send is queued in ngh2, and written once a turn."""

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

    def send_answer(self, stream_id: int, head: Headers, framed: bytes, tail: Headers) -> None:
        """Send a whole answer with one message."""
        http2 = self._http2
        self._queued += len(framed)
        self._line.answers += 1
        try:
            http2.send_response(stream_id, head)
            http2.send_data(stream_id, framed)
            http2.send_trailers(stream_id, tail)
        except NGH2Error as error:
            log.debug("answer came too late", reason=str(error))
        self.burst.touch(self)

    def send_only(self, stream_id: int, headers: Headers) -> None:
        """Send a header block that is the whole answer."""
        self._queue(lambda http2: http2.send_response(stream_id, headers, end_stream=True))
        self._line.answers += 1

    def send_head(self, stream_id: int, headers: Headers) -> None:
        """Send the header block before the messages."""
        self._queue(lambda http2: http2.send_response(stream_id, headers))

    def send_message(self, stream_id: int, framed: bytes) -> None:
        """Send one message with its prefix."""
        self._queued += len(framed)
        self._queue(lambda http2: http2.send_data(stream_id, framed))
        if self._queued > self._limits.max_unsent_bytes and self._line.push():
            self._count_unsent()

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """Send the header block that ends the call."""
        self._queue(lambda http2: http2.send_trailers(stream_id, headers))
        self._line.answers += 1

    def stop_peer(self, stream_id: int) -> None:
        """Once the answer is sent, tell the peer that the rest of its request is not wanted."""
        if stream_id in self._calls.streams:
            self._stopping.add(stream_id)

    def reset(self, stream_id: int) -> None:
        """Cut the stream off, with what is not yet sent."""
        self._queue(lambda http2: http2.reset_stream(stream_id, ErrorCode.CANCEL))

    # What becomes of streams ------------------------------------------------------------------------------------------

    def refuse(self, stream_id: int, headers: Headers, *, ended: bool) -> None:
        """Answer a request for which no call was opened; `ended` where its peer sends no more of it."""
        self.send_only(stream_id, headers)
        if not ended:
            self._stopping.add(stream_id)

    def forget(self, stream_id: int) -> None:
        """Learn that a stream is gone."""
        self._stopping.discard(stream_id)
        if self._owed:
            self._pay(stream_id)

    # What the connection itself says ----------------------------------------------------------------------------------

    def ask(self) -> None:
        """Find out whether the peer is there."""
        self._queue(lambda http2: http2.ping(_KEEPALIVE_PING))

    def give_notice(self) -> None:
        """Tell the peer to open no more calls, and ask it to say when it knows."""
        self._queue(lambda http2: http2.send_shutdown_notice())
        self._queue(lambda http2: http2.ping(DRAIN_PING))

    def last_call(self) -> None:
        """Name the last call that will be answered."""
        if not self._line.times.last_called:
            self._line.times.last_called = True
            self._queue(lambda http2: http2.send_goaway(ErrorCode.NO_ERROR))

    def end(self, code: ErrorCode, reason: str) -> None:
        """Say why the connection ends, and close it."""
        if not self._line.open:
            return
        log.debug("connection is ended", reason=reason)
        self._line.terminate(code)
        self.close()

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

    def _queue(self, action: Callable[[Connection], None]) -> None:
        if not self._line.open:
            return
        try:
            action(self._http2)
        except NGH2Error as error:  # the stream went away in the same turn; its StreamClosed is on the way
            log.debug("answer came too late", reason=str(error))
        self.burst.touch(self)

    def _stop_answered(self) -> None:
        """Reset streams whose answer is out, so that their peer stops sending."""
        for stream_id in [stream_id for stream_id in self._stopping if self._is_sent(stream_id)]:
            self._stopping.discard(stream_id)
            self._http2.reset_stream(stream_id, ErrorCode.NO_ERROR)
        self._line.write()

    def _is_sent(self, stream_id: int) -> bool:
        if self._http2.queued_body_size(stream_id):
            return False
        if stream_id not in self._calls.streams:
            return True
        # an empty window keeps even trailers back
        return self._http2.stream_remote_window_size(stream_id) > 0 and self._http2.remote_window_size > 0

    def _count_unsent(self) -> None:
        self.leave_unsent(self._line.unsent_bytes)
