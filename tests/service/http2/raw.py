"""A small HTTP/2 client over a real socket that does what it is told, also what no client should do."""

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from hpack import Decoder, Encoder
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES = 9
FRAME_BYTES = 16384
CONVERT = "/quicksilver.v1.ConverterService/Convert"

Field = tuple[str | bytes, str | bytes]

SECURED: dict[str, ssl.SSLContext] = {}
"""Addresses whose servers speak TLS, and what clients speak it with."""


def framed(message: bytes, flag: int = 0) -> bytes:
    """A message with gRPC's prefix."""
    return struct.pack(">BI", flag, len(message)) + message


def raw_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of any kind, right or wrong."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame, right or wrong."""
    return raw_frame(8, 0, stream, struct.pack(">I", increment))


def request(path: str | bytes = CONVERT, *extra: Field, **replaced: str | bytes) -> list[Field]:
    """Header fields of a gRPC call; keyword arguments replace, by name without dashes, or drop (empty)."""
    fields: dict[str, str | bytes] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    for name, value in replaced.items():
        key = {"method": ":method", "contenttype": "content-type"}.get(name, name)
        fields[key] = value
    return [*((key, value) for key, value in fields.items() if value), *extra]


@dataclass
class Answer:
    """What came on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None
    blocks: list[bytes] = field(default_factory=list)
    """Header blocks as they came."""

    @property
    def status(self) -> int | None:
        """The gRPC status, once there is one."""
        value = self.headers.get("grpc-status")
        return None if value is None else int(value)

    @property
    def message(self) -> bytes:
        """The first message of the answer, without its prefix."""
        (length,) = struct.unpack_from(">I", self.data, 1)
        return bytes(self.data[5 : 5 + length])


class RawClient:
    """One connection. `answers` holds what came so far; `wait` reads until something is there."""

    def __init__(self, address: str, *, greet: bool = True, settings: dict[int, int] | None = None) -> None:
        self.socket = connect(address)
        self.answers: dict[int, Answer] = {}
        self.goaway: GoAwayFrame | None = None
        self.goaways: list[GoAwayFrame] = []
        self.pings: list[bytes] = []
        self.asked = 0
        """Pings of the server's."""
        self.settings: dict[int, int] = {}
        self.settings_taken = 0
        """Settings of ours that the server acknowledged."""
        self.largest_frame = 0
        """Bytes of the server's largest frame, without its header."""
        self.table_bytes: list[int] = []
        """What the server may use of our compression table, once it acknowledged: a size for each acknowledgement."""
        self.closed = False
        self.acknowledge_pings = True
        self.acknowledge_settings = True
        self.windows: dict[int, int] = {}
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._buffer = bytearray()
        self._next = 1
        if greet:
            self.send(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())
            self.wait(lambda: bool(self.settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    # Sending ----------------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def try_send(self, data: bytes) -> bool:
        """Send bytes, and tell whether the connection took them; what it gave before can be read in either case."""
        try:
            self.socket.settimeout(20)
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def new_stream(self) -> int:
        """The next stream's number."""
        stream, self._next = self._next, self._next + 2
        return stream

    def headers_frame(self, fields: Sequence[Field], stream: int, *, end: bool = False) -> bytes:
        """A header block, in as many frames as it takes."""
        block = self._encoder.encode(fields)
        first, rest = block[:FRAME_BYTES], block[FRAME_BYTES:]
        frames: list[Frame] = [HeadersFrame(stream, first)]
        frames += [ContinuationFrame(stream, rest[at : at + FRAME_BYTES]) for at in range(0, len(rest), FRAME_BYTES)]
        frames[-1].flags.add("END_HEADERS")
        if end:
            frames[0].flags.add("END_STREAM")
        return b"".join(frame.serialize() for frame in frames)

    def data_frame(self, stream: int, data: bytes, *, end: bool = False) -> bytes:
        """One DATA frame."""
        frame = DataFrame(stream, data)
        if end:
            frame.flags.add("END_STREAM")
        return bytes(frame.serialize())

    def call_bytes(self, fields: Sequence[Field], body: bytes, *, end: bool = True) -> tuple[int, bytes]:
        """A call in as few frames as may be; returns its stream and the bytes to send."""
        stream = self.new_stream()
        out = bytearray(self.headers_frame(fields, stream))
        chunks = [body[at : at + FRAME_BYTES] for at in range(0, len(body), FRAME_BYTES)] or [b""]
        for index, chunk in enumerate(chunks):
            out += self.data_frame(stream, chunk, end=end and index == len(chunks) - 1)
        return stream, bytes(out)

    def call(self, body: bytes, fields: Sequence[Field] | None = None, *, end: bool = True) -> int:
        """Send a call, heedless of windows."""
        stream, out = self.call_bytes(request() if fields is None else fields, body, end=end)
        self.send(out)
        return stream

    def open_windows(self, stream: int = 0, size: int = 1 << 30) -> None:
        """Let the server send."""
        frame = WindowUpdateFrame(stream)
        frame.window_increment = size
        self.send(frame.serialize())

    def reset(self, stream: int, code: int = 8) -> None:
        """Cancel a call."""
        self.send(RstStreamFrame(stream, code).serialize())

    # Receiving --------------------------------------------------------------------------------------------------------

    def unary(self, body: bytes, fields: Sequence[Field] | None = None, *, end: bool = True) -> Answer:
        """Make a call and wait for its end."""
        return self.finish(self.call(body, fields, end=end))

    def expect(self, stream: int) -> Answer:
        """What came on a stream so far, and will."""
        return self.answers.setdefault(stream, Answer())

    def finish(self, stream: int, seconds: float = 20) -> Answer:
        """Wait until a call has ended."""
        answer = self.expect(stream)
        self.wait(lambda: answer.ended or answer.reset is not None, seconds)
        return answer

    def wait_closed(self, seconds: float = 20) -> None:
        """Wait until the server closed the connection."""
        with contextlib.suppress(OSError):
            self.wait(lambda: self.closed, seconds)
        self.closed = True

    def wait(self, done: object, seconds: float = 20) -> None:
        """Read until `done()`; raises where the connection closes or time runs out before."""
        assert callable(done)
        end = time.monotonic() + seconds
        while not done():
            if self.closed:
                raise ConnectionResetError("the server closed the connection")
            remaining = end - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("what was waited for did not come")
            self.socket.settimeout(remaining)
            self._read()

    def drain(self, seconds: float) -> None:
        """Read whatever comes for a while."""
        with contextlib.suppress(TimeoutError, OSError):
            self.wait(lambda: False, seconds)

    def _read(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            self.closed = True
        self._buffer += data
        for frame in self._frames():
            self._take(frame)

    def _frames(self) -> Iterator[Frame]:
        while len(self._buffer) >= FRAME_HEADER_BYTES:
            length = int.from_bytes(self._buffer[:3], "big") + FRAME_HEADER_BYTES
            if len(self._buffer) < length:
                return
            self.largest_frame = max(self.largest_frame, length - FRAME_HEADER_BYTES)
            raw = bytes(self._buffer[:length])
            del self._buffer[:length]
            with contextlib.suppress(HyperframeError):
                frame, _ = Frame.parse_frame_header(memoryview(raw[:FRAME_HEADER_BYTES]))
                frame.parse_body(memoryview(raw[FRAME_HEADER_BYTES:]))
                yield frame

    def _take(self, frame: Frame) -> None:
        answer = self.expect(frame.stream_id) if frame.stream_id else Answer()
        if isinstance(frame, HeadersFrame):
            answer.blocks.append(frame.data)
            answer.headers.update((str(key), str(value)) for key, value in self._decoder.decode(frame.data))
            answer.ended |= "END_STREAM" in frame.flags
        elif isinstance(frame, DataFrame):
            answer.data += frame.data
            answer.ended |= "END_STREAM" in frame.flags
        elif isinstance(frame, RstStreamFrame):
            answer.reset = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame
            self.goaways.append(frame)
        elif isinstance(frame, WindowUpdateFrame):
            self.windows[frame.stream_id] = self.windows.get(frame.stream_id, 0) + frame.window_increment
        elif isinstance(frame, PingFrame):
            self._take_ping(frame)
        elif isinstance(frame, SettingsFrame):
            self._take_settings(frame)

    def _take_settings(self, frame: SettingsFrame) -> None:
        if "ACK" in frame.flags:
            self.settings_taken += 1
            if self.table_bytes:
                self._decoder.max_allowed_table_size = self.table_bytes.pop(0)
            return
        self.settings = dict(frame.settings) or {0: 0}
        if self.acknowledge_settings:
            acknowledgement = SettingsFrame(0)
            acknowledgement.flags.add("ACK")
            self.try_send(acknowledgement.serialize())

    def _take_ping(self, frame: PingFrame) -> None:
        if "ACK" in frame.flags:
            self.pings.append(frame.opaque_data)
            return
        self.asked += 1
        if self.acknowledge_pings:
            answer = PingFrame(0, frame.opaque_data)
            answer.flags.add("ACK")
            self.try_send(answer.serialize())


def connect(address: str) -> socket.socket:
    """A connected socket, over TLS where the server speaks it."""
    connection = _connect(address)
    if (context := SECURED.get(address)) is None:
        return connection
    return context.wrap_socket(connection, server_hostname="localhost")


def _connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # what is sent in parts is not to wait for our peer
    return connection
