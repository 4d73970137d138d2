"""Two servers on one repository and one store, each at an address of its own, which may be killed and come back."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Final

from tests.e2e.processes import Serving, serving

COUNT: Final = 2


class Servers:
    """Real processes of `quicksilver serve`. One that is killed comes back at its old address."""

    def __init__(self, repository: Path, flags: Sequence[str], ending: ExitStack) -> None:
        self._repository = repository
        self._flags = flags
        self._places = [ending.enter_context(ExitStack()) for _ in range(COUNT)]
        self._ports = [(ending.enter_context(_reserved()), ending.enter_context(_reserved())) for _ in range(COUNT)]
        self._running: dict[int, Serving] = {}
        for number in range(COUNT):
            self._start(number)

    @property
    def target(self) -> str:
        """Both addresses, as gRPC takes them: who loses one goes to the other."""
        return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port, _ in self._ports)

    @property
    def http_addresses(self) -> list[str]:
        """Where the metrics are."""
        return [f"127.0.0.1:{port}" for _, port in self._ports]

    def kill(self, number: int) -> None:
        """Kill one, as `kill -9` does."""
        killed = self._running.pop(number)
        killed.signal(SIGKILL)
        assert killed.wait() == -SIGKILL
        self._places[number].close()

    def revive(self) -> None:
        """Start those again that were killed."""
        for number in range(COUNT):
            if number not in self._running:
                self._start(number)

    def metrics(self, series: str) -> list[float]:
        """The value of a series, of each server that has it."""
        found = []
        for server in self._running.values():
            lines = [line for line in server.get("/metrics")[1].splitlines() if line.startswith(series + " ")]
            found += [float(line.rpartition(" ")[2]) for line in lines]
        return found

    def _start(self, number: int) -> None:
        grpc, http = self._ports[number]
        addresses = ("--listen", f"127.0.0.1:{grpc}", "--http-listen", f"127.0.0.1:{http}")
        started = serving(self._repository, *self._flags, *addresses)
        self._running[number] = self._places[number].enter_context(started)


@contextmanager
def _reserved() -> Iterator[int]:
    """A port that is given to nobody else while its server is away: bound here as well, and never listened on."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
