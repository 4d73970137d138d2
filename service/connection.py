"""How a command reaches a server: its address, TLS, a deadline, and the token that admin methods may want."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.config import SERVER_VARIABLE

if TYPE_CHECKING:
    import grpc

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"


class ConnectionOptionsError(Exception):
    """A file that the connection needs cannot be read, or holds something else; the message names it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A server, and what it wants to see. Paths are of PEM files; all of them are absent for a server without TLS."""

    address: str = DEFAULT_ADDRESS
    tls_authorities: Path | None = None
    """Who signs the server's certificate."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Connection":
        """Take what `add_arguments` added.

        Raises:
            ConnectionOptionsError: the options contradict each other.
        """
        if (options.tls_certificate is None) != (options.tls_key is None):
            raise ConnectionOptionsError("--tls-certificate and --tls-key go together: one is missing")
        if options.tls_certificate is not None and options.tls_authorities is None:
            raise ConnectionOptionsError("--tls-certificate is shown over TLS: --tls-authorities is missing")
        return cls(options.server, options.tls_authorities, options.tls_certificate, options.tls_key)

    def credentials(self) -> "grpc.ChannelCredentials | None":
        """Read the files; None for a server without TLS.

        Raises:
            ConnectionOptionsError: a file cannot be read.
        """
        if self.tls_authorities is None:
            return None
        import grpc  # noqa: PLC0415 - takes a while to import; --help must not

        authorities, key, certificate = map(_read, (self.tls_authorities, self.tls_key, self.tls_certificate))
        return grpc.ssl_channel_credentials(authorities, key, certificate)

    def channel(self) -> "grpc.Channel":
        """Open a channel; errors as `credentials`."""
        import grpc  # noqa: PLC0415 - as above

        credentials = self.credentials()
        return grpc.secure_channel(self.address, credentials) if credentials else grpc.insecure_channel(self.address)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the address and the files of TLS."""
    parser.add_argument(
        "--server",
        default=os.environ.get(SERVER_VARIABLE) or DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help=f"the server [%(default)s; {SERVER_VARIABLE}]",
    )
    add_tls_arguments(parser)


def add_tls_arguments(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Add the files of TLS."""
    parser.add_argument(
        "--tls-authorities", type=Path, metavar="FILE", help="PEM file of who signs the server's certificate; uses TLS"
    )
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM file of this client's certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM file of its private key")


def read_token(path: Path) -> str:
    """Read an admin token as it is to be sent.

    Raises:
        ConnectionOptionsError: the file cannot be read, or holds no token.
    """
    try:
        token = (_read(path) or b"").decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise ConnectionOptionsError(f"{path}: a token is ASCII, unlike the byte at {error.start}") from error
    if not token or any(character.isspace() for character in token):
        raise ConnectionOptionsError(f"{path} holds no token: one line of visible characters")
    return token


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConnectionOptionsError(f"{path}: {error.strerror}") from error
