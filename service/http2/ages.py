"""What becomes of a connection as time passes: decided from its times alone, so that it can be tested without one."""

import math
import random
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from service.closed import Closed
from service.http2.limits import Http2Limits

NOTICE_SECONDS = 5.0
"""A peer has this long to answer the ping behind a shutdown notice; then the last GOAWAY goes out anyway."""

_AGE_JITTER: Final = 0.1


class Step(Enum):
    """What to do with a connection now."""

    NOTHING = auto()
    PING = auto()
    """Find out whether the peer is there."""
    DRAIN = auto()
    """Tell the peer to open no further call here."""
    LAST_CALL = auto()
    """Name the last call that will be answered."""
    CUT_CALLS = auto()
    """End the calls that are left, and close."""
    ABORT = auto()
    """Drop the connection."""


@dataclass(slots=True)
class Times:
    """What is known of a connection. Times of the monotonic clock; infinity for what has not happened."""

    connected: float
    age_limit: float
    """When it is old; the jitter is in it."""
    heard: float
    """When anything last came from the peer."""
    idle_since: float
    """Since when no call is open; infinity while one is."""
    greeted: bool = False
    """Whether HTTP/2's preface is complete."""
    pinged: float = math.inf
    notified: float = math.inf
    """When the shutdown notice went out."""
    last_called: bool = False
    """Whether the last GOAWAY went out."""
    drain_end: float = math.inf
    """When calls that are left are cut."""
    stopping: bool = False
    """Whether they are cut then because the server stops: all connections' at once, by its front."""
    closing: float = math.inf
    """When we stopped, and began to wait for the peer to close its side: from then on it has all that we wrote, or the
    system has."""


def age_limit(connected: float, limits: Http2Limits, chance: random.Random) -> float:
    """When a connection that came at this time is old: a tenth sooner or later, so that no crowd leaves at once."""
    return connected + limits.max_age_seconds * (1 + chance.uniform(-_AGE_JITTER, _AGE_JITTER))


def next_step(times: Times, now: float, limits: Http2Limits) -> Step:
    """Decide what a connection needs at this instant."""
    if times.closing < math.inf:
        return Step.ABORT if now >= times.closing + limits.linger_seconds else Step.NOTHING
    if not times.greeted:
        end = min(times.connected + limits.handshake_seconds, times.notified + limits.linger_seconds)
        return Step.ABORT if now >= end else Step.NOTHING
    if times.pinged < math.inf and times.heard < times.pinged:
        if now >= times.pinged + limits.keepalive_timeout_seconds:
            return Step.ABORT
    elif now >= max(times.heard, times.connected) + limits.keepalive_seconds:
        return Step.PING
    return _life(times, now, limits)


def _life(times: Times, now: float, limits: Http2Limits) -> Step:
    if times.notified == math.inf:
        old = now >= times.age_limit or now >= times.idle_since + limits.max_idle_seconds
        return Step.DRAIN if old else Step.NOTHING
    if now >= times.drain_end:
        return Step.NOTHING if times.stopping else Step.CUT_CALLS
    if not times.last_called and now >= times.notified + NOTICE_SECONDS:
        return Step.LAST_CALL
    return Step.NOTHING


def old_or_idle(times: Times, now: float) -> Closed:
    """Say which of the two reasons for `Step.DRAIN` it was."""
    return Closed.AGE if now >= times.age_limit else Closed.IDLE
