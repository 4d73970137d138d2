"""A worker's process: the same server as a single one, on connections that the parent passes.

It ends when the parent says so, and at once when the parent is gone: nobody would look after it.
"""

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from service.config import Settings
from service.logs import configure_logs
from service.memory import keep_freed_pages, settle_memory
from service.snapshot import to_plain
from service.workers.control import (
    Ask,
    Channel,
    Drain,
    Ended,
    Failed,
    Heeded,
    Leaving,
    Over,
    Report,
    Start,
    State,
    Surveyed,
    Told,
    Whole,
)
from service.workers.handoff import Arrivals
from service.workers.siblings import Siblings

if TYPE_CHECKING:
    from service.server import Server

log = structlog.get_logger(__name__)

_ORPHANED = 70
"""Exit code of a worker whose parent is gone: `EX_SOFTWARE`, an end that nobody planned."""


class Worker:
    """Serves until told to drain. `run` is called once, on the main thread, and returns the exit code."""

    def __init__(self, channel: Channel, handoff: socket.socket, start: Start) -> None:
        self._channel = channel
        self._start = start
        self.settings = Settings.model_validate_json(start.settings)
        self._arrivals = Arrivals(handoff, lambda connections: channel.send(Over(connections)))
        self._draining = threading.Event()
        self._server: Server | None = None
        self.siblings = Siblings(channel)

    def run(self) -> int:
        """Serve, drain, report a last time."""
        threading.Thread(target=self._listen, name="from-parent", daemon=True).start()
        threading.Thread(target=self._leave_when_terminated, name="signals", daemon=True).start()
        try:
            server = self._make()
        except Exception as error:  # of whatever kind: the parent decides what becomes of it
            if not type(error).__module__.startswith("service."):
                log.exception("a fault kept this worker from starting")
            self._channel.send(Failed(str(error) or type(error).__name__))
            self._channel.close()
            return 1
        self._draining.wait()
        finished = server.stop()
        self._report(0, statistics=True)
        self._channel.send(Ended(finished))
        self._channel.close()
        return 0 if finished else 1

    def _make(self) -> "Server":
        from service.server import Server  # noqa: PLC0415 - seconds, during which the parent is already listened to

        server = Server(self.settings, arrivals=self._arrivals, siblings=self.siblings)
        server.models.subscribe(self._tell_state)
        server.start()
        self._server = server
        self.siblings.catch_up(self._start.told)
        settle_memory()
        self._tell_state()
        return server

    def _tell_state(self) -> None:
        if self._server is not None:
            catalogue = self._server.models.catalogue
            ready = self._server.health.own_ready
            self._channel.send(State(ready, sorted(catalogue.answering()), sorted(catalogue.models)))

    def _listen(self) -> None:
        """Do what the parent says, until it is gone."""
        while (message := self._channel.receive()) is not None:
            if isinstance(message, Ask):
                self._report(message.number, statistics=message.statistics)
            elif isinstance(message, Told):
                self.siblings.hear(message)
            elif isinstance(message, Heeded | Surveyed):
                self.siblings.answered(message)
            elif isinstance(message, Whole) and self._server is not None:
                self._server.health.learn(message.ready, message.answering, message.models)
            elif isinstance(message, Drain):
                self._draining.set()
        os._exit(_ORPHANED)

    def _report(self, number: int, *, statistics: bool) -> None:
        if self._server is not None:
            snapshot = to_plain(self._server.metrics.snapshot())
            told = self._server.statistics.plain() if statistics else None
            self._channel.send(Report(number, snapshot, gc.get_stats(), told))

    def _leave_when_terminated(self) -> None:
        """Ask the parent for a drain when somebody ends this worker alone. Ctrl-C reaches the parent as well."""
        signal.sigwait({signal.SIGTERM})
        self._channel.send(Leaving())


def main(arguments: Sequence[str]) -> int:
    """Run a worker on the two inherited sockets whose descriptors are the arguments."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    keep_freed_pages()  # before any thread starts
    control, handoff = (socket.socket(fileno=int(descriptor)) for descriptor in arguments)
    for inherited in (control, handoff):
        inherited.set_inheritable(False)
    channel = Channel(control)
    start = channel.receive()
    if not isinstance(start, Start):
        return _ORPHANED
    worker = Worker(channel, handoff, start)
    configure_logs(worker.settings.log_format, worker.settings.log_level, worker=start.slot)
    return worker.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
