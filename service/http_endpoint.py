"""The plain-HTTP side door: `/metrics` for Prometheus, `/healthz` and `/readyz` for probes."""

import socket
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from service.address import AddressError, join_host_port

_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
_METHODS: Final = ("GET", "HEAD")
_STOP_SECONDS: Final = 0.1
"""Until `stop` is noticed at the latest; the library looks for it by the clock."""


class _Server(ThreadingWSGIServer):
    """Listens without asking DNS what the host is called, which can take seconds where there is none."""

    request_queue_size = 64

    def server_bind(self) -> None:
        """Bind as the socket server does, and leave the name at what was given."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _Server6(_Server):
    """The same over IPv6."""

    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    """Does not write a line to stderr for every scrape, and waits for nobody for ever."""

    timeout = 10

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name the library calls it by
        """Say nothing."""


class HttpEndpoint:
    """Serves metrics and probes on a port of its own, on threads of its own."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, ready: Callable[[], bool]) -> None:
        server_class = _Server6 if ":" in host else _Server
        try:
            self._server = make_server(host, port, _application(registry, ready), server_class, _Handler)
        except OSError as error:
            raise AddressError(f"cannot listen on {join_host_port(host, port)}: {error.strerror}") from error
        serve = partial(self._server.serve_forever, poll_interval=_STOP_SECONDS)
        self._thread = threading.Thread(target=serve, name="http", daemon=True)

    def start(self) -> str:
        """Begin to answer, and return the address with its real port."""
        self._thread.start()
        return join_host_port(self._server.server_name, self._server.server_port)

    def stop(self) -> None:
        """Stop answering and close the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def _application(registry: CollectorRegistry, ready: Callable[[], bool]) -> Any:  # noqa: ANN401 - a WSGI application
    metrics = make_wsgi_app(registry)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in _METHODS:
            start_response("405 Method Not Allowed", [_TEXT, ("Allow", ", ".join(_METHODS))])
            return [f"{environ['REQUEST_METHOD']} is not allowed\n".encode()]
        if environ["PATH_INFO"] == "/metrics":
            answer: Iterable[bytes] = metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
        else:
            status, text = _probe(environ["PATH_INFO"], ready)
            start_response(status, [_TEXT])
            answer = [text.encode() + b"\n"]
        return [] if environ["REQUEST_METHOD"] == "HEAD" else answer

    return application


def _probe(path: str, ready: Callable[[], bool]) -> tuple[str, str]:
    """The status and the text that answer a path other than that of the metrics."""
    if path == "/healthz":
        return "200 OK", "alive"
    if path == "/readyz":
        return ("200 OK", "ready") if ready() else ("503 Service Unavailable", "not ready")
    return "404 Not Found", "there are /metrics, /healthz and /readyz"
