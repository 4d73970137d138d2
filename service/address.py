"""Addresses to listen on: `HOST:PORT`, `[IPv6]:PORT`, or `unix:PATH`."""

import re
from typing import Final

UNIX_PREFIX: Final = "unix:"
_HOST_PORT: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):(?P<port>[0-9]{1,5})")
_MAX_PORT: Final = 65535


class AddressError(Exception):
    """The address is none, or cannot be listened on; the message says why."""


def split_host_port(address: str) -> tuple[str, int]:
    """Return the host, an IPv6 address without its brackets, and the port.

    Raises:
        AddressError: it is not `HOST:PORT`.
    """
    match = _HOST_PORT.fullmatch(address)
    if match is None or int(match["port"]) > _MAX_PORT:
        raise AddressError(f"{address!r} is not HOST:PORT with a port up to {_MAX_PORT}")
    return match["host"].strip("[]"), int(match["port"])


def join_host_port(host: str, port: int) -> str:
    """Write an address, the inverse of `split_host_port`: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
