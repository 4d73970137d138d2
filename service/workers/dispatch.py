"""Accept, choose, pass: every connection goes to the worker that has fewest."""

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Hashable, Mapping
from typing import Final, Generic, TypeVar

import structlog

from service.closed import Closed
from service.workers.handoff import pass_on

log = structlog.get_logger(__name__)

KeyT = TypeVar("KeyT", bound=Hashable)

_RETRY_SECONDS: Final = 0.01


def choose(connections: Mapping[KeyT, int]) -> KeyT | None:
    """The worker that has fewest connections; of equals the first; None where there is none."""
    return min(connections, key=connections.__getitem__, default=None)


class _Lane:
    """The way to one worker: how many connections it has, and those that wait to be passed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handoff: socket.socket) -> None:
        self._loop = loop
        self._handoff = handoff
        self._retry: asyncio.TimerHandle | None = None
        self.open = 0
        self.leaving = False
        self.queue: deque[socket.socket] = deque()

    def take(self, connection: socket.socket) -> None:
        """Pass a connection, after those before it."""
        self.open += 1
        self.queue.append(connection)
        if len(self.queue) == 1:
            self._flush()

    def close(self) -> list[socket.socket]:
        """Pass nothing more, and return what was not passed."""
        self._wait_no_more()
        self._handoff.close()
        left, self.queue = list(self.queue), deque()
        self.open -= len(left)
        return left

    def _flush(self) -> None:
        self._wait_no_more()
        while self.queue:
            try:
                pass_on(self._handoff, self.queue[0])
            except BlockingIOError:
                self._loop.add_writer(self._handoff.fileno(), self._flush)
                return
            except OSError:  # it is dying, and we are told soon; or too many descriptors of ours are on their way
                self._retry = self._loop.call_later(_RETRY_SECONDS, self._flush)
                return
            self.queue.popleft().close()

    def _wait_no_more(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_writer(self._handoff.fileno())


class Dispatcher(Generic[KeyT]):
    """Passes connections to workers, and knows how many each has. It lives in one event loop.

    Guarantees: at most `max_connections` are open over all workers, further ones are closed as they come; one that was
    not passed when its worker went is passed to another; one that finds no worker waits for the next that comes. No
    descriptor stays here after it was passed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_connections: int) -> None:
        self._loop = loop
        self._max_connections = max_connections
        self._lanes: dict[KeyT, _Lane] = {}
        self._homeless: deque[socket.socket] = deque()
        self._full = False
        self._closed = False
        self.refused: Counter[Closed] = Counter()
        """Connections that were closed as they came, and why."""

    def connections(self) -> dict[KeyT, int]:
        """How many connections each worker has, those that are on their way to it included."""
        return {worker: lane.open for worker, lane in self._lanes.items()}

    def accept(self, connection: socket.socket) -> None:
        """Pass a new connection on."""
        if self._closed or self._count() >= self._max_connections:
            self._say_full()
            self.refused[Closed.DRAINING if self._closed else Closed.FULL] += 1
            connection.close()
            return
        self._full = False
        self._place(connection)

    def add(self, worker: KeyT, handoff: socket.socket) -> None:
        """Let a worker take part. The socket is closed when it leaves."""
        handoff.setblocking(False)
        self._lanes[worker] = _Lane(self._loop, handoff)
        while self._homeless:
            self._place(self._homeless.popleft())

    def over(self, worker: KeyT, connections: int) -> None:
        """Learn that connections of a worker are closed."""
        lane = self._lanes.get(worker)
        if lane is not None:
            lane.open -= connections

    def leave(self, worker: KeyT) -> None:
        """Pass nothing more to a worker. What it has it still has."""
        lane = self._lanes.get(worker)
        if lane is not None and not lane.leaving:
            lane.leaving = True
            self._place_again(lane.close())

    def remove(self, worker: KeyT) -> None:
        """Learn that a worker is gone, and its connections with it."""
        self.leave(worker)
        self._lanes.pop(worker, None)

    def close(self) -> None:
        """Pass nothing more to anybody; what finds no worker is closed."""
        self._closed = True
        for worker in list(self._lanes):
            self.leave(worker)
        while self._homeless:
            self._homeless.popleft().close()

    def _count(self) -> int:
        return sum(lane.open for lane in self._lanes.values()) + len(self._homeless)

    def _place(self, connection: socket.socket) -> None:
        worker = choose({worker: lane.open for worker, lane in self._lanes.items() if not lane.leaving})
        if worker is None:
            self._homeless.append(connection)
        else:
            self._lanes[worker].take(connection)

    def _place_again(self, connections: list[socket.socket]) -> None:
        for connection in connections:
            if self._closed:
                connection.close()
            else:
                self._place(connection)

    def _say_full(self) -> None:
        if not self._full and not self._closed:
            self._full = True
            log.warning("connections are closed as they come: max_connections are open", limit=self._max_connections)
