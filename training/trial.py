"""A model file in a real server: it starts on a repository that holds this file alone, and must answer as expected.

A file can pass every check in the process that made it and still not be served: for a setting, a package that is
missing, a memory limit. So before a challenger counts it is served as it will be, by a process of `quicksilver serve`,
and asked through the network by another, as TFX's infra validator does with TensorFlow Serving.

The server ends with this process, also where this one is killed.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proto.artefact import GoldenVectors
from proto.repository import Repository
from training.errors import TrialError

START_SECONDS: Final = 120.0
ANSWER_SECONDS: Final = 60.0

_SETTING: Final = "QUICKSILVER_"
# Killed with the process that started it: PR_SET_PDEATHSIG is 1. Whoever was orphaned before that ends by itself.
_BOOT: Final = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
import quicksilver
sys.exit(quicksilver.main(sys.argv[2:]))
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was seen: rows asked, and the greatest difference in °C between the server's answers and those expected."""

    rows: int
    greatest_difference_celsius: float


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Readings in °F [N], answers in °C [N] that a file gave to them elsewhere, and its golden vectors."""

    fahrenheit: NDArray[np.float32]
    celsius: NDArray[np.float64]
    golden: GoldenVectors


def try_out(directory: Path, name: str, model: bytes, expected: Expected) -> Trial:
    """Serve a model file from a repository made in `directory`, and compare its answers.

    All readings are asked, those of the golden vectors too, and answers must keep the tolerance of these.

    Args:
        directory: an empty one, or none yet; what is written stays in it.
        name: what the model is to be served as.
        model: the file.
        expected: what to ask, and the answers.

    Raises:
        TrialError: see there.
    """
    golden = expected.golden
    repository = Repository(directory)
    version = repository.publish(name, model)
    inputs = np.array([row[0] for row in golden.inputs], dtype=np.float32)
    with _serving(repository.root) as address:
        answers = _ask(address, name, version, [*inputs.tolist(), *expected.fahrenheit.tolist()])
    return compare(answers, np.concatenate([np.array(golden.outputs), expected.celsius]), golden)


def compare(answers: NDArray[np.float64], expected: NDArray[np.float64], golden: GoldenVectors) -> Trial:
    """Compare answers [N] with those expected [N], both in °C, within the tolerance of golden vectors.

    Raises:
        TrialError: their numbers differ, or an answer leaves the tolerance.
    """
    if answers.shape != expected.shape:
        raise TrialError(f"the server gave {len(answers)} answers to {len(expected)} readings")
    difference = np.abs(answers - expected)
    allowed = golden.absolute_tolerance + golden.relative_tolerance * np.abs(expected)
    if not np.all(difference <= allowed):  # NaN fails
        worst = int(np.argmax(np.nan_to_num(difference - allowed, nan=np.inf)))
        raise TrialError(f"the server answered {answers[worst]!r} °C where {expected[worst]!r} was expected")
    return Trial(len(answers), float(difference.max(initial=0.0)))


def _environment() -> dict[str, str]:
    """This process's, without settings that are meant for another server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTING)}
    return kept | {"PYTHONUNBUFFERED": "1"}


@contextmanager
def _serving(repository: Path) -> Iterator[str]:
    """A server on a repository: yields its address, and ends it by SIGTERM, or by force where that takes too long."""
    command = [sys.executable, "-c", _BOOT, str(os.getpid()), "serve", "--repository", str(repository)]
    command += ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--log-format", "json", "--device", "cpu"]
    process = subprocess.Popen(  # noqa: S603 - this program, with words of its own
        command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=_environment()
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, lines), name="trial", daemon=True)
    reader.start()
    try:
        yield _address(lines)
        process.send_signal(signal.SIGTERM)
        process.wait(ANSWER_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise TrialError(f"the server did not end within {ANSWER_SECONDS:g} s of SIGTERM") from error
    finally:
        process.kill()
        process.wait()
        reader.join()
        if process.stderr is not None:
            process.stderr.close()


def _read(process: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str | None]") -> None:
    for line in process.stderr or ():
        lines.put(line)
    lines.put(None)


def _address(lines: "queue.SimpleQueue[str | None]") -> str:
    """Where the server serves, as its log says.

    Raises:
        TrialError: it ended before, or took too long; the last line it wrote stands in the message.
    """
    last = "nothing"
    until = time.monotonic() + START_SECONDS
    while (left := until - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=left)
        except queue.Empty:
            break
        if line is None:
            raise TrialError(f"the server ended before it served; it said last: {last}")
        last = line.strip()
        if address := _served(last):
            return address
    raise TrialError(f"the server did not serve within {START_SECONDS:g} s; it said last: {last}")


def _served(line: str) -> str | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    is_serving = isinstance(event, dict) and event.get("event") == "serving"
    return str(event["grpc"]) if is_serving else None


def _ask(address: str, name: str, version: int, fahrenheit: Sequence[float]) -> NDArray[np.float64]:
    """Have the readings converted by `quicksilver convert`, and return its answers in °C.

    Raises:
        TrialError: it failed, or took too long.
    """
    limit_seconds = 2 * ANSWER_SECONDS
    command = [sys.executable, "-m", "quicksilver", "convert", "--server", address, "--model", name]
    command += ["--version", str(version), "--timeout", f"{ANSWER_SECONDS:g}", "--json"]
    try:
        asked = subprocess.run(  # noqa: S603 - this program, with words of its own
            command,
            input=" ".join(repr(value) for value in fahrenheit),
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
            timeout=limit_seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise TrialError(f"{len(fahrenheit)} readings were not answered within {limit_seconds:g} s") from error
    if asked.returncode != 0:
        said = " ".join(asked.stderr.split())
        raise TrialError(f"the server does not answer with the file: {said}")
    return np.array([row["celsius"] for row in json.loads(asked.stdout)["conversions"]], dtype=np.float64)
