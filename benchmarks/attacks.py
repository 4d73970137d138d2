"""How long a crowd takes to connect, and what small calls notice of their neighbours: `python -m benchmarks.attacks`.

Both are measured on `quicksilver serve` in turn with what they are compared with, so that whatever else the machine
does happens to both: a crowd that connects beside the same crowd at a listener that only accepts and writes a byte; the
calls of an honest client beside each kind of neighbour (`neighbours.py`) and without any.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as PipeEnd
from pathlib import Path
from typing import Final, cast

import uvloop

from benchmarks import wire
from benchmarks.neighbours import beside_neighbours
from benchmarks.run import train_model
from tests.e2e.processes import serving
from tests.service.http2.raw import connect

BACKLOG: Final = 4096
"""Of both listeners; the kernel caps it at `net.core.somaxconn`."""
REST_SECONDS: Final = 1.0
"""After a crowd, so that its end is not the next one's beginning."""
_SPAWN: Final = multiprocessing.get_context("spawn")


@dataclass
class Crowd:
    """Seconds until all of a crowd were connected, and until all had heard the first byte, a round each."""

    connected: list[float] = field(default_factory=list)
    greeted: list[float] = field(default_factory=list)

    def come(self, address: str, clients: int) -> None:
        """Connect once, and leave."""
        with contextlib.ExitStack() as opened:
            began = time.perf_counter()
            connections = [opened.enter_context(connect(address)) for _ in range(clients)]
            self.connected.append(time.perf_counter() - began)
            for connection in connections:
                if not connection.recv(1):
                    raise RuntimeError("a connection was closed and not greeted")
            self.greeted.append(time.perf_counter() - began)
        time.sleep(REST_SECONDS)


class _Greeter(asyncio.Protocol):
    """The least that a listener can do for a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"\0")


def listen(told: PipeEnd) -> None:
    """Accept and greet whoever comes, in a process of its own; the port goes into the pipe."""

    async def serve() -> None:
        listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        server = await asyncio.get_running_loop().create_server(_Greeter, sock=listening, backlog=BACKLOG)
        told.send(listening.getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


def crowds(address: str, clients: int, rounds: int) -> tuple[Crowd, Crowd]:
    """Our crowds and the bare listener's."""
    ours, theirs = Crowd(), Crowd()
    told, telling = _SPAWN.Pipe(duplex=False)
    listener = _SPAWN.Process(target=listen, args=(telling,), daemon=True)
    listener.start()
    bare = f"127.0.0.1:{told.recv()}"
    for _ in range(rounds):
        ours.come(address, clients)
        theirs.come(bare, clients)
    listener.terminate()
    listener.join()
    return ours, theirs


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description="Measure crowds and attacks.")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="[%(default)s]")
    parser.add_argument("--clients", type=int, default=3_000, metavar="N", help="of a crowd [%(default)s]")
    parser.add_argument(
        "--seconds",
        type=float,
        default=5,
        metavar="SECONDS",
        help="of small calls at a time [%(default)s]",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        train_model(Path(root))
        with serving(Path(root), "--default-model", wire.MODEL) as server:
            ours, theirs = crowds(server.address, options.clients, options.rounds)
            calls = beside_neighbours(server.address, options.seconds, options.rounds)
    _say(f"| {options.clients} connect | quicksilver, s | bare listener, s | ratio |\n|---|---|---|---|")
    for name in ("connected", "greeted"):
        _say(_compared(name, getattr(ours, name), getattr(theirs, name)))
    _say("\n| small calls beside | number | p50 ms | p99 ms | most ms |\n|---|---|---|---|---|")
    for name, took in calls.items():
        _say(_row(name, took))


def _compared(name: str, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Medians with least and most, and the median of the rounds' ratios."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    told = [f"{statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f})" for each in (ours, theirs, ratios)]
    return f"| {name} | {' | '.join(told)} |"


def _row(name: str, took: Sequence[float]) -> str:
    ordered = sorted(took)
    figures = [ordered[int(share * (len(ordered) - 1))] * 1e3 for share in (0.5, 0.99, 1)]
    return f"| {name} | {len(ordered)} | {' | '.join(f'{figure:.1f}' for figure in figures)} |"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is what was asked for


if __name__ == "__main__":
    main()
