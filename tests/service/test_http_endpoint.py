"""Probes and metrics over real HTTP."""

import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest
from prometheus_client import CollectorRegistry, Gauge

from proto.repository import Repository
from service.address import AddressError, split_host_port
from service.http_endpoint import HttpEndpoint
from service.server import Server
from tests.service.conftest import StartServer

Ask = Callable[..., tuple[int, str]]


class _Readiness:
    """A switch that the endpoint looks at."""

    ready = False

    def __call__(self) -> bool:
        return self.ready


@pytest.fixture
def readiness() -> _Readiness:
    """Not ready, until a test says otherwise."""
    return _Readiness()


@pytest.fixture
def ask(readiness: _Readiness) -> Iterator[Ask]:
    """Sends a request to an endpoint over a registry with one gauge; returns the status and the body."""
    registry = CollectorRegistry()
    Gauge("mercury_celsius", "How warm it is.", registry=registry).set(36.6)
    endpoint = HttpEndpoint("127.0.0.1", 0, registry, readiness)
    address = endpoint.start()
    yield lambda path, method="GET": _ask(address, path, method)
    endpoint.stop()


def _ask(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    connection = HTTPConnection(*split_host_port(address), timeout=60)
    try:
        connection.request(method, path)
        response: HTTPResponse = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_alive_is_whoever_answers(ask: Ask) -> None:
    """Ready or not."""
    assert ask("/healthz") == (200, "alive\n")


def test_readiness_is_asked_anew_each_time(ask: Ask, readiness: _Readiness) -> None:
    """503 before, 200 while, 503 after."""
    assert ask("/readyz") == (503, "not ready\n")
    readiness.ready = True
    assert ask("/readyz") == (200, "ready\n")
    readiness.ready = False
    assert ask("/readyz")[0] == 503


def test_metrics_are_those_of_the_registry(ask: Ask) -> None:
    """With or without parameters."""
    for path in ("/metrics", "/metrics?name[]=mercury_celsius"):
        status, text = ask(path)
        assert status == 200
        assert "mercury_celsius 36.6" in text


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/%2e%2e/etc/passwd"])
def test_another_path_is_not_found(ask: Ask, path: str) -> None:
    """The answer tells what there is."""
    assert ask(path) == (404, "there are /metrics, /healthz and /readyz\n")


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
def test_head_has_no_body_and_other_methods_are_refused(ask: Ask, path: str) -> None:
    """The endpoint is read, never written."""
    assert ask(path, "HEAD") == (200, "")
    for method in ("POST", "PUT", "DELETE"):
        assert ask(path, method)[0] == 405


def test_a_port_in_use_is_named() -> None:
    """With the system's reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            HttpEndpoint("127.0.0.1", port, CollectorRegistry(), lambda: True)


def test_a_host_that_is_not_ours_is_named() -> None:
    """Nobody can listen on another machine."""
    with pytest.raises(AddressError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        HttpEndpoint("192.0.2.1", 0, CollectorRegistry(), lambda: True)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_is_spoken_in_brackets() -> None:
    """The address that comes back is one that can be asked."""
    endpoint = HttpEndpoint("::1", 0, CollectorRegistry(), lambda: True)
    address = endpoint.start()
    assert address.startswith("[::1]:")
    assert _ask(address, "/healthz")[0] == 200
    endpoint.stop()


def test_an_endpoint_that_never_started_closes_its_port() -> None:
    """So that a server whose start failed leaves nothing behind."""
    endpoint = HttpEndpoint("127.0.0.1", 0, CollectorRegistry(), lambda: True)
    endpoint.stop()


def test_a_server_is_ready_when_every_model_answers(server: Server) -> None:
    """The probe and the health service say the same."""
    assert _ask(server.http_address, "/readyz") == (200, "ready\n")


def test_a_server_with_a_model_that_cannot_answer_is_alive_and_not_ready(
    start_server: StartServer, repository: Repository
) -> None:
    """The other models answer; a person should look."""
    repository.publish("broken", b"no model")
    server = start_server()
    assert _ask(server.http_address, "/healthz")[0] == 200
    assert _ask(server.http_address, "/readyz")[0] == 503


def test_a_stopped_server_has_closed_its_port(server: Server) -> None:
    """Nobody answers any more."""
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        _ask(server.http_address, "/healthz")
