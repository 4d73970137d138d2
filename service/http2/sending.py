"""What a server says on one HTTP/2 connection: frames in their order, and data within the peer's windows.

Nothing here does I/O: `take` gives what there is to write. Answers are handed on as they are given, whole or in views
of them, so that no byte of a large one is copied here.
"""

import struct
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from service.http2.field_blocks import FieldBlockWriter
from service.http2.frames import (
    DATA,
    DEFAULT_WINDOW_BYTES,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADERS,
    LEAST_MAX_FRAME_BYTES,
    MOST_STREAM_ID,
    PING,
    RST_STREAM,
    ErrorCode,
    block_frames,
    frame,
    goaway_frame,
    header,
    number_frame,
)
from service.http2.headers import HEAD, TAIL, Headers

if TYPE_CHECKING:
    from service.http2.requests import RequestFields

Part: TypeAlias = bytes | memoryview

_HEAD_BYTES: Final = 2
_TAIL_BYTES: Final = 1
"""The blocks of an ordinary answer: a byte for each field, once they are in the peer's table."""
_HEAD_FRAME: Final = header(_HEAD_BYTES, HEADERS, END_HEADERS, 0)[:-4]
_TAIL_FRAME: Final = header(_TAIL_BYTES, HEADERS, END_HEADERS | END_STREAM, 0)[:-4]
_BEFORE: Final = struct.Struct(f">{len(_HEAD_FRAME)}sL{_HEAD_BYTES}s{HEADER.format[1:]}")
"""What goes before the message of an ordinary answer: the frame of its head, and the header of that of its data."""
_BEHIND: Final = struct.Struct(f">{len(_TAIL_FRAME)}sL{_TAIL_BYTES}s")
"""What goes behind it: the frame of its trailers."""

_TURN_BYTES: Final = 1 << 16
"""What a stream sends before others have their turn; no frame of ours is larger, whatever the peer would take."""


def take_parts(parts: deque[Part], size: int) -> list[Part]:
    """Take so many bytes from the front of parts, or all there are; the one that is cut is not copied."""
    taken: list[Part] = []
    while size and parts:
        part = parts.popleft()
        if len(part) > size:
            view = memoryview(part)
            parts.appendleft(view[size:])
            part = view[:size]
        taken.append(part)
        size -= len(part)
    return taken


class StreamState:
    """One stream, as far as HTTP/2 is concerned: both windows, and what waits to be sent."""

    __slots__ = (
        "answered",
        "consumed",
        "ended",
        "expected",
        "is_ready",
        "parts",
        "queued",
        "stream_id",
        "tail",
        "window",
        "window_in",
    )

    def __init__(self, stream_id: int, window: int, window_in: int, *, ended: bool) -> None:
        self.stream_id = stream_id
        self.window = window
        """Bytes that the peer takes."""
        self.window_in = window_in
        """Bytes that the peer may send."""
        self.consumed = 0
        """Bytes that it sent, and may send again, of which it was not told yet."""
        self.expected = -1
        """Bytes that it has yet to send, where it said how many there are; else −1."""
        self.ended = ended
        """Whether it sends no more."""
        self.answered = False
        """Whether we send no more."""
        self.parts: deque[Part] = deque()
        self.queued = 0
        """Bytes of them."""
        self.tail: Headers | None = None
        self.is_ready = False
        """Whether it stands in the line of streams that have something to send."""


class Sending:
    """The sending side of a connection. What concerns a stream that is gone is left out, without a word.

    Guarantees: header blocks leave in the order in which they were compressed; of data no more leaves than the windows
    of the peer allow, some of each stream in turn.
    """

    def __init__(self) -> None:
        self.streams: dict[int, StreamState | None] = {}
        """Streams that are open; None for one with nothing to say of it, since its request came whole."""
        self.closed: list[int] = []
        """Streams that ended since it was last looked, however they did."""
        self.openings: dict[int, RequestFields] = {}
        """Requests of which nothing but the header list was read yet."""
        self._out: list[Part] = []
        self._queued_bytes = 0
        self._window = DEFAULT_WINDOW_BYTES
        self._initial_window = DEFAULT_WINDOW_BYTES
        self._initial_window_in = DEFAULT_WINDOW_BYTES
        self._max_frame_bytes = LEAST_MAX_FRAME_BYTES
        self._ready: deque[StreamState] = deque()
        self._blocks = FieldBlockWriter()
        self._head = self._tail = b""
        """The blocks of an ordinary answer, once they are the same for each."""

    # What it is -------------------------------------------------------------------------------------------------------

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the peer's windows, or to be written."""
        return self._queued_bytes + sum(map(len, self._out))

    def queued_bytes_of(self, stream_id: int) -> int:
        """Bytes of answers that wait on one stream."""
        state = self.streams.get(stream_id)
        return 0 if state is None else state.queued

    def is_answered(self, stream_id: int) -> bool:
        """Whether nothing more is sent on a stream."""
        state = self.streams.get(stream_id)
        return stream_id not in self.streams if state is None else state.answered

    # Answers ----------------------------------------------------------------------------------------------------------

    def answer(self, stream_id: int, message: bytes) -> None:
        """Send an ordinary answer with one message, in one piece where nothing stands in its way."""
        size = len(message)
        if (
            self.streams.get(stream_id, self) is not None
            or size > self._window
            or size > self._initial_window
            or size > LEAST_MAX_FRAME_BYTES
            or stream_id in self.openings
            or not self._tail
        ):
            self.send_head(stream_id, HEAD)
            self.send_data(stream_id, (message,))
            self.send_tail(stream_id, TAIL)
            self._learn_blocks()
            return
        del self.streams[stream_id]
        self.closed.append(stream_id)
        self._window -= size
        self._out += (
            _BEFORE.pack(_HEAD_FRAME, stream_id, self._head, size >> 8, size & 0xFF, DATA, 0, stream_id),
            message,
            _BEHIND.pack(_TAIL_FRAME, stream_id, self._tail),
        )

    def send_head(self, stream_id: int, fields: Headers, *, end: bool = False) -> None:
        """Send the header block before the messages, or the only one."""
        state = self._state(stream_id)
        if state is not None and not state.answered:
            self._send_block(state, fields, end=end)

    def send_data(self, stream_id: int, parts: Sequence[Part]) -> None:
        """Send bytes, which must not change any more."""
        state = self._state(stream_id)
        if state is None or state.answered:
            return
        parts = [part for part in parts if len(part)]
        size = sum(map(len, parts))
        state.parts += parts
        state.queued += size
        self._queued_bytes += size
        self._line_up(state)

    def send_tail(self, stream_id: int, fields: Headers) -> None:
        """Send the header block that ends the answer, after what was sent before."""
        state = self._state(stream_id)
        if state is None or state.answered:
            return
        state.tail = fields
        if not state.queued:
            self._send_tail(state)

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Cut a stream off, with what was not sent yet."""
        if stream_id in self.streams:
            self._out.append(number_frame(RST_STREAM, stream_id, code))
            self._close(stream_id)

    # What the connection says -----------------------------------------------------------------------------------------

    def ping(self, data: bytes) -> None:
        """Ask for an answer with the same eight bytes."""
        self._out.append(frame(PING, 0, 0, data))

    def give_notice(self) -> None:
        """Tell the peer to open no more streams; those that it opens before it knows are taken up."""
        self._out.append(goaway_frame(MOST_STREAM_ID, ErrorCode.NO_ERROR))

    def take(self, most: int) -> list[Part]:
        """Return what there is to write; of data that waited for windows about `most` bytes."""
        if self._ready:
            self._send_ready(most)
        out, self._out = self._out, []
        return out

    # Within the windows -----------------------------------------------------------------------------------------------

    def _set_max_frame_bytes(self, size: int) -> None:
        self._max_frame_bytes = min(size, _TURN_BYTES)

    def _line_up(self, state: StreamState) -> None:
        if state.queued and state.window > 0 and not state.is_ready:
            state.is_ready = True
            self._ready.append(state)

    def _send_ready(self, most: int) -> None:
        """Let streams that may send do so, by turns, until windows are empty or it is enough."""
        ready = self._ready
        left = most
        while ready and left > 0 and self._window > 0:
            state = ready.popleft()
            size = min(state.queued, state.window, self._window, _TURN_BYTES)
            if size <= 0:
                state.is_ready = False
                continue
            self._send_frames(state, size)
            left -= size
            if state.queued:
                ready.append(state)
                continue
            state.is_ready = False
            if state.tail is not None:
                self._send_tail(state)

    def _send_frames(self, state: StreamState, size: int) -> None:
        """Send so many bytes, in frames as large as the peer takes."""
        out, parts, most, left = self._out, state.parts, self._max_frame_bytes, size
        while left:
            piece = min(left, most)
            left -= piece
            out.append(header(piece, DATA, 0, state.stream_id))
            out += take_parts(parts, piece)
        state.queued -= size
        state.window -= size
        self._window -= size
        self._queued_bytes -= size

    def _send_tail(self, state: StreamState) -> None:
        assert state.tail is not None  # noqa: S101 - who calls has looked
        self._send_block(state, state.tail, end=True)

    def _send_block(self, state: StreamState, fields: Headers, *, end: bool) -> None:
        block = self._blocks.write(fields)
        self._out.append(block_frames(state.stream_id, block, LEAST_MAX_FRAME_BYTES, end=end))
        if end:
            state.answered = True
            if state.ended:
                self._close(state.stream_id)

    def _learn_blocks(self) -> None:
        """Keep the blocks of an ordinary answer, once they no longer change."""
        if not self._tail and self._blocks.ready:
            self._head, self._tail = self._blocks.write(HEAD), self._blocks.write(TAIL)
            assert (len(self._head), len(self._tail)) == (_HEAD_BYTES, _TAIL_BYTES)  # noqa: S101 - both are in the table

    # Streams ----------------------------------------------------------------------------------------------------------

    def _state(self, stream_id: int) -> StreamState | None:
        """What is known of a stream that is open; made where there was nothing to say of it."""
        if stream_id not in self.streams:
            return None
        state = self.streams[stream_id]
        if state is None:
            ended = stream_id not in self.openings
            state = StreamState(stream_id, self._initial_window, self._initial_window_in, ended=ended)
            if not ended:
                state.expected = self.openings[stream_id].data_bytes
            self.streams[stream_id] = state
        return state

    def _close(self, stream_id: int) -> None:
        state = self.streams.pop(stream_id, None)
        self.openings.pop(stream_id, None)
        self.closed.append(stream_id)
        if state is None:
            return
        self._queued_bytes -= state.queued
        state.queued = 0
        state.parts.clear()
        state.answered = True
