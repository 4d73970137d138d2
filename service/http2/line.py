"""One socket and the HTTP/2 on it: how it is greeted, written to, and closed. No call is known here."""

import asyncio
import math
import random
from time import monotonic
from typing import Final

import structlog
from ngh2 import Configuration, Connection, ErrorCode, NGH2Error, Role, Setting

from service.closed import Closed
from service.http2.ages import Times, age_limit
from service.http2.limits import HARD_HEADER_FACTOR, Http2Limits
from service.http2.pace import Pace

log = structlog.get_logger(__name__)

_CHANCE: Final = random.Random()  # noqa: S311 - spreads load, guards nothing
_LEAVING: Final = frozenset({Closed.AGE, Closed.IDLE, Closed.DRAINING})
"""Why a peer is asked to leave by itself."""
_GOAWAY: Final = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00"  # on stream 0, eight bytes follow
_WRITE_BUFFER_BYTES: Final = 1 << 20
_WRITE_BYTES: Final = 1 << 18
"""Taken from ngh2 at once as a burst is answered: what it grows to hold more, it copies as it grows."""


class Line:
    """A connection as bytes: ngh2's side of it, and the transport. It has no reference to who uses it."""

    def __init__(self, limits: Http2Limits) -> None:
        now = monotonic()
        self.http2 = Connection(Role.SERVER, _configuration(limits))
        self.times = Times(connected=now, age_limit=age_limit(now, limits, _CHANCE), heard=now, idle_since=now)
        self.open = False
        """Whether there is a connection that we did not close."""
        self.answers = 0
        """Answers queued since the last write."""
        self.why: Closed | None = None
        """What ends it on our side, first of all; until something does, why its peer was asked to leave."""
        self._limits = limits
        self._pace = Pace(limits, now)
        self._transport: asyncio.Transport | None = None
        self._paused = False

    # What it is -------------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether the peer takes what is written: beyond what it reads, nothing new is."""
        return self.open and not self._paused

    @property
    def connected(self) -> bool:
        """Whether there is a connection, also one that only waits for its peer to close it as well."""
        return self._transport is not None

    @property
    def begun(self) -> bool:
        """Whether there ever was a connection."""
        return self._transport is not None or self.times.closing < math.inf

    @property
    def unsent_bytes(self) -> int:
        """Bytes of answers that wait for the peer, in ngh2 and in the transport."""
        return 0 if self._transport is None else self.http2.queued_body_size() + self._transport.get_write_buffer_size()

    def takes_the_rest(self, now: float) -> bool:
        """Whether a drained peer has yet to take answers that were written, and still may: it only reads slowly."""
        if self._transport is None or self.open or now >= self.times.drain_end:
            return False
        return self.times.drain_end < math.inf and self._transport.get_write_buffer_size() > 0

    # Its beginning ----------------------------------------------------------------------------------------------------

    def connect(self, transport: asyncio.Transport) -> None:
        """Take the transport, and queue our greeting."""
        self._transport = transport
        self.open = True
        transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)
        limits = self._limits
        self.http2.initiate_connection(
            {
                Setting.MAX_CONCURRENT_STREAMS: limits.max_calls_per_connection,
                Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
                Setting.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
            }
        )
        self.http2.set_local_window_size(limits.connection_window_bytes)

    # Bytes ------------------------------------------------------------------------------------------------------------

    def keeps_pace(self, control_frames: int, now: float) -> bool:
        """Count frames that brought nothing, and tell whether there may be so many."""
        return self._pace.spend(control_frames, now)

    def write(self) -> None:
        """Write what is queued.

        Raises:
            NGH2Error: the peer broke the rules.
        """
        while self._transport is not None and (out := self.http2.data_to_send(_WRITE_BYTES)):
            self._transport.write(out)
            self._pace.sent(self.answers, len(out))
            self.answers = 0
            if len(out) < _WRITE_BYTES:
                break

    def push(self) -> bool:
        """Write within a turn, so that one call's many answers do not lie here, and tell whether that could be done.

        What comes of it is left for the flush.
        """
        if self._transport is None or not self.writable:
            return False
        try:
            self._transport.write(self.http2.data_to_send())
        except NGH2Error as error:
            log.debug("nothing could be written", reason=str(error))
            return False
        return True

    def pause(self) -> None:
        """Stop writing: the peer does not read. What it asks for waits with it."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on writing."""
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # Its end ----------------------------------------------------------------------------------------------------------

    def ends_by(self, why: Closed) -> None:
        """Note why the connection ends, where nothing else ended it before.

        To be asked to leave is no end yet; a peer that then goes does what it was asked.
        """
        if self.why is None or (self.open and self.why in _LEAVING and why is not Closed.PEER):
            self.why = why

    def terminate(self, code: ErrorCode) -> None:
        """Write a GOAWAY; the connection is to be closed then."""
        if self._transport is None:
            return
        try:
            self.http2.terminate_connection(code)
            self._transport.write(self.http2.data_to_send())
        except NGH2Error as error:
            log.debug("no GOAWAY could be sent", reason=str(error))

    def break_off(self, last_stream: int, code: ErrorCode) -> None:
        """Write the GOAWAY that ngh2, having given up, no longer can."""
        if self._transport is not None:
            self._transport.write(_GOAWAY + last_stream.to_bytes(4, "big") + int(code).to_bytes(4, "big"))

    def close(self) -> None:
        """Close once the peer has taken what was written: not before, since unread bytes of its would cut that off."""
        if self._transport is None or not self.open:
            return
        self.open = False
        self.times.closing = monotonic()
        if self._paused:
            self._transport.resume_reading()
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError as error:  # asyncio's own loop says at once that the peer is gone
            log.debug("connection was gone before it was closed", reason=str(error))
            self._transport.abort()

    def abort(self) -> None:
        """Drop the connection."""
        self.open = False
        self.times.closing = min(self.times.closing, monotonic())
        if self._transport is not None:
            self._transport.abort()

    def lost(self) -> None:
        """Learn that the connection is gone."""
        self._transport = None
        self.open = False
        self.times.closing = min(self.times.closing, monotonic())


def _configuration(limits: Http2Limits) -> Configuration:
    hard_bytes = HARD_HEADER_FACTOR * limits.max_header_list_bytes
    return Configuration(
        auto_window_update=False,
        max_inbound_header_list_size=hard_bytes,
        max_inbound_header_count=hard_bytes // 40,
        max_send_header_block_length=hard_bytes,
        stream_reset_rate_limit=(limits.control_frames_burst, limits.control_frames_per_second),
        glitch_rate_limit=(limits.control_frames_burst // 4, limits.control_frames_per_second // 4 or 1),
    )
