"""A real repository, a real server over it, and a real channel to that."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from proto.repository import Repository
from service.config import Settings
from service.server import Server
from tests.service.artefacts import make_artefact, make_plain

StartServer = Callable[..., Server]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """`linear` in two versions, 1 stable and 2 five degrees warmer, and `plain` without metadata."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", make_artefact())
    repository.publish("linear", make_artefact(offset_celsius=5.0))
    repository.publish("plain", make_plain())
    return repository


@pytest.fixture(params=["http2", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each front in turn: what uses a server is promised of both."""
    return str(request.param)


@pytest.fixture
def start_server(repository: Repository, transport: str) -> Iterator[StartServer]:
    """Starts servers over the repository, on free ports, with any settings; stops them at the end."""
    servers: list[Server] = []

    def start(**settings: Any) -> Server:  # noqa: ANN401 - any setting
        chosen = {
            "transport": transport,
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            "default_model": "linear",
            **settings,
        }
        server = Server(Settings(repository=repository.root, **chosen))
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """A server with default settings, whose default model is `linear`."""
    return start_server()


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    """A channel to `server`."""
    with grpc.insecure_channel(server.address) as channel:
        yield channel
