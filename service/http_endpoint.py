"""The plain-HTTP side door: `/metrics` for Prometheus, `/healthz` and `/readyz` for probes."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from service.address import AddressError

_TEXT: Final = [("Content-Type", "text/plain; charset=utf-8")]


class _QuietHandler(WSGIRequestHandler):
    """Does not write a line to stderr for every scrape."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name the library calls it by
        """Say nothing."""


class HttpEndpoint:
    """Serves metrics and probes on a port of its own, on threads of its own."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, ready: Callable[[], bool]) -> None:
        try:
            self._server = make_server(host, port, _application(registry, ready), ThreadingWSGIServer, _QuietHandler)
        except OSError as error:
            raise AddressError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> str:
        """Begin to answer, and return the address with its real port."""
        self._thread.start()
        return f"{self._server.server_address[0]!s}:{self._server.server_port}"

    def stop(self) -> None:
        """Stop answering and close the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def _application(registry: CollectorRegistry, ready: Callable[[], bool]) -> Any:  # noqa: ANN401 - a WSGI application
    metrics = make_wsgi_app(registry)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        if path == "/healthz":
            return _text(start_response, "200 OK", "alive")
        if path == "/readyz":
            return _text(
                start_response, *(("200 OK", "ready") if ready() else ("503 Service Unavailable", "not ready"))
            )
        return _text(start_response, "404 Not Found", "there are /metrics, /healthz and /readyz")

    return application


def _text(start_response: Callable[..., Any], status: str, text: str) -> Iterable[bytes]:
    start_response(status, _TEXT)
    return [text.encode() + b"\n"]
