"""The server's side of one HTTP/2 connection: bytes in, what they mean out (RFC 9113). It does no I/O.

A client repeats itself: once its compression table is warm, each call is a header block that was read before, and one
frame of data. Such a call costs two look-ups here and becomes one event. Everything else takes the general way.

Where a peer breaks the rules the connection ends, also where one stream would do: no client does that by mistake. Only
a request that is malformed as a message costs its stream alone, since a client may send it in somebody's name. Streams
of header lists, and all other frames that bring nothing, are counted, and cost the connection once they are too many.
"""

from collections.abc import Callable
from typing import ClassVar, Final, NamedTuple, TypeAlias

from service.http2.field_blocks import FieldBlockError, FieldBlockReader, FieldListTooLongError, Fields
from service.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW_BYTES,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    GOAWAY_BYTES,
    HEADER,
    HEADER_BYTES,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LEAST_MAX_FRAME_BYTES,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    MOST_MAX_FRAME_BYTES,
    MOST_WINDOW_BYTES,
    NUMBER_BYTES,
    PADDED,
    PING,
    PING_BYTES,
    PREFACE,
    PRIORITISED,
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
from service.http2.requests import RequestFields, are_trailers, read_request
from service.http2.sending import Sending, StreamState

_MAX_CONTINUATIONS: Final = 8
_MAX_SETTINGS: Final = 32
_FREE_BLOCK_BYTES: Final = 4096
"""A header block counts as so many control frames as it is times longer: a byte of it costs more than one of data."""
_STEP_WORK: Final = 256
"""How much is read at once: this many small frames, or fewer that cost more. Some 1 ms, unless one frame has it all."""
_BLOCK_WORK: Final = 16
_FIELDS_A_WORK: Final = 4
_BLOCK_BYTES_A_WORK: Final = 64
_WINDOWS_A_WORK: Final = 16
"""What header blocks and new windows cost, in small frames."""
_PROVOKED_RESET_COST: Final = 10
"""Control frames that a stream counts for which we had to reset since its peer broke the rules."""


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


Whole: TypeAlias = tuple[int, Fields, bytes]
"""A request whose data came in one frame: its stream, its header list, its data. There is no more of it."""


class Begun(NamedTuple):
    """A request of which the header list came."""

    stream_id: int
    fields: Fields
    ended: bool


class More(NamedTuple):
    """Data of a request, or its end."""

    stream_id: int
    data: bytes
    ended: bool


class Greeted(NamedTuple):
    """The peer's settings came."""


class Answered(NamedTuple):
    """The peer answered a ping."""

    data: bytes


class Ended(NamedTuple):
    """The connection is over: a GOAWAY waits to be written."""

    code: ErrorCode
    reason: str


Event: TypeAlias = Begun | More | Greeted | Answered | Ended


class _BrokenError(Exception):
    """The peer broke a rule, and the connection ends."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Block:
    """A header block that comes in several frames."""

    def __init__(self, stream_id: int, flags: int, first: bytes) -> None:
        self.stream_id = stream_id
        self.flags = flags
        self.bytes = bytearray(first)
        self.continuations = 0


class Session(Sending):
    """One connection. `receive` is given what came; `wholes` and `events` are what it means, `closed` what ended."""

    def __init__(self, limits: SessionLimits) -> None:
        super().__init__()
        self.wholes: list[Whole] = []
        """Requests that came whole, until somebody takes them: before the events, since one may end the connection."""
        self.events: list[Event] = []
        """What else came, in its order."""
        self.last_stream = 0
        """The last stream that was taken up."""
        self.over = False
        """Whether nothing that comes is read any more."""
        self._limits = limits
        self.behind = False
        """Whether more came than is read at once: `receive` goes on with it, also where nothing new came."""
        self._unread = b""
        """What was not read yet: frames, if it is behind, and the beginning of one."""
        self._unread_at = 0
        """Where that begins."""
        self._work_left = 0
        self._preface_left = len(PREFACE)
        self._greeted = False
        self._fields = FieldBlockReader(limits.hard_list_bytes, limits.hard_list_fields)
        self._requests: dict[bytes, RequestFields] = {}
        """What blocks mean that the reader knows: those of them that began a request."""
        self._block: _Block | None = None
        self._data_left = 0
        """Bytes that are missing of the DATA frame being read."""
        self._data_stream = 0
        self._data_ends = False
        self._last_allowed = STREAM_MASK
        """Streams beyond it are not taken up."""
        self._settings_sent = 0
        self._window_in = DEFAULT_WINDOW_BYTES
        """Bytes that the peer may send on all streams together."""
        self._consumed = 0
        """Bytes that it sent, and may send again, of which it was not told yet."""
        self._peer_leaves = False
        self._control = 0
        self._allowance = 0

    # What it is -------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether one side said that it leaves, all was answered, and nothing is left to write."""
        leaves = self._peer_leaves or self._last_allowed < STREAM_MASK
        return leaves and not self.streams and not self._out and not self.behind

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
            self._consume_of(state, size)

    def last_call(self) -> None:
        """Name the last stream that is taken up; others are left out from now on."""
        self._last_allowed = self.last_stream
        self._out.append(goaway_frame(self.last_stream, ErrorCode.NO_ERROR))

    def terminate(self, code: ErrorCode) -> None:
        """Say why the connection ends, and read no more."""
        if not self.over:
            self.over = True
            self._out.append(goaway_frame(min(self.last_stream, self._last_allowed), code))

    # What came --------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, allowance: int) -> int:
        """Read what came, and return how many frames brought nothing; beyond `allowance` they end the connection.

        Where that is more work than is done at once, the session is `behind`, and waits to be called again.
        """
        self._control, self._allowance = 0, allowance
        self._work_left, self.behind = _STEP_WORK, False
        if not self.over:
            try:
                self._read(data)
            except _BrokenError as error:
                self._break(error.code, error.reason)
            except FieldBlockError as error:
                self._break(ErrorCode.COMPRESSION_ERROR, str(error))
            except FieldListTooLongError as error:
                self._break(ErrorCode.ENHANCE_YOUR_CALM, str(error))
            while self.openings and not self.over:
                self._begin(next(iter(self.openings)))
        return self._control

    def _break(self, code: ErrorCode, reason: str) -> None:
        self.terminate(code)
        self.events.append(Ended(code, reason))

    def _read(self, data: bytes) -> None:
        if self._preface_left:
            data = self._read_preface(data)
        position = 0
        if self._unread:
            if data:
                data = self._unread[self._unread_at :] + data
            else:
                data, position = self._unread, self._unread_at
            self._unread, self._unread_at = b"", 0
        if self._data_left:
            position = self._read_rest_of_data(data)
        self._read_frames(data, position)

    def _read_frames(self, data: bytes, position: int) -> None:  # noqa: C901, PLR0912 - a call for each frame would cost as much as all of it
        size = len(data)
        streams, openings, wholes = self.streams, self.openings, self.wholes
        known, max_streams, unpack = self._requests, self._limits.max_streams, HEADER.unpack_from
        while size - position >= HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack(data, position)
            length = high << 8 | low
            start = position + HEADER_BYTES
            position = start + length
            if kind == HEADERS and flags == END_HEADERS and position <= size:
                request = known.get(data[start:position])
                if (
                    request is not None
                    and self.last_stream < stream_id <= self._last_allowed
                    and stream_id & 1
                    and len(streams) < max_streams
                    and self._block is None
                ):
                    self.last_stream = stream_id
                    streams[stream_id] = None
                    openings[stream_id] = request
                    continue
            elif kind == DATA and flags == END_STREAM and position <= size:
                request = openings.get(stream_id)
                if (
                    request is not None
                    and (request.data_bytes == length or request.data_bytes < 0)
                    and streams[stream_id] is None
                    and length <= self._initial_window_in
                    and length <= self._window_in
                    and length <= LEAST_MAX_FRAME_BYTES
                    and self._block is None
                ):
                    self._window_in -= length
                    del openings[stream_id]
                    wholes.append((stream_id, request.fields, data[start:position]))
                    continue
            stream_id &= STREAM_MASK
            if self._block is not None or not self._greeted:
                self._check_turn(kind, stream_id)
            if length > LEAST_MAX_FRAME_BYTES:
                raise _BrokenError(ErrorCode.FRAME_SIZE_ERROR, f"a frame has {length} bytes")
            if position > size and (kind != DATA or flags & PADDED):
                position = start - HEADER_BYTES
                break
            if kind == DATA:
                self._read_data(flags, stream_id, length, data[start:position])
            else:
                self._read_frame(kind, flags, stream_id, data[start:position])
            self._work_left -= 1
            if self._work_left <= 0:
                self.behind = size - position >= HEADER_BYTES
                break
        if self.behind:
            self._unread, self._unread_at = data, position
        elif position < size:
            self._unread = data[position:]

    def _check_turn(self, kind: int, stream_id: int) -> None:
        """Refuse a frame that may not come now."""
        if self._block is not None and (kind != CONTINUATION or stream_id != self._block.stream_id):
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        if not self._greeted and kind != SETTINGS:
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")

    def _read_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        reader = self._READERS.get(kind)
        if reader is None:
            self._count()
        else:
            reader(self, flags, stream_id, payload)

    def _read_preface(self, data: bytes) -> bytes:
        left = self._preface_left
        wanted = PREFACE[-left:]
        if not data.startswith(wanted[: len(data)]):
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2's preface")
        self._preface_left = max(0, left - len(data))
        return data[left:]

    # Data -------------------------------------------------------------------------------------------------------------

    def _read_data(self, flags: int, stream_id: int, length: int, payload: bytes) -> None:
        """Read a frame of `length` bytes of data, of which the beginning may be all that is there."""
        state = self.streams.get(stream_id) or self._named(stream_id)
        self._window_in -= length
        if self._window_in < 0:
            raise _BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "more data came than the connection's window lets in")
        if state is not None:
            if state.ended:
                raise _BrokenError(ErrorCode.STREAM_CLOSED, "data came after a stream's end")
            state.window_in -= length
            if state.window_in < 0:
                raise _BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "more data came than a stream's window lets in")
        left = length - len(payload)
        if flags & PADDED:
            payload = self._without_padding(payload)
            self.acknowledge(stream_id, length - len(payload))
        ends = bool(flags & END_STREAM)
        if left:
            self._data_left, self._data_stream, self._data_ends = left, stream_id, ends
        if payload or not left:
            self._hand_on(stream_id, state, payload, ended=ends and not left)

    def _read_rest_of_data(self, data: bytes) -> int:
        """Read more of a DATA frame, and return where it ends."""
        piece = data[: self._data_left]
        self._data_left -= len(piece)
        ended = self._data_ends and not self._data_left
        self._hand_on(self._data_stream, self.streams.get(self._data_stream), piece, ended=ended)
        return len(piece)

    def _hand_on(self, stream_id: int, state: StreamState | None, piece: bytes, *, ended: bool) -> None:
        if state is None:
            self._consume(len(piece))
            self._count(0 if piece else 1)
            return
        if state.expected >= 0:
            left = state.expected - len(piece)
            state.expected = max(0, left)
            if left < 0 or (ended and left):
                self._consume(len(piece))
                self._provoked(stream_id)
                return
        if stream_id in self.openings:
            self._begin(stream_id)
        if piece or ended:
            self.events.append(More(stream_id, piece, ended))
        else:
            self._count()
        if ended:
            self._end(state)

    def _end(self, state: StreamState) -> None:
        state.ended = True
        if state.answered:
            self._close(state.stream_id)

    # Header lists -----------------------------------------------------------------------------------------------------

    def _read_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, f"a request on stream {stream_id}")
        if flags & PADDED:
            payload = self._without_padding(payload)
        if flags & PRIORITISED:
            if len(payload) < PRIORITY_BYTES:
                raise _BrokenError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS end within their priority")
            payload = payload[PRIORITY_BYTES:]
        if flags & END_HEADERS:
            self._read_block(flags, stream_id, payload)
        else:
            self._block = _Block(stream_id, flags, payload)

    def _read_continuation(self, flags: int, _stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        block.continuations += 1
        block.bytes += payload
        if block.continuations > _MAX_CONTINUATIONS or len(block.bytes) > self._limits.hard_list_bytes:
            raise _BrokenError(ErrorCode.ENHANCE_YOUR_CALM, "a header block goes on and on")
        if flags & END_HEADERS:
            self._block = None
            self._read_block(block.flags, block.stream_id, bytes(block.bytes))

    def _read_block(self, flags: int, stream_id: int, block: bytes) -> None:
        self._count(len(block) // _FREE_BLOCK_BYTES)
        fields = self._fields.read(block)
        self._work_left -= _BLOCK_WORK + len(fields) // _FIELDS_A_WORK + len(block) // _BLOCK_BYTES_A_WORK
        if len(self._fields.known) <= 1:  # it was emptied, and this block may be its first again
            self._requests.clear()
        ended = bool(flags & END_STREAM)
        if stream_id in self.streams:
            self._read_trailers(stream_id, fields, ended=ended)
        elif stream_id <= self.last_stream:
            self._count()
        else:
            self.last_stream = stream_id
            if stream_id <= self._last_allowed:
                self._read_request(stream_id, fields, block, ended=ended)

    def _read_request(self, stream_id: int, fields: Fields, block: bytes, *, ended: bool) -> None:
        if len(self.streams) >= self._limits.max_streams:
            self._refuse(stream_id, ErrorCode.REFUSED_STREAM, 1)
            return
        request = read_request(fields)
        if request is None or (ended and request.data_bytes > 0):
            self._refuse(stream_id, ErrorCode.PROTOCOL_ERROR, _PROVOKED_RESET_COST)
            return
        self.streams[stream_id] = None
        if ended:
            self.events.append(Begun(stream_id, fields, True))
            return
        self.openings[stream_id] = request
        if block in self._fields.known:
            self._requests[block] = request

    def _read_trailers(self, stream_id: int, fields: Fields, *, ended: bool) -> None:
        state = self._state(stream_id)
        assert state is not None  # noqa: S101 - who calls has looked
        if state.ended:
            raise _BrokenError(ErrorCode.STREAM_CLOSED, "a header block came after a stream's end")
        if not ended or state.expected > 0 or not are_trailers(fields):
            self._provoked(stream_id)
            return
        if stream_id in self.openings:
            self._begin(stream_id)
        self._count()
        self.events.append(More(stream_id, b"", True))
        self._end(state)

    def _begin(self, stream_id: int) -> None:
        """Tell of a request of which nothing but the header list is there."""
        self._state(stream_id)
        self.events.append(Begun(stream_id, self.openings.pop(stream_id).fields, False))

    # Other frames -----------------------------------------------------------------------------------------------------

    def _read_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "PRIORITY of the connection")
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
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        self._count()
        if flags & ACK:
            self._read_settings_ack(payload)
            return
        if len(payload) % SETTING.size:
            raise _BrokenError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS end within one")
        if len(payload) > _MAX_SETTINGS * SETTING.size:
            raise _BrokenError(ErrorCode.ENHANCE_YOUR_CALM, "too many settings")
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
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "settings are acknowledged that were not sent")
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
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        elif identifier == INITIAL_WINDOW_SIZE:
            self._set_initial_window(value)
        elif identifier == MAX_FRAME_SIZE:
            if not LEAST_MAX_FRAME_BYTES <= value <= MOST_MAX_FRAME_BYTES:
                raise _BrokenError(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
            self._set_max_frame_bytes(value)

    def _set_initial_window(self, value: int) -> None:
        if value > MOST_WINDOW_BYTES:
            raise _BrokenError(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
        self._initial_window = value

    def _grow_windows(self, grown: int) -> None:
        """Once for all that one frame says: each time is as much work as there are streams."""
        self._work_left -= len(self.streams) // _WINDOWS_A_WORK
        for state in self.streams.values():
            if state is not None:
                self._grow_window(state, grown)

    def _grow_window(self, state: StreamState, grown: int) -> None:
        if state.window + grown > MOST_WINDOW_BYTES:
            raise _BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window overflows")
        state.window += grown
        self._line_up(state)

    def _read_push(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "a client pushes")

    def _read_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "PING of a stream")
        _check_size(payload, PING_BYTES)
        self._count()
        if flags & ACK:
            self.events.append(Answered(payload))
        else:
            self._out.append(frame(PING, ACK, 0, payload))

    def _read_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < GOAWAY_BYTES:
            raise _BrokenError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")
        self._count()
        self._peer_leaves = True

    def _read_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        _check_size(payload, NUMBER_BYTES)
        self._count()
        increment = int.from_bytes(payload, "big") & MOST_WINDOW_BYTES
        if not increment:
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "a window is opened by nothing")
        if not stream_id:
            if self._window + increment > MOST_WINDOW_BYTES:
                raise _BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")
            self._window += increment
            return
        state = self._named(stream_id)
        if state is not None:
            self._grow_window(state, increment)

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _named(self, stream_id: int) -> StreamState | None:
        """The stream that a frame names; None where it ended, or was never taken up."""
        if not stream_id & 1 or stream_id > self.last_stream:
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, f"a frame is for stream {stream_id}, which is not open")
        return self._state(stream_id)

    def _count(self, frames: int = 1) -> None:
        """Count a frame that brings nothing."""
        self._control += frames
        if self._control > self._allowance:
            raise _BrokenError(ErrorCode.ENHANCE_YOUR_CALM, "too many control frames")

    def _refuse(self, stream_id: int, code: ErrorCode, cost: int) -> None:
        """Reset a stream on which nothing was taken up."""
        self._out.append(number_frame(RST_STREAM, stream_id, code))
        self._count(cost)

    def _provoked(self, stream_id: int) -> None:
        """Reset a stream whose request turns out to be malformed."""
        self.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
        self._count(_PROVOKED_RESET_COST)

    def _without_padding(self, payload: bytes) -> bytes:
        if not payload or payload[0] >= len(payload):
            raise _BrokenError(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
        return payload[1 : len(payload) - payload[0]]

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed > self._limits.connection_window_bytes // 2:
            self._out.append(number_frame(WINDOW_UPDATE, 0, self._consumed))
            self._window_in += self._consumed
            self._consumed = 0

    def _consume_of(self, state: StreamState, size: int) -> None:
        state.consumed += size
        if state.consumed > self._limits.stream_window_bytes // 2:
            self._out.append(number_frame(WINDOW_UPDATE, state.stream_id, state.consumed))
            state.window_in += state.consumed
            state.consumed = 0

    _READERS: ClassVar[dict[int, Callable[["Session", int, int, bytes], None]]] = {
        HEADERS: _read_headers,
        PRIORITY: _read_priority,
        RST_STREAM: _read_reset,
        SETTINGS: _read_settings,
        PUSH_PROMISE: _read_push,
        PING: _read_ping,
        GOAWAY: _read_goaway,
        WINDOW_UPDATE: _read_window_update,
        CONTINUATION: _read_continuation,
    }


def _check_size(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise _BrokenError(ErrorCode.FRAME_SIZE_ERROR, f"a frame has {len(payload)} bytes, not {size}")
