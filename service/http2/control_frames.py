"""The frames of an HTTP/2 connection that carry no request: settings, windows, pings, resets, and leaving (RFC 9113).

A peer may send only so many of them: they are counted, and cost the connection once they are too many.
"""

from collections.abc import Callable
from typing import ClassVar, Final, NamedTuple

from service.http2.events import Answered, Event, Greeted, Parts
from service.http2.frames import (
    ACK,
    DEFAULT_WINDOW_BYTES,
    ENABLE_PUSH,
    GOAWAY,
    GOAWAY_BYTES,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LEAST_MAX_FRAME_BYTES,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    MOST_MAX_FRAME_BYTES,
    MOST_WINDOW_BYTES,
    NUMBER_BYTES,
    PING,
    PING_BYTES,
    PRIORITY,
    PRIORITY_BYTES,
    PUSH_PROMISE,
    RST_STREAM,
    SETTING,
    SETTINGS,
    STREAM_MASK,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
    goaway_frame,
    number_frame,
    settings_frame,
)
from service.http2.sending import Sending, StreamState

_MAX_SETTINGS: Final = 32
_WINDOWS_A_WORK: Final = 16
"""What new windows cost, in small frames."""


class SessionLimits(NamedTuple):
    """What a peer may do."""

    max_streams: int
    stream_window_bytes: int
    connection_window_bytes: int
    max_list_bytes: int
    """Size of a header list that the peer is told of; nothing here is refused for it."""
    hard_list_bytes: int
    """Size of a header list, and of its block, that costs the connection."""
    hard_list_fields: int


class BrokenError(Exception):
    """The peer broke a rule, and the connection ends."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Controlled(Sending):
    """A connection as both sides agree on it: what each may do, what each was told, and whether one leaves."""

    def __init__(self, limits: SessionLimits) -> None:
        super().__init__()
        self.events: list[Event] = []
        """What came, in its order, until somebody takes it."""
        self.last_stream = 0
        """The last stream that was taken up."""
        self.over = False
        """Whether nothing that comes is read any more."""
        self._limits = limits
        self._last_allowed = STREAM_MASK
        """Streams beyond it are not taken up."""
        self._greeted = False
        self._settings_sent = 0
        self._window_in = DEFAULT_WINDOW_BYTES
        """Bytes that the peer may send on all streams together."""
        self._consumed = 0
        """Bytes that it sent, and may send again, of which it was not told yet."""
        self._peer_leaves = False
        self._work_left = 0
        """What may still be read at once, in small frames."""
        self._control = 0
        """Frames that brought nothing, of what is being read."""
        self._allowance = 0

    # What we do -------------------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Say what the peer may do."""
        limits = self._limits
        settings = {
            MAX_CONCURRENT_STREAMS: limits.max_streams,
            INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            MAX_HEADER_LIST_SIZE: limits.max_list_bytes,
        }
        self._out.append(settings_frame(settings))
        self._settings_sent += 1
        self._consume(limits.connection_window_bytes - DEFAULT_WINDOW_BYTES)

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the peer send as much again, on this stream and on all together."""
        self._consume(size)
        state = self.streams.get(stream_id)
        if state is not None and not state.ended:
            state.consumed += size
            if state.consumed > self._limits.stream_window_bytes // 2:
                self._open_window(state)

    def acknowledge_all(self, parts: Parts, size: int) -> None:
        """Let the peer send as much again as these parts are, `size` bytes together."""
        self._consume(size)
        streams, most = self.streams, self._limits.stream_window_bytes // 2
        for stream_id, data in parts:
            state = streams.get(stream_id)
            if state is not None and not state.ended:
                state.consumed += len(data)
                if state.consumed > most:
                    self._open_window(state)

    def last_call(self) -> None:
        """Name the last stream that is taken up; others are left out from now on."""
        self._last_allowed = self.last_stream
        self._out.append(goaway_frame(self.last_stream, ErrorCode.NO_ERROR))

    def terminate(self, code: ErrorCode) -> None:
        """Say why the connection ends, and read no more."""
        if not self.over:
            self.over = True
            self._out.append(goaway_frame(min(self.last_stream, self._last_allowed), code))

    # What they say ----------------------------------------------------------------------------------------------------

    def _read_control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Read a frame that carries no request; one of a kind that is not known says nothing, and is counted."""
        reader = self._READERS.get(kind)
        if reader is None:
            self._count()
        else:
            reader(self, flags, stream_id, payload)

    def _read_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "PRIORITY of the connection")
        _check_size(payload, PRIORITY_BYTES)
        self._count()

    def _read_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        _check_size(payload, NUMBER_BYTES)
        self._named(stream_id)
        self._count()
        if stream_id in self.streams:
            self._close(stream_id)

    def _read_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        self._count()
        if flags & ACK:
            self._read_settings_ack(payload)
            return
        if len(payload) % SETTING.size:
            raise BrokenError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS end within one")
        if len(payload) > _MAX_SETTINGS * SETTING.size:
            raise BrokenError(ErrorCode.ENHANCE_YOUR_CALM, "too many settings")
        window = self._initial_window
        for identifier, value in SETTING.iter_unpack(payload):
            self._set(identifier, value)
        if self._initial_window != window:
            self._grow_windows(self._initial_window - window)
        self._out.append(frame(SETTINGS, ACK, 0))
        if not self._greeted:
            self._greeted = True
            self.events.append(Greeted())

    def _read_settings_ack(self, payload: bytes) -> None:
        _check_size(payload, 0)
        if not self._settings_sent or not self._greeted:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "settings are acknowledged that were not sent")
        self._settings_sent -= 1
        grown = self._limits.stream_window_bytes - self._initial_window_in
        self._initial_window_in += grown
        for state in self.streams.values():
            if state is not None:
                state.window_in += grown

    def _set(self, identifier: int, value: int) -> None:
        if identifier == HEADER_TABLE_SIZE:
            self._blocks.limit_table(value)
            self._head = self._tail = b""
        elif identifier == ENABLE_PUSH and value > 1:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        elif identifier == INITIAL_WINDOW_SIZE:
            self._set_initial_window(value)
        elif identifier == MAX_FRAME_SIZE:
            if not LEAST_MAX_FRAME_BYTES <= value <= MOST_MAX_FRAME_BYTES:
                raise BrokenError(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
            self._set_max_frame_bytes(value)

    def _set_initial_window(self, value: int) -> None:
        if value > MOST_WINDOW_BYTES:
            raise BrokenError(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
        self._initial_window = value

    def _grow_windows(self, grown: int) -> None:
        """Once for all that one frame says: each time is as much work as there are streams."""
        self._work_left -= len(self.streams) // _WINDOWS_A_WORK
        for state in self.streams.values():
            if state is not None:
                self._grow_window(state, grown)

    def _grow_window(self, state: StreamState, grown: int) -> None:
        if state.window + grown > MOST_WINDOW_BYTES:
            raise BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window overflows")
        state.window += grown
        self._line_up(state)

    def _read_push(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise BrokenError(ErrorCode.PROTOCOL_ERROR, "a client pushes")

    def _read_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "PING of a stream")
        _check_size(payload, PING_BYTES)
        self._count()
        if flags & ACK:
            self.events.append(Answered(payload))
        else:
            self._out.append(frame(PING, ACK, 0, payload))

    def _read_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < GOAWAY_BYTES:
            raise BrokenError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")
        self._count()
        self._peer_leaves = True

    def _read_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        _check_size(payload, NUMBER_BYTES)
        self._count()
        increment = int.from_bytes(payload, "big") & MOST_WINDOW_BYTES
        if not increment:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "a window is opened by nothing")
        if not stream_id:
            if self._window + increment > MOST_WINDOW_BYTES:
                raise BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")
            self._window += increment
            return
        state = self._named(stream_id)
        if state is not None:
            self._grow_window(state, increment)

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _named(self, stream_id: int) -> StreamState | None:
        """The stream that a frame names; None where it ended, or was never taken up."""
        if not stream_id & 1 or stream_id > self.last_stream:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, f"a frame is for stream {stream_id}, which is not open")
        return self._state(stream_id)

    def _count(self, frames: int = 1) -> None:
        """Count a frame that brings nothing."""
        self._control += frames
        if self._control > self._allowance:
            raise BrokenError(ErrorCode.ENHANCE_YOUR_CALM, "too many control frames")

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed > self._limits.connection_window_bytes // 2:
            self._out.append(number_frame(WINDOW_UPDATE, 0, self._consumed))
            self._window_in += self._consumed
            self._consumed = 0

    def _open_window(self, state: StreamState) -> None:
        self._out.append(number_frame(WINDOW_UPDATE, state.stream_id, state.consumed))
        state.window_in += state.consumed
        state.consumed = 0

    _READERS: ClassVar[dict[int, Callable[["Controlled", int, int, bytes], None]]] = {
        PRIORITY: _read_priority,
        RST_STREAM: _read_reset,
        SETTINGS: _read_settings,
        PUSH_PROMISE: _read_push,
        PING: _read_ping,
        GOAWAY: _read_goaway,
        WINDOW_UPDATE: _read_window_update,
    }


def _check_size(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise BrokenError(ErrorCode.FRAME_SIZE_ERROR, f"a frame has {len(payload)} bytes, not {size}")
