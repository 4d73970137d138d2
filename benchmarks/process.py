"""A server as a process tree pinned to cores: started, watched through /proc, and ended."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024
_DYING_SECONDS: Final = 5.0


class ServerFailedError(Exception):
    """A server ended, or never answered; the message holds the end of what it printed."""


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """A running command and everything it started. Use it as a context; leaving it ends them all."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cores: str,
        log: Path,
        environment: Mapping[str, str],
        directory: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the commands are those of benchmarks.peers
                ["taskset", "--cpu-list", cores, *command],  # noqa: S607 - wherever it is
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                cwd=directory,
                start_new_session=True,
            )
        self._seen: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check_alive(self) -> None:
        """Raise ServerFailedError where the command has ended."""
        if self._process.poll() is not None:
            raise ServerFailedError(f"it ended with status {self._process.returncode}: {self.tail()}")

    def wait(self, limit_seconds: float = 30.0) -> None:
        """Return when the command has ended by itself. Raises subprocess.TimeoutExpired where it does not."""
        self._process.wait(limit_seconds)

    def tail(self) -> str:
        """The end of what it printed, on one line."""
        return " ".join(self.log.read_text("utf-8", "replace").split())[-400:]

    def cpu_seconds(self) -> float:
        """CPU time that the tree has used so far, children that ended included."""
        return sum(stat_cpu_seconds(stat) for stat in self._read("stat"))

    def peak_bytes(self) -> int:
        """The peak resident sets of the tree's processes, added up: memory they share counts once for each."""
        return sum(status_peak_bytes(status) for status in self._read("status"))

    def stop(self) -> None:
        """End the tree: politely, then for certain."""
        tree = self._tree()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        for pid in {*tree, *self._tree(), *self._seen}:
            if _session(pid) == self._process.pid or pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        end = time.monotonic() + _DYING_SECONDS
        while any(is_running(pid) for pid in tree) and time.monotonic() < end:
            time.sleep(0.01)  # the next server must find the core free

    def _tree(self) -> list[int]:
        tree = descendants(self._process.pid, dict(_parents()))
        self._seen.update(tree)
        return tree

    def _read(self, name: str) -> Iterator[str]:
        for pid in self._tree():
            with contextlib.suppress(OSError):  # it ended meanwhile
                yield Path(f"/proc/{pid}/{name}").read_text("utf-8")


def descendants(root: int, parents: Mapping[int, int]) -> list[int]:
    """A process and all below it, given each process's parent."""
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def stat_cpu_seconds(stat: str) -> float:
    """CPU seconds in a /proc/PID/stat: own, and of children that were waited for."""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_SECOND


def status_peak_bytes(status: str) -> int:
    """The peak resident set in a /proc/PID/status; none where it has none."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * _KIB
    return 0


def is_running(pid: int) -> bool:
    """Whether a process still runs; one that only waits for its parent to ask does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] not in "XZ"
    except OSError:
        return False


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), int((entry / "stat").read_text("utf-8").rpartition(")")[2].split()[1])


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
