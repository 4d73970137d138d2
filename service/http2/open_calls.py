"""The calls that a connection has open: each takes a place in the budget, and may have to be looked at in time."""

import math
from collections.abc import Sequence

from service.http2.ages import Times
from service.http2.budget import Budget
from service.http2.deadlines import Wheel
from service.http2.streams import Stream


class OpenCalls:
    """The calls of one connection, by the stream's number.

    Guarantees: each call is told once that its stream is gone; the budget then has back the place that was taken for
    it; no timer is left that knows it.
    """

    def __init__(self, wheel: Wheel[Stream], budget: Budget, times: Times) -> None:
        self.streams: dict[int, Stream] = {}
        self._wheel = wheel
        self._budget = budget
        self._times = times
        self._fresh: list[Stream] = []

    def __bool__(self) -> bool:
        return bool(self.streams)

    def keep(self, stream: Stream) -> None:
        """Add a call that was admitted."""
        self.streams[stream.stream_id] = stream
        self._times.idle_since = math.inf
        if stream.due < math.inf:
            self._fresh.append(stream)

    def arm(self) -> None:
        """Set the timers of calls that outlived their first turn."""
        if self.streams:
            for stream in self._fresh:
                if stream.due < math.inf and stream.stream_id in self.streams:
                    self._wheel.add(stream, stream.due)
                    stream.armed = True
        self._fresh.clear()

    def keep_all(self, streams: Sequence[Stream]) -> None:
        """Add calls that were admitted; they are all due at the same time."""
        self.streams.update([(stream.stream_id, stream) for stream in streams])
        self._times.idle_since = math.inf
        if streams[0].due < math.inf:
            self._fresh += streams

    def end(self, stream_ids: Sequence[int]) -> None:
        """Learn that streams are gone, whether or not calls were opened on them."""
        for stream_id in stream_ids:
            stream = self.streams.pop(stream_id, None)
            if stream is not None:
                self._end(stream)
        if not self.streams:
            self._times.idle_since = self._times.heard

    def end_all(self) -> None:
        """Learn that the connection is gone."""
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            self._end(stream)
        self._fresh.clear()

    def _end(self, stream: Stream) -> None:
        stream.closed()
        self._budget.calls -= 1
        if stream.armed:
            self._wheel.discard(stream, stream.due)
