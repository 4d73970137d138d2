"""Who is cut where too much is in hand for long: decided from figures alone, so that it can be tested without peers.

A connection is judged by what waits for its peer: answers to be taken, requests to be finished. What the server itself
has yet to do, be it ever so slow, speaks against nobody.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Holder = TypeVar("Holder")


@dataclass(frozen=True, slots=True)
class Flow:
    """What one connection held and moved over a while."""

    waiting_bytes: int
    """Bytes that wait for its peer: the least of what did at the beginning, at the end, and does now."""
    moved_bytes: int
    """Bytes that it gave back in that time."""
    seconds: float
    """How long that was."""

    @property
    def seconds_to_go(self) -> float:
        """How long what waits will take at this pace; infinity where nothing moved."""
        return self.waiting_bytes * self.seconds / self.moved_bytes if self.moved_bytes else math.inf


@dataclass(frozen=True, slots=True)
class Idle:
    """The calls of one connection that wait for their peer, and have for long."""

    calls: int
    since: float
    """When the first of them last moved."""


class Watch:
    """Tells since when something presses without a break."""

    def __init__(self) -> None:
        self._since = math.inf

    def pressed_seconds(self, now: float, *, pressed: bool) -> float:
        """Learn whether it presses now, and return for how long it has."""
        self._since = min(self._since, now) if pressed else math.inf
        return max(0.0, now - self._since) if pressed else 0.0


def slow_holders(flows: Mapping[Holder, Flow], excess_bytes: int, patience_seconds: float) -> list[Holder]:
    """Choose the connections to cut, so that as many bytes come free: those first whose peers take nothing.

    Who will be done within `patience_seconds`, at the pace it kept of late, is never chosen. Of those who take nothing,
    and of those equally slow, who holds most comes first.
    """
    slow = [who for who, flow in flows.items() if flow.waiting_bytes > 0 and flow.seconds_to_go > patience_seconds]
    slow.sort(key=lambda who: (flows[who].seconds_to_go, flows[who].waiting_bytes), reverse=True)
    return _enough(slow, {who: flows[who].waiting_bytes for who in slow}, excess_bytes)


def idle_holders(idle: Mapping[Holder, Idle], excess_calls: int) -> list[Holder]:
    """Choose the connections to cut, so that as many calls end: who has most idle ones first, and for longest."""
    most = sorted((who for who in idle if idle[who].calls), key=lambda who: (-idle[who].calls, idle[who].since))
    return _enough(most, {who: idle[who].calls for who in most}, excess_calls)


def _enough(holders: list[Holder], held: Mapping[Holder, int], excess: int) -> list[Holder]:
    chosen: list[Holder] = []
    for who in holders:
        if excess <= 0:
            break
        chosen.append(who)
        excess -= held[who]
    return chosen
