"""What one connection has in hand, both ways, and when that is too much."""

import math
from typing import Final

from service.http2.budget import Budget
from service.http2.limits import Http2Limits
from service.http2.stalls import Flow

_SWAMPED_FACTOR: Final = 4


class Hand:
    """Counts the bytes of a connection's requests and answers, for itself and for the budget of all connections."""

    def __init__(self, limits: Http2Limits, budget: Budget) -> None:
        self._limits = limits
        self._budget = budget
        self._held = 0
        """Bytes of requests in hand."""
        self._unsent = 0
        """Bytes of answers in hand, as of the last flush."""
        self._queued = 0
        """Bytes of answers queued since the last flush."""
        self._running = 0
        """Bytes of requests that are being answered."""
        self._moved = 0
        """Bytes ever given back: requests that were answered, answers that were taken."""
        self._mark = (-math.inf, 0, 0)
        """When it was last looked how much waited for the peer, how much that was, and what had moved until then."""
        self._flow: Flow | None = None
        """What waited and moved between the last two looks."""

    @property
    def clogged(self) -> bool:
        """Whether no further call may be run: too many answers wait for the peer, or are being made for it."""
        return self._unsent + self._queued + self._running > self._limits.max_unsent_bytes

    @property
    def held_back(self) -> bool:
        """Whether no window may be opened: too much is in hand."""
        return self._held > self._limits.max_connection_bytes_in_hand or self._budget.pressed or self.clogged

    def has_room(self, calls: int, size: int) -> bool:
        """Whether so many further calls may be run, with so many bytes together."""
        waiting = self._unsent + self._queued + self._running + size
        return waiting <= self._limits.max_unsent_bytes and self._budget.has_room(calls, size)

    def begin(self, size: int) -> None:
        """Count bytes of requests into what is in hand, and into what is being answered. There is room for them."""
        self._held += size
        self._running += size
        self._budget.bytes += size

    def hold(self, size: int) -> None:
        """Count bytes of requests into what is in hand. There is room for them."""
        self._held += size
        self._budget.bytes += size

    def running(self, size: int) -> None:
        """Count bytes of requests that are being answered for this link, in and (negative) out."""
        self._running += size

    def take(self, size: int) -> None:
        """Count bytes of a request into what is in hand.

        Raises:
            OverloadedError: no more may be taken.
        """
        budget = self._budget
        budget.admit_bytes()
        self._held += size
        budget.bytes += size

    def give(self, size: int) -> None:
        """Count them out."""
        self._held -= size
        self._moved += size
        self._budget.give(size)

    @property
    def swamped(self) -> bool:
        """Whether so many answers wait for the peer that even calls that were begun must not add to them."""
        return self._unsent + self._queued > _SWAMPED_FACTOR * self._limits.max_unsent_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes that this connection has in hand, both ways."""
        return self._held + self._unsent

    @property
    def running_bytes(self) -> int:
        """Bytes of requests that are being answered."""
        return self._running

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the peer: to send the rest of a request, or to take an answer."""
        return max(0, self._held - self._running) + self._unsent

    @property
    def flow(self) -> Flow | None:
        """What waited for the peer, and moved, over the last `stall_seconds`; None where that is not known yet."""
        last = self._flow
        return last and Flow(min(last.waiting_bytes, self.waiting_bytes), last.moved_bytes, last.seconds)

    def measure(self, now: float) -> None:
        """Look how much moved, where the last look was at least `stall_seconds` ago."""
        seen, waited, moved = self._mark
        if now < seen + self._limits.stall_seconds:
            return
        waiting = self.waiting_bytes
        if seen > -math.inf:
            self._flow = Flow(min(waited, waiting), self._moved - moved, now - seen)
        self._mark = (now, waiting, self._moved)

    def leave_unsent(self, size: int) -> None:
        """Learn how many bytes of answers were left when all were written that could be."""
        self._queued = 0
        if size > self._unsent:
            self._budget.take(size - self._unsent)
        elif size < self._unsent:
            self._budget.give(self._unsent - size)
            self._moved += self._unsent - size
        self._unsent = size
