"""A PostgreSQL of the test's own: made in a temporary directory, started by hand as an unprivileged user, killed."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psycopg

from tests.environments import install

INSTALL: Final = Path(__file__).parent / "install.sh"
_USER: Final = "nobody"
_START_SECONDS: Final = 60.0


def programs() -> Path:
    """Return the directory of PostgreSQL's programs; skip by name where there can be none."""
    install(INSTALL)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else Path(shutil.which("postgres") or "").resolve().parent


class Postgres:
    """A database server on a Unix socket. PostgreSQL refuses to run as root, so there it runs as `nobody`."""

    def __init__(self) -> None:
        self._programs = programs()
        is_root = os.geteuid() == 0
        self._as: dict[str, Any] = {"user": _USER, "group": "nogroup", "extra_groups": []} if is_root else {}
        self._root = Path(tempfile.mkdtemp(prefix="postgres-"))  # short: a socket's path is bounded
        if self._as:
            shutil.chown(self._root, _USER)
        self._data = self._root / "data"
        self._run("initdb", "--pgdata", str(self._data), "--username=tests", "--auth=trust", "--no-sync")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, and return when it answers. After a kill its orphans may hold it up for a moment."""
        until = time.monotonic() + _START_SECONDS
        while True:
            with (self._root / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        self._programs / "postgres", "-D", self._data, "-k", self._root,
                        "-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_connections=50",
                        # After a kill it syncs every file of every database, else one by one; the kernel has them all.
                        "-c", "recovery_init_sync_method=syncfs",
                    ],
                    stdout=log, stderr=log, start_new_session=True, **self._as,
                )  # fmt: skip
            while self._process.poll() is None:
                if self._answers():
                    return
                assert time.monotonic() < until, (self._root / "log").read_text()
                time.sleep(0.02)
            assert time.monotonic() < until, (self._root / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it, as `kill -9` does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Kill it, and start it again at the end."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def new_database(self) -> str:
        """Make an empty database, and return its URL."""
        name = f"t{uuid4().hex}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://tests@/{name}?host={self._root}"

    def close(self) -> None:
        """Stop it, and leave nothing behind."""
        self.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def _address(self, database: str) -> str:
        return f"host={self._root} user=tests dbname={database}"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._address("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([self._programs / program, *arguments], check=True, capture_output=True, **self._as)
