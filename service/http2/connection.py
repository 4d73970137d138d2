"""One peer, from its first byte to its last: what the event loop, the burst, the clock and the front tell it.

Both directions are bounded: windows are opened by hand, and only while there is room for what they let in; a peer that
does not take its answers gets no more of them made.
"""

import asyncio
import math
from time import monotonic
from typing import Final, cast

from service.closed import Closed
from service.errors import DrainingError, ServiceError, Shed
from service.http2.ages import Step, next_step, old_or_idle
from service.http2.frames import ErrorCode
from service.http2.incoming import Incoming
from service.http2.outgoing import Outgoing
from service.http2.shared import Shared
from service.http2.stalls import Idle

_READ_SECONDS: Final = 1e-3
"""What one connection sent is read for about so long; then others have their turn."""


class Peer(Outgoing, asyncio.Protocol):
    """One connection, from `connection_made` to `connection_lost`.

    Guarantees: when it is gone, so are its calls, and the budget has back what they took.
    """

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._gone = shared.gone
        self._times = self._line.times
        self._incoming = Incoming(shared, self._line, self._calls)

    # Told by the loop -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        self._line.connect(cast("asyncio.Transport", transport))
        self.burst.touch(self)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if not self._line.open:
            return
        self.burst.catch_up()
        self._read(data)

    def _read(self, data: bytes) -> None:
        """Read what came, for as long as one connection may keep the loop; what is left waits for another turn."""
        now = self._times.heard = monotonic()
        self._line.receive(data, now)
        self._incoming.read(self, now)
        while self._line.behind and monotonic() < now + _READ_SECONDS:
            self._line.receive(b"", now)
            self._incoming.read(self, now)
        self._line.heed_behind()
        if self._line.behind:
            self.burst.later(self)
        self.burst.touch(self)

    def pause_writing(self) -> None:
        """Stop writing: the peer does not read. What it asks for waits with it."""
        self._line.pause()

    def resume_writing(self) -> None:
        """Go on writing."""
        self._line.resume()
        self.burst.touch(self)

    def connection_lost(self, _reason: Exception | None) -> None:
        """End what is left."""
        self._line.lost()
        self._end_calls()
        self.leave_unsent(0)
        self._waiters.discard(self)
        self._gone(self, self._line.why or Closed.PEER)

    # Told by the burst ------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Read more of what came."""
        if self._line.behind:
            self._read(b"")

    def flush(self) -> None:
        """Write what there is to write."""
        self._relieve()
        if self._line.writable:
            self._line.write()

    def settle(self) -> None:
        """See what was changed by writing; also where so much was written that no more may be."""
        if not self._line.open:
            return
        self._incoming.read(self, self._times.heard)
        if self._stopping:
            self._stop_answered()
            self._incoming.read(self, self._times.heard)
        self._calls.arm()
        self._count_unsent()
        if self._pausing:
            self._wake()

    # Told by the clock, and by the front ------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether there ever was a connection."""
        return self._line.begun

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return not self._line.connected

    @property
    def leaving(self) -> bool:
        """Whether we closed it, and its peer has yet to."""
        return not self._line.open

    def idle_calls(self, before: float) -> Idle:
        """Count the calls that have waited for the peer since before that time."""
        since = [stream.idle_since for stream in self._calls.streams.values()]
        long = [each for each in since if each < before]
        return Idle(len(long), min(long, default=math.inf))

    def look(self, now: float) -> None:
        """Do what the connection's age and silence ask for, and measure what it moves."""
        self._count_unsent()  # nobody tells when the loop has sent what was not enough to pause us
        self.measure(now)
        if self._line.takes_the_rest(now):
            self._times.closing = now
        step = next_step(self._times, now, self._limits)
        if step is Step.PING:
            self._times.pinged = now
            self.ask()
        elif step is Step.DRAIN:
            self.drain(now, self._limits.age_grace_seconds, old_or_idle(self._times, now))
        elif step is Step.LAST_CALL:
            self.last_call()
        elif step is Step.CUT_CALLS:
            self.cut(DrainingError("the connection is at its end", Shed.CONNECTION_AGE), self._line.why or Closed.AGE)
        elif step is Step.ABORT:
            self.abort(Closed.KEEPALIVE if self._times.greeted else self._line.why or Closed.HANDSHAKE)

    def drain(self, now: float, grace_seconds: float, why: Closed) -> None:
        """Let the peer open no more calls, finish those it has, and close.

        The peer's answer to a ping tells that it knows: calls that it opened before are still answered. One that did
        not greet yet is told as well, since its first calls may be under way. One that was told before, for its age or
        because it was idle, goes for that reason still, unless it has to be cut.
        """
        if now + grace_seconds < self._times.drain_end:
            self._times.drain_end, self._times.stopping = now + grace_seconds, why is Closed.DRAINING
        if self._times.notified == math.inf:
            self._times.notified = now
            self._line.ends_by(why)
            self.give_notice()

    def cut(self, error: ServiceError, why: Closed, *, enough: bool = False) -> None:
        """End all calls with an error, and close; `enough` tells the peer that it asked for too much."""
        self._line.ends_by(why)
        for stream in list(self._calls.streams.values()):
            stream.fail(error)
        self.flush()
        self.end(ErrorCode.ENHANCE_YOUR_CALM if enough else ErrorCode.NO_ERROR, error.message)

    def abort(self, why: Closed = Closed.FAULT) -> None:
        """Drop the connection."""
        self._line.ends_by(why)
        self._line.abort()
