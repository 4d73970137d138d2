"""What all connections of a front have in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.calls import Method, Tracer
from service.closed import Closed
from service.http2.budget import Budget
from service.http2.burst import Burst, Flushable
from service.http2.deadlines import Wheel
from service.http2.heads import Heads
from service.http2.limits import Http2Limits
from service.http2.streams import Stream

if TYPE_CHECKING:
    from service.http2.connection import Peer


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a front have in common."""

    methods: Mapping[bytes, Method]
    limits: Http2Limits
    burst: Burst
    budget: Budget
    heads: Heads
    wheel: Wheel[Stream]
    waiters: set[Flushable]
    """Connections that keep something back until there is room again."""
    gone: Callable[["Peer", Closed], None]
    """Told when a connection is lost, and why."""
    tracer: Tracer | None
