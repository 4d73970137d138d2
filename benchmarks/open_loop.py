"""An open-loop load: calls fall due at a fixed rate, whatever the server does.

Arguments: ADDRESS SECONDS RATE CONNECTIONS PATH FRAME.

h2load's `--rps` measures from when a request was sent, and sends none while a connection has its fill in flight: what
a slow answer delays is left out of the times (coordinated omission). Here every call has a time when it is due, nothing
puts off sending it but this process being late itself, and what is measured is the time from then to its trailers, so
that lateness of either side is in the figures. Every call's grpc-status is read.
"""

import ctypes
import gc
import json
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from ngh2 import Configuration, Connection, Role, Setting
from ngh2.events import DataReceived, ResponseReceived, StreamClosed, TrailersReceived

_DRAIN_SECONDS: Final = 5.0
_WINDOW_BYTES: Final = 1 << 30
_PR_SET_TIMERSLACK: Final = 29
_OK: Final = (b"grpc-status", b"0")


@dataclass(slots=True)
class Tally:
    """What came of the calls."""

    seconds: list[float] = field(default_factory=list)
    """From due to done, of calls that ended with OK and a message."""
    failed: int = 0


class Peer:
    """One connection, and the calls open on it."""

    def __init__(self, address: str, path: str, frame: bytes, tally: Tally) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._http2 = Connection(Role.CLIENT, Configuration())
        self._http2.initiate_connection({Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: _WINDOW_BYTES})
        self._http2.set_local_window_size(_WINDOW_BYTES)
        self._frame = frame
        self._tally = tally
        self._due: dict[int, float] = {}
        self._right: dict[int, int] = {}
        self._unsent = b""
        self._headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", address.encode()),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]

    @property
    def open_calls(self) -> int:
        """How many calls are not answered."""
        return len(self._due)

    def call(self, due: float) -> None:
        """Begin a call that was due then; `flush` sends it."""
        stream = self._http2.send_request(self._headers)
        self._http2.send_data(stream, self._frame, end_stream=True)
        self._due[stream] = due
        self._right[stream] = 0

    def flush(self) -> None:
        """Send what can be sent."""
        data = self._unsent + self._http2.data_to_send()
        try:
            sent = self.socket.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        self._unsent = data[sent:]

    def receive(self) -> None:
        """Take what came, and note which calls it ends."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        now = time.perf_counter()
        if not data:
            raise ConnectionError("the server closed the connection")
        self._http2.receive_data(data)
        for event in self._http2.events():
            if isinstance(event, StreamClosed):
                self._end(event.stream_id, now)
            elif isinstance(event, DataReceived):
                self._right[event.stream_id] |= 1
            elif isinstance(event, TrailersReceived | ResponseReceived) and _OK in event.headers:
                self._right[event.stream_id] |= 2

    def _end(self, stream: int, now: float) -> None:
        due = self._due.pop(stream)
        if self._right.pop(stream) == 3:  # noqa: PLR2004 - both bits: a message, and OK
            self._tally.seconds.append(now - due)
        else:
            self._tally.failed += 1


def run(peers: Sequence[Peer], tally: Tally, seconds: float, rate: float) -> None:
    """Let `seconds * rate` calls fall due at even distances, over the connections in turn; wait for the last ones."""
    connections = len(peers)
    selector = selectors.SelectSelector()  # its timeout has microseconds; epoll's has milliseconds
    for peer in peers:
        peer.flush()
        selector.register(peer.socket, selectors.EVENT_READ, peer)
    total = int(seconds * rate)
    begun = 0
    start = time.perf_counter() + 0.05
    end = start + seconds + _DRAIN_SECONDS
    while begun < total or any(peer.open_calls for peer in peers):
        now = time.perf_counter()
        if now > end:
            break
        due_now = min(total, int((now - start) * rate) + 1) if now >= start else 0
        touched = {peers[index % connections] for index in range(begun, due_now)}
        for index in range(begun, due_now):
            peers[index % connections].call(start + index / rate)
        begun = max(begun, due_now)
        for peer in touched:
            peer.flush()
        wait = start + begun / rate - time.perf_counter() if begun < total else 0.1
        for key, _ in selector.select(max(0.0, wait)):
            key.data.receive()
            key.data.flush()
    tally.failed += total - begun + sum(peer.open_calls for peer in peers)


def main() -> None:
    """Run a load, and print its result as one line of JSON."""
    address, seconds, rate, connections, path, frame = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # wake when it is time, not 50 µs later
    gc.disable()
    tally = Tally()
    body = Path(frame).read_bytes()
    run([Peer(address, path, body, tally) for _ in range(int(connections))], tally, float(seconds), float(rate))
    at = np.percentile(tally.seconds, [50, 99, 99.9], method="inverted_cdf") if tally.seconds else [None] * 3
    p50, p99, p999 = (None if value is None else float(value) for value in at)
    result = {"done": len(tally.seconds), "failed": tally.failed, "p50": p50, "p99": p99, "p999": p999}
    print(json.dumps(result))  # noqa: T201 - whoever started this process reads it


if __name__ == "__main__":
    main()
