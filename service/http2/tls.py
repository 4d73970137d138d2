"""TLS for the front: certificates that are read again when their files change, without dropping a connection."""

import ssl
from pathlib import Path
from typing import Final

import structlog

from service.address import AddressError

log = structlog.get_logger(__name__)

ALPN: Final = ["h2"]


class CertificatesError(AddressError):
    """Nothing can be listened on with TLS, since the certificate files cannot be used; the message says why."""


class Certificates:
    """A certificate with its key, and, for mutual TLS, the authorities that clients' certificates must come from.

    `context` is for one handshake at a time: `refresh` puts a new one in its place, which resumes no session of the
    former, so that who was admitted by authorities that are gone is not admitted again. With authorities no tickets are
    given either: a resumed session would not be asked whether its certificate has expired. Files that cannot be used
    when they changed are logged, and the former ones stay in use.
    """

    def __init__(self, certificate: Path, key: Path, client_authorities: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_authorities = client_authorities
        self._files = [certificate, key, *([client_authorities] if client_authorities else [])]
        self._seen = self._stamps()
        self.context = self._load()

    def refresh(self) -> bool:
        """Read the files anew where one has changed, and tell whether new ones are in use."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            self.context = self._load()
        except CertificatesError as error:
            log.error("changed certificates cannot be used; the former ones stay", reason=str(error))
            return False
        log.info("certificates were read anew", certificate=str(self._certificate))
        return True

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(ALPN)
        try:
            context.load_cert_chain(self._certificate, self._key)
            if self._client_authorities is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.num_tickets = 0  # of TLS 1.3
                context.options |= ssl.OP_NO_TICKET  # of TLS 1.2
                context.load_verify_locations(self._client_authorities)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(path) for path in self._files)
            raise CertificatesError(f"cannot use {files}: {error}") from error
        return context

    def _stamps(self) -> list[tuple[int, int] | None]:
        return [_stamp(path) for path in self._files]


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written or replaced; None while it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
