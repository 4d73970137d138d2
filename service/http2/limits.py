"""Every bound of the fast front, each beside what it protects.

The memory that peers can make this front hold is at most `Http2Limits.memory_bound_bytes`, and
`tests/service/http2/test_memory.py` measures it.
"""

import math
from dataclasses import dataclass, fields

KIB = 1 << 10
MIB = 1 << 20

_CONNECTION_BYTES = 40 * KIB
"""With both tables of its header blocks full; an idle one takes less than half of it."""
_READ_BYTES = 256 * KIB
"""The most that the event loop reads from a connection at once."""
_TLS_BYTES = 1536 * KIB
"""What TLS may take for a connection beside: the buffer that is read into, 256 KiB; OpenSSL's for what came and was not
decrypted, which grows to 256 KiB and a read, in steps of a third; what is encrypted and did not leave, 256 KiB with
OpenSSL and as much with the event loop; and what OpenSSL knows of it, some 50 KiB.
"""
HARD_HEADER_FACTOR = 4
"""Header lists so many times longer than `max_header_list_bytes` cost the connection."""
FREE_HEAD_BYTES = 8 * KIB
"""What the header list of an open call may take; one that takes more counts among the bytes in hand."""
_CALL_BYTES = 2 * KIB + FREE_HEAD_BYTES
_COPIES_IN_A_RUN = 6
_HEAP_FACTOR = 2


class LimitsError(ValueError):
    """A limit makes no sense; the message names it."""


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """Bounds of the fast front. Bytes, seconds, and counts; `math.inf` seconds turn a time limit off."""

    max_connections: int = 10_000
    """Connections that are open at once; further ones are closed as they come, so that clients try another server."""
    backlog: int = 4096
    """Connections that the kernel keeps for us until we accept them (it caps this at `net.core.somaxconn`)."""

    max_calls_per_connection: int = 1024
    """Calls a peer may have open at once (SETTINGS_MAX_CONCURRENT_STREAMS); further ones are refused unprocessed."""
    max_calls: int = 16_384
    """Calls that are open at once over all connections; further ones are refused with RESOURCE_EXHAUSTED.

    Of the last eighth a connection is given no more than makes a sixteenth of what is left.
    """

    max_message_bytes: int = 8 * MIB
    """Bytes of one message of a client, as sent and once inflated; more is refused with RESOURCE_EXHAUSTED."""
    max_header_list_bytes: int = 16 * KIB
    """Bytes of a request's header list, counted as HTTP/2 does. Larger: RESOURCE_EXHAUSTED; four times: GOAWAY."""

    stream_window_bytes: int = 1 * MIB
    """What a peer may send on one stream before we let it send more."""
    connection_window_bytes: int = 4 * MIB
    """What a peer may send over all its streams before we let it send more."""

    max_bytes_in_hand: int = 256 * MIB
    """Bytes of unanswered requests and untaken answers over all connections.

    From half of it on no window is opened, so that clients wait; at all of it calls are refused.
    """
    max_connection_bytes_in_hand: int = 64 * MIB
    """The same for one connection: from here on its windows are not opened."""
    max_unsent_bytes: int = 8 * MIB
    """Answers that wait for one peer to take them. While there are more, none of its calls are run."""
    stall_seconds: float = 2.0
    """How long bytes or calls may press before connections lose their calls, until these press no longer: those whose
    peers take nothing, or have most calls that do nothing. Calls press from three quarters of `max_calls` on.
    """

    handshake_seconds: float = 10.0
    """Time for TLS and for HTTP/2's preface; then the connection is closed."""
    receive_seconds: float = 60.0
    """Time for the whole message of a unary call to arrive; then the call ends with DEADLINE_EXCEEDED."""
    keepalive_seconds: float = 60.0
    """A connection that was silent for this long is sent a ping."""
    keepalive_timeout_seconds: float = 20.0
    """A connection that stays silent for this long after a ping is closed."""
    max_idle_seconds: float = math.inf
    """A connection without a call for this long is drained and closed."""
    max_age_seconds: float = math.inf
    """A connection older than this, give or take a tenth, is drained and closed, so that load spreads anew."""
    age_grace_seconds: float = 30.0
    """Calls of a connection that is drained for its age or idleness may last this much longer."""
    linger_seconds: float = 1.0
    """Once we closed a connection, its peer has this long to close its side; a drained one that still takes answers has
    its grace. In a drain, a connection that did not greet has this long to begin its calls."""

    control_frames_burst: int = 2_000
    """Frames that carry no request (pings, settings, resets, window updates, empty data) a peer may send at once."""
    control_frames_per_second: int = 200
    """How fast that allowance grows back. What we send adds to it: honest peers acknowledge what they get."""

    inline_bytes: int = 64 * KIB
    """A request larger than this, once inflated, is read and run on a worker thread; small ones need not wait for it.

    64 KiB are 16,384 float32 values: decoded and run in about 0.3 ms, what handing over to a thread and back may cost
    at its worst.
    """
    inline_burst_bytes: int = 512 * KIB
    """Bytes of requests that are answered in one turn of the loop; the others wait for the next turn.

    As many may be inflated in one turn; workers inflate the others.
    """
    inline_seconds: float = 1e-3
    """A run that is expected to last longer, going by earlier runs of the same size, leaves the loop as well.

    It goes to another thread than large requests do, so that small ones do not wait for those.
    """
    lane_bytes: int = 4 * MIB
    """Bytes of requests that a worker decodes and runs at once; a single request may be larger."""
    worker_threads: int = 1
    """Threads for large and for compressed requests; as many more for runs that are expected to last."""

    def memory_bound_bytes(self, *, tls: bool = False) -> int:
        """What peers can make the front hold, beyond what it holds without them; with TLS, or without.

        Requests not yet answered and answers not yet taken, twice, since what freed ones leave between others is not
        always of use to the next; a read's worth a connection, since a limit is noticed after the bytes arrived; open
        calls, whatever they hold; idle connections, and one header block being read on each; and what is being run:
        decoded rows, answers, their encoding. The loop and the threads for long runs have no more than
        `inline_burst_bytes` of requests each at once: together they count as one run of the largest.
        """
        connection_bytes = _CONNECTION_BYTES + _READ_BYTES + HARD_HEADER_FACTOR * self.max_header_list_bytes
        if tls:
            connection_bytes += _TLS_BYTES
        run_bytes = max(self.lane_bytes, self.max_message_bytes)
        return (
            _HEAP_FACTOR * self.max_bytes_in_hand
            + self.max_connections * connection_bytes
            + self.max_calls * _CALL_BYTES
            + (1 + self.worker_threads) * _COPIES_IN_A_RUN * run_bytes
        )

    def __post_init__(self) -> None:
        """Raise LimitsError where a limit makes no sense, alone or beside another."""
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise LimitsError(f"{limit.name} must be greater than 0, not {getattr(self, limit.name)}")
        if not self.stream_window_bytes <= self.connection_window_bytes < 1 << 31:
            raise LimitsError("stream_window_bytes ≤ connection_window_bytes < 2 GiB must hold")
        if self.max_message_bytes > self.max_connection_bytes_in_hand:
            raise LimitsError("max_message_bytes must not be greater than max_connection_bytes_in_hand")
        if self.max_connection_bytes_in_hand > self.max_bytes_in_hand:
            raise LimitsError("max_connection_bytes_in_hand must not be greater than max_bytes_in_hand")
