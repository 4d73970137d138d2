"""What all metrics cost the fast front: CPU of its thread with them and without. `python -m benchmarks.metrics_cost`.

Two fronts serve one model in this process, each on a thread of its own; one tells the server's metrics of everything,
the other tells nobody. A client in another process sends bursts of calls of one row to one and to the other, in turn,
so that whatever else the machine does happens to both. Reading the metrics is another thread's work, and is stated by
itself.
"""

import argparse
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection as PipeEnd
from pathlib import Path
from typing import Final

from ngh2 import Connection, Role
from ngh2.events import StreamClosed
from prometheus_client import CollectorRegistry, generate_latest

from benchmarks import wire
from benchmarks.run import train_model
from proto.repository import Repository
from service.calls import BatchedMethod
from service.closed import Closed
from service.codec import ConvertCodec
from service.dataplane import Dataplane
from service.engine import EngineOptions
from service.errors import Shed
from service.front_http2 import Http2LoopThread
from service.http2 import Http2Limits
from service.metrics import Metrics
from service.models import LoadedVersion, Models
from service.run_observers import Served
from service.status import Code

BURSTS: Final = (1, 16, 64, 256)
ROUND_CALLS: Final = 1024
"""Calls of one round on one front."""
CONVERT: Final = "/quicksilver.v1.ConverterService/Convert"
HEADERS: Final = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", CONVERT.encode()),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]
_READ_BYTES: Final = 1 << 16


class Nobody:
    """Is told of everything, and keeps nothing."""

    def started(self, path: str, calls: int = 1) -> None:
        """Keep nothing."""

    def handled_many(self, path: str, code: Code, seconds: Sequence[float]) -> None:
        """Keep nothing."""

    def shed(self, reason: Shed, calls: int = 1) -> None:
        """Keep nothing."""

    def connection_opened(self) -> None:
        """Keep nothing."""

    def connection_closed(self, reason: Closed) -> None:
        """Keep nothing."""

    def ran(
        self,
        version: LoadedVersion,
        rows: int,
        queue_seconds: Sequence[float],
        inference_seconds: float,
        served: Served,
    ) -> None:
        """Keep nothing."""


class Client:
    """A connection that sends bursts of calls."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._http2 = Connection(Role.CLIENT)
        self._http2.initiate_connection({})
        self._frame = wire.framed(wire.convert_request(wire.readings(1)))

    def burst(self, calls: int) -> None:
        """Send so many calls at once, and wait for their answers."""
        for _ in range(calls):
            self._http2.send_data(self._http2.send_request(HEADERS), self._frame, end_stream=True)
        left = calls
        while left:
            if out := self._http2.data_to_send():
                self._socket.sendall(out)
            self._http2.receive_data(self._socket.recv(_READ_BYTES))
            left -= sum(isinstance(event, StreamClosed) for event in self._http2.events())


def serve_client(orders: PipeEnd) -> None:
    """Be the client: for each order, an address, the calls of a burst and the bursts, send them, and say so."""
    clients: dict[str, Client] = {}
    while (order := orders.recv()) is not None:
        address, calls, bursts = order
        client = clients.get(address) or clients.setdefault(address, Client(address))
        for _ in range(bursts):
            client.burst(calls)
        orders.send(order)


class Side:
    """A front with an observer."""

    def __init__(self, models: Models, observer: Metrics | Nobody) -> None:
        before = set(threading.enumerate())
        method = BatchedMethod(CONVERT, ConvertCodec())
        dataplane = Dataplane(models, observer)
        limits = Http2Limits(inline_seconds=1.0)  # no run of one row is worth another thread
        self._front = Http2LoopThread({CONVERT: method}, dataplane, observer, limits, address="127.0.0.1:0")
        self._address = self._front.start()
        (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "http2")
        self._clock = time.pthread_getcpuclockid(thread.ident or 0)

    def cpu_seconds(self, orders: PipeEnd, calls: int) -> float:
        """CPU of the front's thread for a round of bursts, by call."""
        bursts = ROUND_CALLS // calls
        before = time.clock_gettime(self._clock)
        orders.send((self._address, calls, bursts))
        orders.recv()
        return (time.clock_gettime(self._clock) - before) / (bursts * calls)

    def close(self) -> None:
        """End."""
        self._front.stop(1.0)


def shares(sides: Sequence[Side], orders: PipeEnd, metrics: Metrics, calls: int, rounds: int) -> list[list[float]]:
    """CPU seconds of a call on each side, round by round."""
    pairs = []
    for turn in range(rounds + 1):
        metrics.snapshot()  # so that there is room for samples again
        in_turn = sides if turn % 2 else sides[::-1]
        seconds = {side: side.cpu_seconds(orders, calls) for side in in_turn}
        pairs.append([seconds[side] for side in sides])
    return pairs[1:]  # the first warms both


def scrape_seconds(metrics: Metrics) -> float:
    """CPU seconds of one scrape."""
    registry = CollectorRegistry()
    registry.register(metrics)
    begun = time.thread_time()
    generate_latest(registry)
    return time.thread_time() - begun


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=80, metavar="N", help="rounds of each size of burst [80]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-models-") as directory:
        train_model(Path(directory))
        models = Models(Repository(Path(directory)), EngineOptions(device="cpu"))
        models.load()
        metrics = Metrics([BatchedMethod(CONVERT, ConvertCodec())], models)
        sides = Side(models, Nobody()), Side(models, metrics)
        orders, theirs = multiprocessing.Pipe()
        client = multiprocessing.get_context("spawn").Process(target=serve_client, args=(theirs,), daemon=True)
        client.start()
        say("| calls in a burst | µs of CPU a call without | with | share of the metrics |")
        say("| --- | --- | --- | --- |")
        for calls in BURSTS:
            pairs = shares(sides, orders, metrics, calls, options.rounds)
            # The least of all rounds is what is left where the machine disturbs nothing.
            without, with_metrics = (1e6 * min(column) for column in zip(*pairs, strict=True))
            say(f"| {calls} | {without:.2f} | {with_metrics:.2f} | {1 - without / with_metrics:.1%} |")
        say(f"\nA scrape takes {1e3 * scrape_seconds(metrics):.1f} ms of CPU, on a thread of its own.")
        orders.send(None)
        client.join()
        for side in sides:
            side.close()


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)  # noqa: T201 - this is what was asked for


if __name__ == "__main__":
    main()
