"""One socket and the HTTP/2 on it: how it is greeted, written to, and closed. No call is known here."""

import asyncio
import math
import random
from time import monotonic
from typing import Final

import structlog

from service.closed import Closed
from service.http2.ages import Times, age_limit
from service.http2.control_frames import SessionLimits
from service.http2.encryption import Encryption
from service.http2.frames import ErrorCode
from service.http2.limits import HARD_HEADER_FACTOR, Http2Limits
from service.http2.pace import Pace
from service.http2.sending import Part
from service.http2.session import Session

log = structlog.get_logger(__name__)

_CHANCE: Final = random.Random()  # noqa: S311 - spreads load, guards nothing
_LEAVING: Final = frozenset({Closed.AGE, Closed.IDLE, Closed.DRAINING})
"""Why a peer is asked to leave by itself."""
_WRITE_BUFFER_BYTES: Final = 1 << 20
_WRITE_BYTES: Final = 1 << 18
"""Written at once of what waited for the peer's windows."""
_JOINED_BYTES: Final = 1 << 16
"""Up to here parts are joined before they are written: it is less work than to write each."""


class Line:
    """A connection as bytes: the session, and the transport. It has no reference to who uses it."""

    def __init__(self, limits: Http2Limits) -> None:
        now = monotonic()
        self.http2 = Session(_session_limits(limits))
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
        self._encryption: Encryption | None = None
        self._paused = False
        self._behind = False
        self._shut = False
        """Whether it is to be closed, once what was written is."""

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
        """Bytes of answers that wait for the peer, in the session and in the transport."""
        return 0 if self._transport is None else self.http2.unsent_bytes + self._written_bytes

    @property
    def _written_bytes(self) -> int:
        """Bytes that were written, and wait for the peer."""
        assert self._transport is not None  # noqa: S101 - who calls has looked
        waiting = 0 if self._encryption is None else self._encryption.waiting_bytes
        return waiting + self._transport.get_write_buffer_size()

    def takes_the_rest(self, now: float) -> bool:
        """Whether a drained peer has yet to take answers that were written, and still may: it only reads slowly."""
        if self._transport is None or self.open or now >= self.times.drain_end:
            return False
        return self.times.drain_end < math.inf and self._written_bytes > 0

    # Its beginning ----------------------------------------------------------------------------------------------------

    def connect(self, transport: asyncio.Transport) -> None:
        """Take the transport, and queue our greeting."""
        self._transport = transport
        self.open = True
        if transport.get_extra_info("sslcontext") is None:
            transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)
        else:
            self._encryption = Encryption(transport)
        self.http2.greet()

    # Bytes ------------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Read what came, as long as not too many frames bring nothing."""
        self._pace.spend(self.http2.receive(data, self._pace.left(now)))

    @property
    def behind(self) -> bool:
        """Whether more came than was read."""
        return self.open and self.http2.behind

    def heed_behind(self) -> None:
        """Let nothing more come while there is more than was read."""
        if self._behind == self.behind:
            return
        self._behind = not self._behind
        if self._transport is None or self._paused or self._transport.is_closing():
            return
        if self._behind:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def write(self) -> None:
        """Write what is queued, as far as the peer's windows let it out."""
        while self.open and (out := self.http2.take(_WRITE_BYTES)):
            size = self._put(out)
            self._pace.sent(self.answers, size)
            self.answers = 0

    def push(self) -> bool:
        """Write within a turn, so that one call's many answers do not lie here, and tell whether that could be done."""
        if not self.writable:
            return False
        self.write()
        return True

    def _put(self, parts: list[Part]) -> int:
        """Hand parts to the transport, joined where they are small, and return how many bytes that were."""
        if self._transport is None:
            return 0
        size = sum(map(len, parts))
        if self._encryption is not None:
            self._encryption.write(parts, size)
        elif size <= _JOINED_BYTES:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)
        return size

    def pause(self) -> None:
        """Stop writing: the peer does not read. What it asks for waits with it."""
        self._paused = True
        if self._transport is not None and self.open:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on writing."""
        self._paused = False
        if self._encryption is not None:
            self._encryption.go_on()  # and may be paused again
        if self._transport is None or self._paused:
            return
        if self._shut:
            self._shut = False
            self._shut_down(self._transport)
        elif not self._behind and not self._transport.is_closing():
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
        self.http2.terminate(code)
        self._put(self.http2.take(0))

    def close(self) -> None:
        """Close once the peer has taken what was written: not before, since unread bytes of its would cut that off."""
        if self._transport is None or not self.open:
            return
        self.open = False
        self.times.closing = monotonic()
        if self._paused or self._behind:
            self._transport.resume_reading()
        self._shut = self._encryption is not None and self._encryption.waiting_bytes > 0
        if not self._shut:
            self._shut_down(self._transport)

    @staticmethod
    def _shut_down(transport: asyncio.Transport) -> None:
        """Write nothing more; what was written still leaves."""
        if not transport.can_write_eof():
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError as error:  # asyncio's own loop says at once that the peer is gone
            log.debug("connection was gone before it was closed", reason=str(error))
            transport.abort()

    def abort(self) -> None:
        """Drop the connection."""
        self.open = False
        self.times.closing = min(self.times.closing, monotonic())
        if self._transport is not None:
            self._transport.abort()

    def lost(self) -> None:
        """Learn that the connection is gone."""
        self._transport = self._encryption = None
        self.open = False
        self.times.closing = min(self.times.closing, monotonic())


def _session_limits(limits: Http2Limits) -> SessionLimits:
    hard_bytes = HARD_HEADER_FACTOR * limits.max_header_list_bytes
    return SessionLimits(
        max_streams=limits.max_calls_per_connection,
        stream_window_bytes=limits.stream_window_bytes,
        connection_window_bytes=limits.connection_window_bytes,
        max_list_bytes=limits.max_header_list_bytes,
        hard_list_bytes=hard_bytes,
        hard_list_fields=hard_bytes // 40,
    )
