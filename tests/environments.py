"""Foreign programs, installed by a script of their own into environments of their own when a test first wants them."""

import contextlib
import fcntl
import random
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parent.parent

_CHANCE: Final = random.SystemRandom()  # `random` itself is seeded alike in every process of a run

IMPOSSIBLE = 3
"""The exit code by which an install.sh says that this machine cannot have something; its last line says why."""


def install(script: Path, *names: str) -> None:
    """Install what is not there yet; skip the test by name where it cannot be had."""
    with one_at_a_time():
        done = subprocess.run([script, *names], capture_output=True, text=True, check=False)
    if done.returncode == IMPOSSIBLE:
        pytest.skip(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other process of the tests installs anything: apt-get and what it locks are the machine's."""
    with Path(tempfile.gettempdir(), "quicksilver-tests-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """A port of this machine that nobody listens on, for programs that cannot tell which one they took.

    It lies below those that the system gives by itself, so that nobody is given it until the program listens.
    """
    lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    while True:
        port = _CHANCE.randrange(lowest_given // 2, lowest_given)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
