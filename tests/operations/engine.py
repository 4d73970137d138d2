"""A Docker engine of a test's own: Debian's dockerd, by hand, in a network namespace that only it and the test know.

What an engine does to a machine's network (rules of iptables, a bridge, forwarding) it does to that namespace, and all
of it goes with the namespace. A pair of virtual interfaces joins the namespace and the machine, so that a test reaches
published ports as a client from outside would. There is no way from there to any other network: what containers need of
others, the test hands in.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCKER = "/usr/bin/docker"
"""Debian's own client; another may come first in PATH, which wants more than Debian's engine has."""

_START_SECONDS = 60
_STOP_SECONDS = 60


class CannotRunError(Exception):
    """This machine runs no engine; the message says what it refused."""


@dataclass(frozen=True)
class Engine:
    """A running engine: its socket, and the two ends of the link to its namespace."""

    host: str
    test_address: str
    engine_address: str

    @property
    def environment(self) -> dict[str, str]:
        """What clients of the engine need in theirs."""
        return os.environ | {"DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "1"}

    def docker(self, *arguments: str | Path) -> str:
        """Run Debian's client, and return what it printed; a failure fails the test with all that was said."""
        command = [DOCKER, *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docker {arguments[0]}: {done.stdout[-4000:]}{done.stderr[-8000:]}"
        return done.stdout


@contextlib.contextmanager
def engine(root: Path) -> Iterator[Engine]:
    """An engine that keeps all it has under a directory, which is gone at the end, as everything else of it is.

    A machine that cannot run one skips the test, by name and with the reason.
    """
    try:
        with _namespace() as (namespace, ours, theirs), _daemon(root, namespace) as host:
            yield Engine(host, ours, theirs)
    except CannotRunError as error:
        pytest.skip(f"no container engine can run here: {error}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def _namespace() -> Iterator[tuple[str, str, str]]:
    """A network namespace with a link to it: its name, and the addresses of this end and of that."""
    number = os.getpid() % (1 << 16)
    name, link = f"quicksilver-{number}", f"qs{number}"
    prefix = f"10.231.{number % 256}"
    ours, theirs = f"{prefix}.{number // 256 // 4 * 4 + 1}", f"{prefix}.{number // 256 // 4 * 4 + 2}"
    _network("netns", "add", name)
    try:
        _network("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _network("addr", "add", f"{ours}/30", "dev", link)
        _network("link", "set", link, "up")
        _network("-n", name, "addr", "add", f"{theirs}/30", "dev", "eth0")
        for interface in ("lo", "eth0"):
            _network("-n", name, "link", "set", interface, "up")
        _network(
            "-n", name, "route", "add", "default", "via", ours
        )  # an engine wants one; it leads no further than here
        yield name, ours, theirs
    finally:
        for gone in (
            ["link", "delete", link],
            ["netns", "delete", name],
        ):  # in this order: a dying process holds a namespace
            subprocess.run(["ip", *gone], check=False, capture_output=True)


def _network(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise CannotRunError(f"ip {' '.join(arguments)}: {str(reason).strip()}") from error


@contextlib.contextmanager
def _daemon(root: Path, namespace: str) -> Iterator[str]:
    """A dockerd in a namespace, from its first answer to its end: the address of its socket."""
    root.mkdir(parents=True)
    host, log = f"unix://{root}/docker.sock", root / "dockerd.log"
    # `ip netns exec` would hide /sys/fs/cgroup, which an engine needs; nsenter changes the network alone. Where the
    # test is killed, so is the engine: a next run finds nothing in its way but a namespace without anybody in it.
    command: list[str | Path] = ["setpriv", "--pdeathsig", "TERM", "nsenter", f"--net=/run/netns/{namespace}"]
    command += ["dockerd", "--host", host, "--pidfile", root / "dockerd.pid", "--mtu", "1400"]
    command += ["--data-root", root / "data", "--exec-root", root / "exec"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        _wait_for_answer(process, host, log)
        yield host
    finally:
        process.send_signal(signal.SIGTERM)  # it ends its containers and containerd
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def _wait_for_answer(process: subprocess.Popen[bytes], host: str, log: Path) -> None:
    limit = time.monotonic() + _START_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        if subprocess.run([DOCKER, "--host", host, "info"], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.2)
    lines = log.read_text(errors="replace").splitlines()
    raise CannotRunError(f"dockerd: {lines[-1] if lines else 'no word from it'}")
