"""A proxy between a client and a front that notes what crossed the wire: which calls really left, which were answered.

A client may give up calls that it never sent, and blame the server. The wire tells.
"""

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.service.http2.raw import FRAME_HEADER_BYTES, PREFACE

DATA, HEADERS, GOAWAY = 0, 1, 7
END_STREAM = 1


@dataclass
class Wire:
    """One connection: the streams that its client opened, those the server ended, the last stream of each GOAWAY."""

    opened: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    last_streams: list[int] = field(default_factory=list)


class Wiretap:
    """Passes bytes on between clients and the front at `target`, and reads the frames. Use it as a context."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.wires: list[Wire] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *arguments: object) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        host, port = self._target.rsplit(":", 1)
        try:
            server = socket.create_connection((host, int(port)))
        except OSError:
            client.close()
            return
        wire = Wire()
        self.wires.append(wire)
        open_ends = threading.Barrier(2)
        self._start(_pass_on, client, server, _Frames(wire, from_client=True), open_ends)
        self._start(_pass_on, server, client, _Frames(wire, from_client=False), open_ends)


class _Frames:
    """The frames of one direction."""

    def __init__(self, wire: Wire, *, from_client: bool) -> None:
        self._wire = wire
        self._from_client = from_client
        self._greeting = len(PREFACE) if from_client else 0
        self._buffer = bytearray()

    def read(self, data: bytes) -> None:
        """Note what is in these bytes."""
        self._buffer += data
        if self._greeting and len(self._buffer) >= self._greeting:
            del self._buffer[: self._greeting]
            self._greeting = 0
        while not self._greeting and len(self._buffer) >= FRAME_HEADER_BYTES:
            length = int.from_bytes(self._buffer[:3], "big") + FRAME_HEADER_BYTES
            if len(self._buffer) < length:
                return
            self._note(bytes(self._buffer[:length]))
            del self._buffer[:length]

    def _note(self, frame: bytes) -> None:
        kind, flags, stream = frame[3], frame[4], int.from_bytes(frame[5:9], "big")
        if self._from_client:
            if kind == HEADERS:
                self._wire.opened.add(stream)
        elif kind == GOAWAY:
            self._wire.last_streams.append(int.from_bytes(frame[9:13], "big"))
        elif kind in {DATA, HEADERS} and flags & END_STREAM:
            self._wire.ended.add(stream)


def _pass_on(source: socket.socket, sink: socket.socket, frames: _Frames, open_ends: threading.Barrier) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            frames.read(data)
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    open_ends.wait(60)  # both directions are over
    source.close()
