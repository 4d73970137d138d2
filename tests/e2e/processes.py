"""Real processes of the command, started and watched: they tell their ports in the log line `serving`."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("QUICKSILVER_")},
    "OMP_NUM_THREADS": "1",
}
_ARENA_BYTES = 64 << 20
FREE_PORTS = ("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")


def quicksilver(*arguments: str, timeout_seconds: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "quicksilver", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_seconds,
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
    )


class Serving:
    """A process of `quicksilver serve`, from its line `serving` on. `logged` holds the events of its log."""

    def __init__(self, repository: Path, *flags: str) -> None:
        arguments = ["--repository", str(repository), "--log-format", "json", *FREE_PORTS, *flags]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quicksilver", "serve", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,  # a signal for us is none for it
        )
        self.lines: list[str] = []
        self._serving = threading.Event()
        self._reader = threading.Thread(target=self._read, name="stderr")
        self._reader.start()
        self._serving.wait()
        (ready,) = [event for event in self.logged if event["event"] == "serving"] or [{}]
        if not ready:
            raise RuntimeError(f"exit code {self.process.wait()}: {self.lines}")
        self.address: str = ready["grpc"]
        self.http_address: str = ready["http"]

    @property
    def logged(self) -> list[dict[str, Any]]:
        """The events of the log; a line that is no JSON object is an error."""
        return [json.loads(line) for line in self.lines]

    def get(self, path: str) -> tuple[int, str]:
        """Ask the HTTP port: the status and the body."""
        try:
            with urlopen(f"http://{self.http_address}{path}", timeout=60) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, series: str) -> float:
        """The value of one series, written as it stands in the exposition."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(series + " ")]
        return float(lines[0].rpartition(" ")[2])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end, and return the exit code: negative for a signal that ended it."""
        code = self.process.wait(timeout=60)
        self._reader.join()
        return code

    def close(self) -> None:
        """End it, however it stands."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if '"event": "serving"' in line:
                self._serving.set()
        self._serving.set()  # or it never will


@contextlib.contextmanager
def serving(repository: Path, *flags: str) -> Iterator[Serving]:
    """A serving process, gone at the end."""
    process = Serving(repository, *flags)
    try:
        yield process
    finally:
        process.close()


def children(pid: int) -> list[int]:
    """The processes that a process started, and that are there."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def thread_arenas(pid: int) -> int:
    """Heaps of glibc's that are for some threads alone: 64 MiB of addresses each, a part of which can be written to."""
    parts = [_Part(*line.split()[:2]) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return sum(
        used.start % _ARENA_BYTES == 0
        and left.stop == used.start + _ARENA_BYTES
        and left.start == used.stop
        and (used.access, left.access) == ("rw-p", "---p")
        for used, left in itertools.pairwise(parts)
    )


class _Part:
    """A part of a process's addresses, as a line of its maps begins."""

    def __init__(self, addresses: str, access: str) -> None:
        self.start, self.stop = (int(address, 16) for address in addresses.split("-"))
        self.access = access
