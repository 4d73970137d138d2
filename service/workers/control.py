"""What the parent and a worker say to each other over a socketpair: typed messages, each a length and JSON.

The parent reads and writes on its event loop; a worker on two threads, so that neither a model that loads nor a loop
that is busy keeps it from answering, and a parent that is slow never holds up a worker's calls.
"""

import asyncio
import contextlib
import json
import socket
import struct
import threading
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

_LENGTH: Final = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Start:
    """To a worker, first of all: which one it is, its settings as JSON, and what was told to all before it came."""

    slot: int
    settings: str
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """To a worker: report what you counted, under this number; with `statistics`, those of ModelStatistics too."""

    number: int
    statistics: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """To every worker: something that one of them, or the parent, told all. All hear it in one order."""

    number: int
    topic: str
    content: Any


@dataclass(frozen=True, slots=True)
class Heeded:
    """To a worker: all that are up have acted on what it told under this number, or tried to.

    `problems` holds why it could not be done, by the place of the worker.
    """

    number: int
    problems: dict[str, str]


@dataclass(frozen=True, slots=True)
class Whole:
    """To every worker: what is true of the server with all its workers."""

    ready: bool
    answering: list[str]
    """What every worker that serves can answer for, in the words of `Catalogue.answering`."""
    models: list[str]
    """Models that some worker knows."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """To a worker: the statistics of all, as it asked for under this number."""

    number: int
    statistics: list[Any]


@dataclass(frozen=True, slots=True)
class Drain:
    """To a worker: finish the calls in flight, and end. No more connections are passed."""


@dataclass(frozen=True, slots=True)
class State:
    """From a worker: whether its models answer, and which. The first one says that it can take connections."""

    ready: bool
    answering: list[str]
    """What it can answer for, in the words of `Catalogue.answering`."""
    models: list[str]
    """Models that it knows."""


@dataclass(frozen=True, slots=True)
class Failed:
    """From a worker: it cannot start."""

    reason: str


@dataclass(frozen=True, slots=True)
class Over:
    """From a worker: so many of its connections are closed."""

    connections: int


@dataclass(frozen=True, slots=True)
class Report:
    """From a worker: a snapshot of its metrics in plain form, and what Python's collector did by generation.

    `statistics` is None where they were not asked for.
    """

    number: int
    snapshot: dict[str, Any]
    garbage: list[dict[str, int]]
    statistics: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Tell:
    """From a worker: tell this to all, me included. The last of each topic is told to those that come later, too."""

    number: int
    topic: str
    content: Any


@dataclass(frozen=True, slots=True)
class Heard:
    """From a worker: I have acted on what was told under this number, or could not, for the reason given."""

    number: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """From a worker: gather the statistics of all, mine included, under this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """From a worker: I was asked to end by somebody else. Pass me nothing more, and let me drain."""


@dataclass(frozen=True, slots=True)
class Ended:
    """From a worker, last of all: whether all calls in flight were answered in time."""

    finished: bool


Message: TypeAlias = (
    Start
    | Ask
    | Told
    | Heeded
    | Whole
    | Surveyed
    | Drain
    | State
    | Failed
    | Over
    | Report
    | Tell
    | Heard
    | Survey
    | Leaving
    | Ended
)

_KINDS: Final[dict[str, type[Message]]] = {kind.__name__: kind for kind in Message.__args__}


def encode(message: Message) -> bytes:
    """Write a message."""
    body = json.dumps([type(message).__name__, asdict(message)]).encode()
    return _LENGTH.pack(len(body)) + body


def _decode(body: bytes) -> Message:
    kind, fields = json.loads(body)
    return _KINDS[kind](**fields)


async def read(reader: asyncio.StreamReader) -> Message | None:
    """Read a message on the parent's side; None when the worker is gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return _decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class Channel:
    """A worker's end. `send` may be called by any thread and waits for nobody; `receive` by one thread."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="to-parent", daemon=True)
        self._writer.start()

    def send(self, message: Message) -> None:
        """Have a message sent, after those before it."""
        self._outgoing.put(encode(message))

    def receive(self) -> Message | None:
        """Wait for a message; None when the parent is gone."""
        head = self._read(_LENGTH.size)
        body = head and self._read(_LENGTH.unpack(head)[0])
        return _decode(body) if body else None

    def close(self) -> None:
        """Return when everything is sent, or the parent is gone."""
        self._outgoing.put(None)
        self._writer.join()

    def _read(self, size: int) -> bytes | None:
        """Exactly so many bytes, or None."""
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._socket.recv(size - len(parts))
            except ConnectionError:
                return None
            if not part:
                return None
            parts += part
        return bytes(parts)

    def _write(self) -> None:
        with contextlib.suppress(ConnectionError):  # whoever receives learns of it
            while (message := self._outgoing.get()) is not None:
                self._socket.sendall(message)
