"""Connections between two processes: the parent passes the descriptor of one that it accepted, a worker takes it up.

They go over a socketpair of their own, one byte and one descriptor each (SCM_RIGHTS). The end of that stream says that
no more will come.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 64


def pass_on(handoff: socket.socket, connection: socket.socket) -> None:
    """Pass a connection to the worker at the other end, without waiting. The caller still has to close its own copy.

    Raises:
        BlockingIOError: the worker has not taken up those before it.
        OSError: the worker is gone, or too many descriptors are on their way.
    """
    socket.send_fds(handoff, [b"\0"], [connection.fileno()])


class Arrivals:
    """A worker's end: hands connections to a front as they come, and tells how many are over.

    Lives in the front's event loop. `tell_over` is called once a turn of the loop at most.
    """

    def __init__(self, handoff: socket.socket, tell_over: Callable[[int], None]) -> None:
        self._handoff = handoff
        self._tell_over = tell_over
        self._over = 0

    def start(self, loop: asyncio.AbstractEventLoop, adopt: Callable[[socket.socket], None]) -> None:
        """Begin to take connections up."""
        self._loop = loop
        self._adopt = adopt
        self._handoff.setblocking(False)
        loop.add_reader(self._handoff.fileno(), self._take)

    def over(self) -> None:
        """Learn that a connection is closed."""
        self._over += 1
        if self._over == 1:
            self._loop.call_soon(self._tell)

    def finish(self) -> None:
        """Take up what was passed already, and no more."""
        while self._take():
            pass
        self._loop.remove_reader(self._handoff.fileno())
        self._handoff.close()

    def _tell(self) -> None:
        over, self._over = self._over, 0
        self._tell_over(over)

    def _take(self) -> bool:
        """Take some up, and tell whether there may be more."""
        for _ in range(_AT_ONCE):
            try:
                sent, descriptors, _, _ = socket.recv_fds(self._handoff, 1, 1)
            except OSError:  # none is there; or the parent is gone, which others notice
                return False
            if not sent:
                self._loop.remove_reader(self._handoff.fileno())
                return False
            if descriptors:
                connection = socket.socket(fileno=descriptors[0])
                connection.set_inheritable(False)  # Python does so for every other way to get one
                self._adopt(connection)
            else:  # the system dropped it
                log.error("a connection was lost: this worker is out of descriptors")
                self.over()
        return True
