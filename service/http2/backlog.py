"""What a connection keeps back until there is room again: calls, handlers, and what its peer may send."""

from collections import deque
from typing import Final

from service.http2.burst import Flushable
from service.http2.hand import Hand
from service.http2.line import Line
from service.http2.open_calls import OpenCalls
from service.http2.shared import Shared
from service.http2.streaming import StreamCall
from service.http2.unary import Call

_STREAM_PART: Final = 4
"""One stream may fill this part of what may wait for its peer before its handler is asked to pause."""


class Backlog(Hand, Flushable):
    """What waits on a connection for room, in the order in which it came.

    A connection is among the front's `waiters` while it keeps anything back, so that it is flushed even where nothing
    comes from its peer.
    """

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.limits, shared.budget)
        self.burst = shared.burst
        self._line = Line(shared.limits)
        self._http2 = self._line.http2
        self._calls = OpenCalls(shared.wheel, shared.budget, self._line.times)
        self._waiters = shared.waiters
        self._owed: dict[int, int] = {}
        """Bytes received on a stream for which no window was opened again."""
        self._heads: dict[int, int] = {}
        """Bytes of large header lists, by the stream that is open."""
        self._waiting: deque[Call] = deque()
        self._pumps: dict[StreamCall, None] = {}
        self._pausing: dict[StreamCall, None] = {}
        """Streams whose handlers wait for room."""

    def wait(self, call: Call) -> None:
        """Keep a complete call until the link is no longer clogged, then `run` it."""
        self._waiting.append(call)
        self._waiters.add(self)

    def keep_head(self, stream_id: int, size: int) -> None:
        """Count a large header list among the bytes in hand, until its stream is gone.

        Raises:
            OverloadedError: no more may be taken.
        """
        self.take(size)
        self._heads[stream_id] = size

    def owe(self, stream_id: int, size: int) -> None:
        """Leave windows as they are after bytes were received, until there is room again.

        Stream 0 is the connection: its streams have no window left to open.
        """
        self._owed[stream_id] = self._owed.get(stream_id, 0) + size
        self._waiters.add(self)

    def _pay(self, stream_id: int) -> None:
        """Open the connection's window again for what was received on a stream that is gone."""
        owed = self._owed.pop(stream_id, 0)
        if owed:
            self._http2.acknowledge(stream_id, owed)

    def pump_later(self, stream: StreamCall) -> None:
        """Have `pump` called before the next flush."""
        self._pumps[stream] = None
        self.burst.touch(self)

    def is_full(self, stream_id: int) -> bool:
        """Whether a stream should be sent no more for the time being: too much waits for the peer."""
        return self.clogged or self._http2.queued_bytes_of(stream_id) > self._limits.max_unsent_bytes // _STREAM_PART

    def resume_later(self, stream: StreamCall) -> None:
        """Have `resume` called once the stream is not full, in another turn of the loop."""
        self._pausing[stream] = None
        self._waiters.add(self)
        self.burst.touch(self)

    def _relieve(self) -> None:
        """Go on with what was kept back, where there is room again."""
        pumps, self._pumps = self._pumps, {}
        for pumped in pumps:
            pumped.pump()
        if self not in self._waiters or self.clogged:
            return
        while self._waiting and not self.clogged:
            self._waiting.popleft().run()
        for stream_id in list(self._owed):
            stream = self._calls.streams.get(stream_id)
            if isinstance(stream, StreamCall):
                stream.pump()
                if stream.stopped:
                    continue
            if not self.held_back:
                self._http2.acknowledge(stream_id, self._owed.pop(stream_id))
        if not self._waiting and not self._owed and not self._pausing:
            self._waiters.discard(self)

    def _wake(self) -> None:
        """Let handlers go on that have room again; not in this turn, since one that pours would never let it end."""
        for stream in [stream for stream in self._pausing if not self.is_full(stream.stream_id)]:
            del self._pausing[stream]
            self.burst.loop.call_soon(stream.resume)

    def _forget(self) -> None:
        """Keep nothing back any more: the connection's calls are over."""
        self.give(sum(self._heads.values()))
        self._heads.clear()
        self._waiting.clear()
        self._pumps.clear()
        self._pausing.clear()
        self._owed.clear()
