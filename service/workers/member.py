"""One worker as the parent sees it: a process, what it said last, and the way to ask it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from service.workers.control import Ask, Drain, Ended, Failed, Message, Report, Start, State, encode, read

COMMAND: Final = ("-P", "-m", "service.workers.worker")
_ANSWER_SECONDS: Final = 2.0
_EXIT_SECONDS: Final = 5.0
"""Until a worker that said its last word is killed."""


@dataclass(slots=True)
class Spawned:
    """A process that was started, and our ends of its two socketpairs."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    handoff: socket.socket


def spawn(command: Sequence[str]) -> Spawned:
    """Start a worker: a fresh interpreter that inherits two sockets, and nothing else but the environment."""
    control, its_control = socket.socketpair()
    handoff, its_handoff = socket.socketpair()
    with its_control, its_handoff:
        inherited = (its_control.fileno(), its_handoff.fileno())
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - as Python itself takes ''
        process = subprocess.Popen(  # noqa: S603 - this very interpreter, and a module of ours
            [sys.executable, *command, *map(str, inherited)],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
    return Spawned(process, control, handoff)


class Member:
    """A worker from its spawning to its end. It lives in one event loop.

    `up` becomes true when it can take connections, `leaving` when it shall have no more, `over` when it is gone; then
    `reason` says why. What it says goes to `hear` while it lives.
    """

    def __init__(self, number: int, slot: int, spawned: Spawned, hear: Callable[["Member", Message], None]) -> None:
        self.number = number
        """Of the process: never used twice."""
        self.slot = slot
        """Its place, which the one that replaces it takes over."""
        self.pid = spawned.process.pid
        self.handoff = spawned.handoff
        self.up = asyncio.Event()
        self.leaving = asyncio.Event()
        self.over = asyncio.Event()
        self.state = State(ready=False, answering=[], models=[])
        """What it said last of its models."""
        self.told_to_end = False
        self.finished: bool | None = None
        """Whether it drained in time; None before it said so."""
        self.reason = ""
        self.up_since = 0.0
        self.reported_at = 0.0
        self.garbage: list[dict[str, int]] = []
        self._process = spawned.process
        self._control = spawned.control
        self._hear = hear
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._asked = 0
        self._silent = False
        self._writer: asyncio.StreamWriter | None = None
        self._unsent: list[Message] = []

    @property
    def serves(self) -> bool:
        """Whether new connections may be passed to it."""
        return self.up.is_set() and not self.leaving.is_set()

    @property
    def up_seconds(self) -> float | None:
        """How long it has been up, None where it never was."""
        return monotonic() - self.up_since if self.up.is_set() else None

    async def live(self, start: Start) -> None:
        """Listen to it until it is gone, and until nothing of it is left."""
        reader, writer = await asyncio.open_unix_connection(sock=self._control)
        writer.writelines(map(encode, (start, *self._unsent)))
        self._writer = writer
        while (message := await read(reader)) is not None:
            self._note(message)
            self._hear(self, message)
        self._silent = True
        self.state = State(ready=False, answering=[], models=[])
        self.leaving.set()
        for answer in self._answers.values():
            answer.cancel()
        writer.close()
        status = await asyncio.get_running_loop().run_in_executor(None, self._reap)
        self.reason = self.reason or _ending(status)
        self.over.set()

    def send(self, message: Message) -> None:
        """Say something to it, as soon as it can be."""
        if self._writer is None:
            self._unsent.append(message)
        elif not self._silent:
            self._writer.write(encode(message))

    def drain(self) -> None:
        """Tell it to finish its calls and end."""
        self.told_to_end = True
        self.leaving.set()
        self.send(Drain())

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def ask(self, *, statistics: bool = False) -> None:
        """Have it report what it counted, and return when it did, is gone, or takes too long."""
        if self._silent:
            return
        self._asked += 1
        number = self._asked
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self.send(Ask(number, statistics))
        await asyncio.wait([answer], timeout=_ANSWER_SECONDS)
        self._answers.pop(number, None)

    def _note(self, message: Message) -> None:
        if isinstance(message, State):
            self.state = message
            if not self.up.is_set():
                self.up_since = monotonic()
                self.up.set()
        elif isinstance(message, Failed):
            self.reason = message.reason
        elif isinstance(message, Ended):
            self.finished = message.finished
        elif isinstance(message, Report):
            self.garbage = message.garbage
            self.reported_at = monotonic()
            answer = self._answers.pop(message.number, None)
            if answer is not None and not answer.done():
                answer.set_result(None)

    def _reap(self) -> int:
        try:
            return self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"it exited with code {status}"
    try:
        return f"{signal.Signals(-status).name} ended it"
    except ValueError:
        return f"signal {-status} ended it"
