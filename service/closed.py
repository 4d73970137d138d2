"""Why a connection ended, in words that a metric has for it; no transport is known here."""

from enum import Enum


class Closed(Enum):
    """Why a connection is gone. The values label a metric."""

    PEER = "peer"
    """The peer closed it, or was lost."""
    AGE = "age"
    """It was older than it may get."""
    IDLE = "idle"
    """No call was open for too long."""
    KEEPALIVE = "keepalive"
    """The peer did not answer a ping."""
    HANDSHAKE = "handshake"
    """It never became one of HTTP/2, or of TLS, in time or at all."""
    MISUSE = "misuse"
    """The peer broke the protocol's rules, or asked for too much with too many frames."""
    STALLED = "stalled"
    """Too much was in hand for too long, and what it had of it did not move."""
    FULL = "full"
    """As many connections were open as may be."""
    DRAINING = "draining"
    """The server is stopping."""
    FAULT = "fault"
    """A fault of the server."""
