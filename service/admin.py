"""Who may call the methods that change the server: load, unload, label, log settings.

They are open on a server that only this machine can reach: one bound to loopback or to a Unix socket. The address that
the server is bound to decides, never that of the caller: a proxy in front of the server makes every caller look local.
Elsewhere they are closed, unless a file holds a token that callers must send as `authorization: Bearer TOKEN`. Where
there is such a file, the token is wanted on a local address too.
"""

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

from service.address import UNIX_PREFIX, split_host_port
from service.calls import Context, Metadata
from service.errors import PermissionDeniedError, UnauthenticatedError

log = structlog.get_logger(__name__)

MIN_TOKEN_CHARACTERS: Final = 16
_HEADER: Final = "authorization"
_BEARER: Final = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_TOKEN: Final = re.compile(rf"[!-~]{{{MIN_TOKEN_CHARACTERS},}}")  # visible ASCII: what a header can carry


class TokenFileError(Exception):
    """The file of the admin token cannot be read, or holds none; the message says why."""


class Gate:
    """Decides about one call of an admin method.

    `check` may be called by any thread. The token's file is read for each call, so that a token can be changed without
    a restart; it is compared in a time that does not depend on where it differs.
    """

    def __init__(self, addresses: Iterable[str], token_file: Path | None) -> None:
        self._local = all(is_local(address) for address in addresses)
        self._token_file = token_file

    def check_file(self) -> None:
        """Refuse a token file that no caller could satisfy, before anybody calls.

        Raises:
            TokenFileError: it cannot be read, or holds no token.
        """
        if self._token_file is not None:
            read_token(self._token_file)

    def check(self, context: Context) -> None:
        """Let a call pass.

        Raises:
            UnauthenticatedError: a token is wanted, and none was sent.
            PermissionDeniedError: the token is wrong, or nobody may call.
        """
        if self._token_file is None:
            if not self._local:
                raise PermissionDeniedError(
                    "admin methods are closed: this server can be reached from elsewhere, and has no admin_token_file"
                )
            return
        sent = _sent_token(context.metadata)
        if sent is None:
            raise UnauthenticatedError("this method wants the admin token as metadata 'authorization: Bearer TOKEN'")
        try:
            wanted = read_token(self._token_file)
        except TokenFileError as error:
            log.error("admin methods are closed: the token's file is unusable", reason=str(error))
            raise PermissionDeniedError("admin methods are closed: the server's token cannot be read") from None
        if not hmac.compare_digest(sent.encode(), wanted.encode()):
            raise PermissionDeniedError("the admin token is wrong")


def is_local(address: str) -> bool:
    """Whether only this machine can reach what listens there: a Unix socket, or nothing but loopback addresses."""
    if address.startswith(UNIX_PREFIX):
        return True
    host, port = split_host_port(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


def read_token(path: Path) -> str:
    """Read the token: one line of at least 16 visible ASCII characters.

    Raises:
        TokenFileError: the file cannot be read, or holds something else.
    """
    try:
        text = path.read_text("ascii").strip()
    except OSError as error:
        raise TokenFileError(f"admin_token_file {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise TokenFileError(f"admin_token_file {path} is not ASCII text") from None
    if not _TOKEN.fullmatch(text):
        raise TokenFileError(
            f"admin_token_file {path} holds no token: one line of at least {MIN_TOKEN_CHARACTERS} visible characters"
        )
    return text


def _sent_token(metadata: Metadata) -> str | None:
    for key, value in metadata:
        if key.lower() == _HEADER and isinstance(value, str):
            match = _BEARER.fullmatch(value)
            return match[1] if match else None
    return None
