"""The server's side of one HTTP/2 connection: bytes in, what they mean out (RFC 9113). It does no I/O.

A client repeats itself: once its compression table is warm, each call is a header block that was read before, and one
frame of data. Such a call costs two look-ups here and becomes one event. Everything else takes the general way.

Where a peer breaks the rules the connection ends, also where one stream would do: no client does that by mistake. Only
a request that is malformed as a message costs its stream alone, since a client may send it in somebody's name. Streams
of header lists, and all other frames that bring nothing, are counted, and cost the connection once they are too many.
"""

from typing import Final

from service.http2.control_frames import BrokenError, Controlled, SessionLimits
from service.http2.events import Begun, Ended, More, Parts, Whole
from service.http2.field_blocks import FieldBlockError, FieldBlockReader, FieldListTooLongError, Fields
from service.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADER_BYTES,
    HEADERS,
    LEAST_MAX_FRAME_BYTES,
    PADDED,
    PREFACE,
    PRIORITISED,
    PRIORITY_BYTES,
    RST_STREAM,
    SETTINGS,
    STREAM_MASK,
    ErrorCode,
    number_frame,
)
from service.http2.requests import RequestFields, are_trailers, read_request
from service.http2.sending import StreamState

_MAX_CONTINUATIONS: Final = 8
_FREE_BLOCK_BYTES: Final = 4096
"""A header block counts as so many control frames as it is times longer: a byte of it costs more than one of data."""
_STEP_WORK: Final = 256
"""How much is read at once: this many small frames, or fewer that cost more. Some 1 ms, unless one frame has it all."""
_BLOCK_WORK: Final = 16
_FIELDS_A_WORK: Final = 4
_BLOCK_BYTES_A_WORK: Final = 64
"""What a header block costs, in small frames."""
_PROVOKED_RESET_COST: Final = 10
"""Control frames that a stream counts for which we had to reset since its peer broke the rules."""


class _Block:
    """A header block that comes in several frames."""

    def __init__(self, stream_id: int, flags: int, first: bytes) -> None:
        self.stream_id = stream_id
        self.flags = flags
        self.bytes = bytearray(first)
        self.continuations = 0


class Session(Controlled):
    """One connection. `receive` is given what came; `wholes` and `events` are what it means, `closed` what ended."""

    def __init__(self, limits: SessionLimits) -> None:
        super().__init__(limits)
        self.wholes: list[Whole] = []
        """Requests that came whole, until somebody takes them: before the events, since one may end the connection."""
        self.behind = False
        """Whether more came than is read at once: `receive` goes on with it, also where nothing new came."""
        self._unread = b""
        """What was not read yet: frames, if it is behind, and the beginning of one."""
        self._unread_at = 0
        """Where that begins."""
        self._preface_left = len(PREFACE)
        self._requests: dict[bytes, RequestFields] = {}
        """What blocks mean that the reader knows: those of them that began a request."""
        self._fields = FieldBlockReader(limits.hard_list_bytes, limits.hard_list_fields, forgotten=self._requests.clear)
        self._block: _Block | None = None
        self._data_left = 0
        """Bytes that are missing of the DATA frame being read."""
        self._data_stream = 0
        self._data_ends = False

    # What it is -------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether one side said that it leaves, all was answered, and nothing is left to write."""
        leaves = self._peer_leaves or self._last_allowed < STREAM_MASK
        return leaves and not self.streams and not self._out and not self.behind

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
            except BrokenError as error:
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

    def _read_frames(self, data: bytes, position: int) -> None:  # noqa: C901 - a call for each frame would cost as much as all of it
        size = len(data)
        streams, openings, wholes = self.streams, self.openings, self.wholes
        known, max_streams, unpack = self._requests, self._limits.max_streams, HEADER.unpack_from
        parts: Parts | None = None
        while size - position >= HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack(data, position)
            length = high << 8 | low
            start = position + HEADER_BYTES
            position = start + length
            payload = data[start:position]
            if kind == HEADERS and flags == END_HEADERS and position <= size:
                request = known.get(payload)
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
                    wholes.append((stream_id, request.fields, payload))
                    continue
            state = streams.get(stream_id) if kind == DATA and not flags and position <= size else None
            if (
                state is not None
                and not state.ended
                and 0 < length <= state.window_in
                and length <= self._window_in
                and length <= LEAST_MAX_FRAME_BYTES
                and (length <= state.expected or state.expected < 0)
                and stream_id not in openings
                and self._block is None
            ):
                self._window_in -= length
                state.window_in -= length
                state.expected -= length  # what is less than 0 stays so
                if parts is None:
                    self.events.append(parts := Parts())
                parts.append((stream_id, payload))
            else:
                parts = None  # events that follow stand behind it
                stream_id &= STREAM_MASK
                self._check_frame(kind, stream_id, length)
                if position > size and (kind != DATA or flags & PADDED):
                    position = start - HEADER_BYTES
                    break
                self._read_frame(kind, flags, stream_id, length, payload)
            self._work_left -= 1
            if self._work_left <= 0:
                self.behind = size - position >= HEADER_BYTES
                break
        if self.behind:
            self._unread, self._unread_at = data, position
        elif position < size:
            self._unread = data[position:]

    def _check_frame(self, kind: int, stream_id: int, length: int) -> None:
        """Refuse a frame that may not come now, or has more bytes than may be."""
        if self._block is not None and (kind != CONTINUATION or stream_id != self._block.stream_id):
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        if not self._greeted and kind != SETTINGS:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if length > LEAST_MAX_FRAME_BYTES:
            raise BrokenError(ErrorCode.FRAME_SIZE_ERROR, f"a frame has {length} bytes")

    def _read_frame(self, kind: int, flags: int, stream_id: int, length: int, payload: bytes) -> None:
        if kind == DATA:
            self._read_data(flags, stream_id, length, payload)
        elif kind == HEADERS:
            self._read_headers(flags, stream_id, payload)
        elif kind == CONTINUATION:
            self._read_continuation(flags, payload)
        else:
            self._read_control(kind, flags, stream_id, payload)

    def _read_preface(self, data: bytes) -> bytes:
        left = self._preface_left
        wanted = PREFACE[-left:]
        if not data.startswith(wanted[: len(data)]):
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2's preface")
        self._preface_left = max(0, left - len(data))
        return data[left:]

    # Data -------------------------------------------------------------------------------------------------------------

    def _read_data(self, flags: int, stream_id: int, length: int, payload: bytes) -> None:
        """Read a frame of `length` bytes of data, of which the beginning may be all that is there."""
        state = self.streams.get(stream_id) or self._named(stream_id)
        self._window_in -= length
        if self._window_in < 0:
            raise BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "more data came than the connection's window lets in")
        if state is not None:
            if state.ended:
                raise BrokenError(ErrorCode.STREAM_CLOSED, "data came after a stream's end")
            state.window_in -= length
            if state.window_in < 0:
                raise BrokenError(ErrorCode.FLOW_CONTROL_ERROR, "more data came than a stream's window lets in")
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
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, f"a request on stream {stream_id}")
        if flags & PADDED:
            payload = self._without_padding(payload)
        if flags & PRIORITISED:
            if len(payload) < PRIORITY_BYTES:
                raise BrokenError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS end within their priority")
            payload = payload[PRIORITY_BYTES:]
        if flags & END_HEADERS:
            self._read_block(flags, stream_id, payload)
        else:
            self._block = _Block(stream_id, flags, payload)

    def _read_continuation(self, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        block.continuations += 1
        block.bytes += payload
        if block.continuations > _MAX_CONTINUATIONS or len(block.bytes) > self._limits.hard_list_bytes:
            raise BrokenError(ErrorCode.ENHANCE_YOUR_CALM, "a header block goes on and on")
        if flags & END_HEADERS:
            self._block = None
            self._read_block(block.flags, block.stream_id, bytes(block.bytes))

    def _read_block(self, flags: int, stream_id: int, block: bytes) -> None:
        self._count(len(block) // _FREE_BLOCK_BYTES)
        fields = self._fields.read(block)
        self._work_left -= _BLOCK_WORK + len(fields) // _FIELDS_A_WORK + len(block) // _BLOCK_BYTES_A_WORK
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
            raise BrokenError(ErrorCode.STREAM_CLOSED, "a header block came after a stream's end")
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

    # Helpers ----------------------------------------------------------------------------------------------------------

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
            raise BrokenError(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
        return payload[1 : len(payload) - payload[0]]
