"""grpc.health.v1 and reflection, asked by their own generated clients over a real channel."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from proto.repository import Repository
from service.calls import Context, StreamMethod
from service.errors import DrainingError, ServiceError
from service.models import Catalogue
from service.reflection import SERVICES
from service.server import Server
from tests.service.conftest import StartServer

TIMEOUT_SECONDS = 30
SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


def _check(channel: grpc.Channel, service: str) -> int:
    answer: pb.HealthCheckResponse = HealthStub(channel).Check(
        pb.HealthCheckRequest(service=service), timeout=TIMEOUT_SECONDS
    )
    return int(answer.status)


@pytest.mark.parametrize("service", ["", "quicksilver.v1.ConverterService", "models/linear", "models/plain"])
def test_server_and_models_are_serving(channel: grpc.Channel, service: str) -> None:
    """The server, each API, and each model can be asked about by name."""
    assert _check(channel, service) == SERVING


def test_an_unknown_name_is_not_found(channel: grpc.Channel) -> None:
    """As the protocol has it, with what can be asked about."""
    with pytest.raises(grpc.RpcError) as caught:
        _check(channel, "models/absent")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "models/linear" in str(caught.value.details())


def test_all_states_are_listed(channel: grpc.Channel) -> None:
    """`List` names everything that can be asked about."""
    answer = HealthStub(channel).List(pb.HealthListRequest(), timeout=TIMEOUT_SECONDS)
    assert {name: state.status for name, state in answer.statuses.items()} == {
        "": SERVING,
        "quicksilver.v1.ConverterService": SERVING,
        "inference.GRPCInferenceService": SERVING,
        "models/linear": SERVING,
        "models/plain": SERVING,
    }


def test_a_model_whose_stable_version_is_broken_is_not_serving(
    start_server: StartServer, repository: Repository
) -> None:
    """One model that does not answer makes the whole server not ready; the others still say that they serve."""
    repository.publish("linear", b"broken")
    repository.set_label("linear", "stable", 3)
    with grpc.insecure_channel(start_server().address) as channel:
        states = [_check(channel, name) for name in ("", "models/linear", "models/plain")]
    assert states == [NOT_SERVING, NOT_SERVING, SERVING]


@pytest.fixture
def watch(channel: grpc.Channel) -> Iterator[Any]:
    """Opens watches, and cancels them at the end."""
    calls = []

    def start(service: str) -> Any:  # noqa: ANN401 - a grpc call
        call = HealthStub(channel).Watch(pb.HealthCheckRequest(service=service), timeout=TIMEOUT_SECONDS)
        calls.append(call)
        return call

    yield start
    for call in calls:
        call.cancel()


def test_a_watch_tells_every_change_once(server: Server, watch: Any) -> None:  # noqa: ANN401 - the fixture above
    """The state now, then each change, and nothing where nothing changed."""
    call = watch("models/linear")
    assert next(call).status == SERVING
    server.health.changed()  # nothing did
    server.models.catalogue = Catalogue({}, None)
    server.health.changed()
    assert next(call).status == SERVICE_UNKNOWN
    server.models.load()
    server.health.changed()
    assert next(call).status == SERVING


def test_a_watch_on_an_unknown_name_waits_for_it(server: Server, repository: Repository, watch: Any) -> None:  # noqa: ANN401 - the fixture above
    """A model that comes later is told of."""
    call = watch("models/later")
    assert next(call).status == SERVICE_UNKNOWN
    repository.publish("later", (repository.root / "linear" / "1" / "model.onnx").read_bytes())
    server.models.load()
    server.health.changed()
    assert next(call).status == SERVING


def test_watches_do_not_keep_a_server_from_stopping(server: Server, watch: Any) -> None:  # noqa: ANN401 - the fixture above
    """A drain tells the watchers first, and then ends their calls at once."""
    call = watch("")
    assert next(call).status == SERVING
    assert server.stop()
    assert next(call).status == NOT_SERVING
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


class _Outlet:
    """Keeps what a handler sends."""

    full = False

    def __init__(self) -> None:
        self.context = Context([])
        self.sent: list[int] = []
        self.error: ServiceError | None = None

    def send(self, message: Any) -> None:  # noqa: ANN401 - bytes, or parts of them
        """Keep the status."""
        self.sent.append(pb.HealthCheckResponse.FromString(message).status)

    def close(self, error: ServiceError | None = None) -> None:
        """Keep the error."""
        self.error = error


def test_a_watch_that_comes_back_during_the_drain_is_ended_too(server: Server) -> None:
    """A client that opens its watch again whenever it ends does not hold the server up."""
    watch = next(method for method in server.health.methods() if isinstance(method, StreamMethod))
    server.health.drain()
    outlet = _Outlet()
    inlet = watch.open(outlet, lambda _: None)
    inlet.receive(pb.HealthCheckRequest().SerializeToString())
    assert outlet.sent == [NOT_SERVING]
    assert isinstance(outlet.error, DrainingError)


def test_reflection_describes_the_services(channel: grpc.Channel) -> None:
    """A client without our .proto files finds the API and its messages."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "quicksilver.v1.ConverterService" in database.get_services()
    described = database.FindFileContainingSymbol("quicksilver.v1.ConvertRequest")
    assert "ConvertRequest" in [message.name for message in described.message_type]


@pytest.mark.parametrize("service", SERVICES)
def test_both_names_of_reflection_answer(channel: grpc.Channel, service: str) -> None:
    """Old tools know v1alpha, new ones v1; the bytes are the same."""
    call: Any = channel.stream_stream(f"/{service}/ServerReflectionInfo")
    list_services = b"\x3a\x00"  # field 7, empty
    (answer,) = list(call(iter([list_services]), timeout=TIMEOUT_SECONDS))
    assert b"quicksilver.v1.ConverterService" in answer
