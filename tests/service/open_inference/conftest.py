"""A server over models of every kind, and the generated client of the protocol."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from proto.model_config import CONFIG_FILE
from proto.repository import Repository
from service.config import Settings
from service.server import Server
from tests.service.artefacts import make_artefact, make_plain
from tests.service.open_inference import graphs

DECLARED = '{"rows_independent": true}'


@pytest.fixture(scope="module", params=["http2", "grpcio"])
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with models of every kind and default settings, for tests that change nothing; over each front."""
    repository = Repository(tmp_path_factory.mktemp("any") / "models")
    publish_any(repository)
    addresses = {"listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
    chosen: dict[str, Any] = {**addresses, "transport": request.param, "default_model": "linear"}
    server = Server(Settings(repository=repository.root, **chosen))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def any_channel(any_server: Server) -> Iterator[grpc.Channel]:
    """A channel to `any_server`."""
    with grpc.insecure_channel(any_server.address) as channel:
        yield channel


@pytest.fixture
def any_stub(any_channel: grpc.Channel) -> GRPCInferenceServiceStub:
    """The generated client of the protocol, over `any_channel`."""
    return GRPCInferenceServiceStub(any_channel)


def publish_any(repository: Repository) -> None:
    """Publish the converters of the other tests, and models of every kind."""
    repository.publish("linear", make_artefact())
    repository.publish("linear", make_artefact(offset_celsius=5.0))
    repository.publish("plain", make_plain())
    for datatype in graphs.ELEMENT_TYPES:
        repository.publish(f"identity_{datatype.lower()}", graphs.identity(datatype))
    for name in ("two_by_two", "scalar", "fixed", "softmax_over_rows", "mean_over_rows", "lookup", "sequence_of"):
        repository.publish(name, getattr(graphs, name)())


def declare_independent(repository: Repository, name: str) -> None:
    """Say in a model's configuration that its rows are independent."""
    (repository.root / name / CONFIG_FILE).write_text(DECLARED, "utf-8")
