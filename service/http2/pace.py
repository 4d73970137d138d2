"""How fast a peer may send what costs us work and brings no call."""

from service.http2.limits import Http2Limits

ANSWER_WORTH = 4
"""Frames that one answer entitles a peer to: two window updates, a ping that measures, a reset."""

BYTES_A_FRAME = 1024
"""Bytes of answers that entitle a peer to one more: windows are opened again as they are used up."""


class Pace:
    """A token bucket for control frames: a burst, a rate, and a little more for what is sent to it.

    A flood of pings, settings, resets, window updates or empty data runs it dry; an honest peer, whose control frames
    follow its calls, does not.
    """

    __slots__ = ("_burst", "_rate", "_refilled", "_tokens")

    def __init__(self, limits: Http2Limits, now: float) -> None:
        self._burst = float(limits.control_frames_burst)
        self._rate = limits.control_frames_per_second
        self._tokens = self._burst
        self._refilled = now

    def sent(self, calls: int, size: int) -> None:
        """Entitle the peer to what some answers, of `size` bytes together, bring about."""
        self._tokens = min(self._burst, self._tokens + ANSWER_WORTH * calls + size / BYTES_A_FRAME)

    def left(self, now: float) -> int:
        """Return how many frames may come at this moment."""
        self._tokens = min(self._burst, self._tokens + self._rate * (now - self._refilled))
        self._refilled = now
        return int(self._tokens)

    def spend(self, frames: int) -> None:
        """Count frames that came."""
        self._tokens -= frames
