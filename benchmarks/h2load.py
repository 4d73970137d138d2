"""h2load: its command line, and what it prints. It counts HTTP statuses and bytes; of grpc-status it knows nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.wire import Exchange

_FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s|m|h), ([\d.]+) req/s")
_REQUESTS = re.compile(
    r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
)
_TRAFFIC = re.compile(r"traffic: .*?\((\d+)\) total, .*?\((\d+)\) headers .*?\((\d+)\) data")
_UNIT_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class OutputError(Exception):
    """h2load printed something else than a result; the message holds the end of it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What h2load saw."""

    seconds: float
    done: int
    succeeded: int
    """Answers with an HTTP status of 2xx."""
    data_bytes: int
    """Of DATA frames that came, prefixes of messages included."""


def parse(text: str) -> Load:
    """Read what h2load prints at its end.

    Raises:
        OutputError: it has no result in it.
    """
    finished, requests, traffic = _FINISHED.search(text), _REQUESTS.search(text), _TRAFFIC.search(text)
    if finished is None or requests is None or traffic is None:
        raise OutputError("h2load gave no result: " + " ".join(text.split())[-300:])
    seconds = float(finished[1]) * _UNIT_SECONDS[finished[2]]
    return Load(seconds, done=int(requests[3]), succeeded=int(requests[4]), data_bytes=int(traffic[3]))


def missing_answers(load: Load, answer_bytes: int | None) -> int:
    """How many calls failed, by their HTTP status and by the bytes that are missing.

    A gRPC call that fails has HTTP status 200 and an error in its trailers, but no message. All right answers to one
    request are equally long, `answer_bytes` with their prefix; None where the protocol has no such promise, and where
    the HTTP status tells all.
    """
    without_message = 0 if answer_bytes is None else max(0, load.done - round(load.data_bytes / answer_bytes))
    return without_message + load.done - load.succeeded


def command(  # noqa: PLR0917 - the four numbers of a load, in the order in which one says them
    address: str,
    exchange: Exchange,
    frame: Path,
    requests: int,
    connections: int,
    in_flight: int,
    log: Path | None = None,
) -> list[str]:
    """The command line for so many requests, as fast as the server answers them."""
    scheme = f"http://{address}{exchange.path}"
    headers = [f"--header={name}: {value}" for name, value in exchange.headers]
    return [
        "h2load",
        f"--requests={requests}",
        f"--clients={connections}",
        f"--max-concurrent-streams={max(1, in_flight // connections)}",
        f"--data={frame}",
        "--connection-inactivity-timeout=20s",
        *headers,
        *([] if exchange.grpc else ["--h1"]),
        *([] if log is None else [f"--log-file={log}"]),
        scheme,
    ]


def read_log(log: Path) -> NDArray[np.float64]:
    """The seconds that each request took, from h2load's log file."""
    fields = np.array(log.read_bytes().split(), np.int64).reshape(-1, 3)
    seconds: NDArray[np.float64] = fields[:, 2] / 1e6
    return seconds


def percentiles(seconds: NDArray[np.float64], at: Sequence[float]) -> list[float]:
    """Percentiles of times, each a time that was really taken."""
    return [float(value) for value in np.percentile(seconds, at, method="inverted_cdf")]
