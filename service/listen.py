"""Sockets that listen: opened from addresses, and accepted from, whatever the state of the machine."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from service.address import UNIX_PREFIX, AddressError, split_host_port

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 64
_PAUSE_SECONDS: Final = 0.1
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def open_socket(address: str, backlog: int) -> socket.socket:
    """Listen on `HOST:PORT`, `[IPv6]:PORT` or `unix:PATH`.

    Raises:
        AddressError: the address is none, or is in use, or is not ours to listen on.
    """
    if address.startswith(UNIX_PREFIX):
        return _open_unix(address.removeprefix(UNIX_PREFIX), backlog)
    host, port = split_host_port(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressError(f"cannot listen on {address}: {error}") from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _listen(listening, target, address, backlog)


def _open_unix(path: str, backlog: int) -> socket.socket:
    _remove_stale(Path(path))
    return _listen(socket.socket(socket.AF_UNIX), path, UNIX_PREFIX + path, backlog)


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody listens on any longer."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def _listen(listening: socket.socket, target: tuple[Any, ...] | str, address: str, backlog: int) -> socket.socket:
    try:
        listening.setblocking(False)
        listening.bind(target)
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise AddressError(f"cannot listen on {address}: {error.strerror or error}") from error
    return listening


def name_of(listening: socket.socket) -> str:
    """The address of a listening socket, with its real port."""
    if listening.family == socket.AF_UNIX:
        return f"{UNIX_PREFIX}{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Acceptor:
    """Accepts connections from one listening socket until it is closed.

    Where the process or the machine is out of descriptors or memory, it says so once, waits, and goes on.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listening: socket.socket, accepted: Callable[[socket.socket], None]
    ) -> None:
        self._loop = loop
        self._listening = listening
        self._accepted = accepted
        self._exhausted = False
        self._retry: asyncio.TimerHandle | None = None
        loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """Accept nothing more, and remove a Unix socket's file."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listening.fileno())
        path = self._listening.getsockname() if self._listening.family == socket.AF_UNIX else None
        self._listening.close()
        if path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - a socket's name may be bytes

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return
                continue  # that one connection was gone before it was accepted
            self._accepted(connection)
        if self._exhausted:
            self._exhausted = False
            log.info("connections are accepted again")

    def _pause(self, error: OSError) -> None:
        if not self._exhausted:
            self._exhausted = True
            log.error("connections cannot be accepted for now", reason=error.strerror)
        self._loop.remove_reader(self._listening.fileno())
        self._retry = self._loop.call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._listening.fileno(), self._accept)
