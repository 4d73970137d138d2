"""Certificates of a test's own, and who trusts them."""

import ssl
import subprocess
from pathlib import Path

import grpc

from service.http2.tls import ALPN


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self.certificate, self._key = root / f"{name}.crt", root / f"{name}.key"
        self._openssl(
            "req", "-x509", "-subj", f"/CN={name}", "-days", "2", "-out", self.certificate, *self._new(self._key)
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key, for localhost."""
        certificate, key, wish = (self._root / f"{name}.{ending}" for ending in ("crt", "key", "csr"))
        self._openssl(
            "req", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-out", wish, *self._new(key)
        )
        arguments: list[str | Path] = [
            "-in",
            wish,
            "-CA",
            self.certificate,
            "-CAkey",
            self._key,
            "-days",
            "2",
            "-out",
            certificate,
        ]
        self._openssl("x509", "-req", "-CAcreateserial", "-copy_extensions", "copy", *arguments)
        return certificate, key

    def _new(self, key: Path) -> list[str | Path]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def secure(address: str, authority: Authority, own: tuple[Path, Path] | None = None) -> grpc.Channel:
    """A channel that trusts an authority, and may have a certificate of its own."""
    certificate, key = (path.read_bytes() for path in own) if own else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)
    return grpc.secure_channel(address.replace("127.0.0.1", "localhost"), credentials)


def trusting(authority: Authority) -> ssl.SSLContext:
    """What a client that trusts an authority, and has no certificate, speaks TLS with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(ALPN)
    context.load_verify_locations(authority.certificate)
    return context
