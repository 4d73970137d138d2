"""One measurement: one workload on one running server. What it returns is plain data, ready for JSON."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import h2load
from benchmarks.checker import Client, Sampler
from benchmarks.plan import Closed, Open, Stream, Workload
from benchmarks.process import ServerProcess
from benchmarks.wire import Exchange, framed

Sample = dict[str, Any]
"""Figures of one measurement by name; times in seconds."""

_PATIENCE: Final = 6.0
"""How many times longer than planned a load may take before it is given up."""
_LONGEST_WARM_UP: Final = 512


_HEAD_START_SECONDS: Final = 0.3
"""How much earlier than the small calls the large ones beside them begin, and how much later they end."""


class LoadError(Exception):
    """A load generator failed or took too long."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running server, and where files for the load can be written (best in memory)."""

    address: str
    process: ServerProcess
    scratch: Path
    load_cores: str

    def run(self, command: list[str], limit_seconds: float) -> str:
        """Run a load generator on its cores, and return what it printed."""
        pinned = ["taskset", "--cpu-list", self.load_cores, *command]
        try:
            done = subprocess.run(pinned, capture_output=True, text=True, timeout=limit_seconds, check=False)  # noqa: S603 - the commands are our own
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"the load was not done in {limit_seconds:.0f} s") from error
        if done.returncode:
            raise LoadError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout


def measure(target: Target, exchange: Exchange, workload: Workload, seconds: float, warm_up: float) -> Sample:
    """Check the server, warm it up, and measure.

    Raises:
        LoadError, OutputError: the load did not work.
        WrongAnswerError, grpc.RpcError, OSError: the server did not answer rightly before it was timed.
    """
    if isinstance(workload, Stream):
        return _stream(target, exchange, workload, seconds)
    answer_bytes = _checked_size(target, exchange)
    frame = target.scratch / "frame"
    frame.write_bytes(exchange.frame)
    if isinstance(workload, Open):
        return _open(target, exchange, workload, frame, seconds)
    return _closed(target, exchange, workload, frame, answer_bytes, seconds, warm_up)


def _checked_size(target: Target, exchange: Exchange) -> int:
    """Bytes of a right answer as it comes over HTTP."""
    client = Client(target.address)
    try:
        answer = client.ask(exchange)
    finally:
        client.close()
    return len(answer) + (5 if exchange.grpc else 0)


def _closed(  # noqa: PLR0917 - one call, above
    target: Target,
    exchange: Exchange,
    load: Closed,
    frame: Path,
    answer_bytes: int,
    seconds: float,
    warm_up: float,
) -> Sample:
    rate = _warm_up_rate(target, exchange, load, frame, warm_up)
    requests = max(load.in_flight, round(rate * seconds))
    log = target.scratch / "log"
    command = _h2load(target, exchange, frame, requests, load, log=log)
    cpu_before = target.process.cpu_seconds()
    with Sampler(target.address, exchange) as sampler:
        seen = h2load.parse(target.run(command, _PATIENCE * seconds + 20))
    cpu = target.process.cpu_seconds() - cpu_before
    p50, p99 = h2load.percentiles(h2load.read_log(log), [50, 99])
    log.unlink()
    answered = seen.done + sampler.asked
    return {
        "requests_per_second": seen.done / seen.seconds,
        "values_per_second": seen.done * load.values / seen.seconds,
        "cpu_seconds_per_100k": cpu / answered * 100_000,
        "p50_seconds": p50,
        "p99_seconds": p99,
        "requests": seen.done,
        "errors": h2load.missing_answers(seen, answer_bytes if exchange.grpc else None),
        "sampled": sampler.asked,
        "wrong": sampler.failures[:3],
    }


def _warm_up_rate(target: Target, exchange: Exchange, load: Closed, frame: Path, warm_up: float) -> float:
    """Requests a second, roughly, from a load that grows until it took some time."""
    requests = load.in_flight
    while True:
        seen = h2load.parse(target.run(_h2load(target, exchange, frame, requests, load), 60))
        if seen.seconds >= warm_up / 2 or requests > _LONGEST_WARM_UP * 1024:
            return seen.done / seen.seconds
        requests = round(requests * min(16.0, 1.2 * warm_up / seen.seconds)) + 1


def _h2load(
    target: Target, exchange: Exchange, frame: Path, requests: int, load: Closed, *, log: Path | None = None
) -> list[str]:
    # HTTP/1.1 has one request at a time on a connection
    connections = load.connections if exchange.grpc else load.in_flight
    return h2load.command(target.address, exchange, frame, requests, connections, load.in_flight, log)


def _open(target: Target, exchange: Exchange, load: Open, frame: Path, seconds: float) -> Sample:
    arguments = [
        target.address,
        str(seconds),
        str(load.calls_per_second),
        str(load.connections),
        exchange.path,
        str(frame),
    ]
    cpu_before = target.process.cpu_seconds()
    printed = target.run([sys.executable, "-m", "benchmarks.open_loop", *arguments], seconds + 30)
    cpu = target.process.cpu_seconds() - cpu_before
    seen = json.loads(printed)
    return {
        "offered_per_second": load.calls_per_second,
        "p50_seconds": seen["p50"],
        "p99_seconds": seen["p99"],
        "p999_seconds": seen["p999"],
        "cpu_seconds_per_100k": cpu / max(1, seen["done"]) * 100_000,
        "requests": seen["done"],
        "errors": seen["failed"],
    }


def measure_mixed(target: Target, small: Exchange, large: Exchange, load: Open, seconds: float) -> Sample:
    """An open loop of small calls beside a closed loop of large ones, two in flight on a connection of their own."""
    _checked_size(target, large)
    small_frame, large_frame = target.scratch / "small", target.scratch / "large"
    small_frame.write_bytes(small.frame)
    large_frame.write_bytes(large.frame)
    beside = h2load.command(target.address, large, large_frame, 1, 1, 2)
    milliseconds = round(1000 * (seconds + 2 * _HEAD_START_SECONDS))
    timed = [f"--duration={milliseconds}ms" if word.startswith("--requests") else word for word in beside]
    pinned = ["taskset", "--cpu-list", target.load_cores, *timed]
    background = subprocess.Popen(pinned, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 - as above
    try:
        time.sleep(_HEAD_START_SECONDS)
        sample = _open(target, small, load, small_frame, seconds)
        printed, _ = background.communicate(timeout=30)
    finally:
        background.kill()
        background.wait()
    del sample["cpu_seconds_per_100k"]  # most of it went into the large calls
    return {**sample, "beside_per_second": h2load.parse(printed).done / milliseconds * 1000}


def _stream(target: Target, exchange: Exchange, load: Stream, seconds: float) -> Sample:
    """Streams of many messages: the body of one HTTP request holds them all, one frame after the other."""
    client = Client(target.address)
    try:
        answers = client.ask_stream(exchange, load.messages)
    finally:
        client.close()
    frame = target.scratch / "stream"
    frame.write_bytes(exchange.frame * load.messages)
    first = _run_streams(target, exchange, frame, load.streams, load)
    streams = max(load.streams, round(first.done / first.seconds * seconds))
    cpu_before = target.process.cpu_seconds()
    seen = _run_streams(target, exchange, frame, streams, load)
    cpu = target.process.cpu_seconds() - cpu_before
    messages = seen.done * load.messages
    return {
        "requests_per_second": messages / seen.seconds,
        "values_per_second": messages * load.values / seen.seconds,
        "cpu_seconds_per_100k": cpu / messages * 100_000,
        "requests": messages,
        "errors": h2load.missing_answers(seen, sum(len(framed(answer)) for answer in answers)),
    }


def _run_streams(target: Target, exchange: Exchange, frame: Path, streams: int, load: Stream) -> h2load.Load:
    command = h2load.command(target.address, exchange, frame, streams, load.streams, load.streams)
    seen = h2load.parse(target.run(command, 60))
    if not seen.done:
        raise LoadError(f"none of {streams} streams came to its end")
    return seen
