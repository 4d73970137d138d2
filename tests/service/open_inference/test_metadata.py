"""What the server tells of itself and its models, over a real channel."""

from importlib.metadata import version as installed_version

import grpc
import pytest

from proto.inference.v2 import open_inference_pb2 as pb
from proto.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from proto.repository import Repository
from service.server import Server
from tests.service.conftest import StartServer
from tests.service.open_inference import graphs
from tests.service.open_inference.calls import TIMEOUT_SECONDS
from tests.service.open_inference.conftest import declare_independent

EXTENSION_METHODS = {
    "model_configuration": ["ModelConfig"],
    "statistics": ["ModelStatistics"],
    "logging": ["LogSettings"],
    "model_repository": ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"],
}


def _metadata(stub: GRPCInferenceServiceStub, name: str, version: str = "") -> pb.ModelMetadataResponse:
    return stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version), timeout=TIMEOUT_SECONDS)


def _tensors(tensors: object) -> list[tuple[str, str, list[int]]]:
    return [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors]  # type: ignore[attr-defined] # a repeated field


def test_a_running_server_is_live_and_ready(any_stub: GRPCInferenceServiceStub) -> None:
    """Both questions have an answer of their own."""
    assert any_stub.ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT_SECONDS).live
    assert any_stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT_SECONDS).ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("linear", "", True),
        ("linear", "2", True),
        ("linear", "stable", True),
        ("linear", "3", False),
        ("linear", "canary", False),
        ("absent", "", False),
    ],
)
def test_a_model_is_ready_or_not(any_stub: GRPCInferenceServiceStub, name: str, version: str, ready: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Of one that is not there yet the answer is no, as a client that waits for it needs."""
    answer = any_stub.ModelReady(pb.ModelReadyRequest(name=name, version=version), timeout=TIMEOUT_SECONDS)
    assert answer.ready is ready


def test_a_server_with_a_broken_model_is_live_and_not_ready(start_server: StartServer, repository: Repository) -> None:
    """And only that model is not ready."""
    repository.publish("broken", b"broken")
    with grpc.insecure_channel(start_server().address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT_SECONDS).live
        assert not stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT_SECONDS).ready
        asked = [pb.ModelReadyRequest(name=name) for name in ("broken", "linear")]
        assert [stub.ModelReady(each, timeout=TIMEOUT_SECONDS).ready for each in asked] == [False, True]


def test_the_extensions_told_are_those_that_exist(
    any_stub: GRPCInferenceServiceStub, any_channel: grpc.Channel
) -> None:
    """Each extension's methods answer, and those of extensions that are not told do not exist."""
    answer = any_stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=TIMEOUT_SECONDS)
    assert (answer.name, answer.version) == ("quicksilver", installed_version("quicksilver-serving"))
    assert set(answer.extensions) <= set(EXTENSION_METHODS)
    for extension, methods in EXTENSION_METHODS.items():
        for method in methods:
            exists = _exists(any_channel, method)
            assert exists or extension not in answer.extensions
            assert not exists or extension in answer.extensions or method == "RepositoryIndex"
    for method in ("TraceSetting", "SystemSharedMemoryStatus", "CudaSharedMemoryStatus"):
        assert not _exists(any_channel, method)


def _exists(channel: grpc.Channel, method: str) -> bool:
    call: object = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    try:
        call(b"", timeout=TIMEOUT_SECONDS)  # type: ignore[operator] # grpc-stubs has no type for raw calls
    except grpc.RpcError as error:
        return error.code() is not grpc.StatusCode.UNIMPLEMENTED
    return True


def test_a_converter_tells_what_it_takes_and_gives(any_stub: GRPCInferenceServiceStub) -> None:
    """Those outputs too that are given only when asked for by name."""
    answer = _metadata(any_stub, "linear")
    assert (answer.name, answer.platform, list(answer.versions)) == ("linear", "onnxruntime_onnx", ["1", "2"])
    assert _tensors(answer.inputs) == [("fahrenheit", "FP32", [-1, 1])]
    assert _tensors(answer.outputs) == [
        ("celsius", "FP32", [-1, 1]),
        ("celsius_lower", "FP32", [-1, 1]),
        ("celsius_upper", "FP32", [-1, 1]),
        ("extrapolated", "BOOL", [-1, 1]),
    ]
    assert list(_metadata(any_stub, "linear", "2").versions) == ["2"]
    assert list(_metadata(any_stub, "linear", "stable").versions) == ["1"]


def test_any_model_tells_what_it_takes_and_gives(any_stub: GRPCInferenceServiceStub) -> None:
    """Every datatype by its name in the protocol, fixed and free dimensions, several tensors."""
    for datatype in graphs.ELEMENT_TYPES:
        answer = _metadata(any_stub, f"identity_{datatype.lower()}")
        assert _tensors(answer.inputs) == [("x", datatype, [-1, 2])]
        assert _tensors(answer.outputs) == [("y", datatype, [-1, 2])]
    answer = _metadata(any_stub, "two_by_two")
    assert _tensors(answer.inputs) == [("a", "FP32", [-1, 3]), ("b", "FP32", [-1, 3]), ("flag", "BOOL", [-1])]
    assert _tensors(_metadata(any_stub, "fixed").inputs) == [("x", "FP32", [4, 2])]
    assert _tensors(_metadata(any_stub, "plain").outputs) == [("celsius", "FP32", [-1, 1])]


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig"])
@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("absent", "", grpc.StatusCode.NOT_FOUND),
        ("linear", "9", grpc.StatusCode.NOT_FOUND),
        ("linear", "canary", grpc.StatusCode.NOT_FOUND),
        ("linear", "-1", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_is_not_there_cannot_be_described(
    any_stub: GRPCInferenceServiceStub, method: str, name: str, version: str, code: grpc.StatusCode
) -> None:
    """Each with its own status."""
    message = getattr(pb, f"{method}Request")(name=name, version=version)
    with pytest.raises(grpc.RpcError) as caught:
        getattr(any_stub, method)(message, timeout=TIMEOUT_SECONDS)
    assert caught.value.code() is code


def _config(stub: GRPCInferenceServiceStub, name: str) -> pb.ModelConfig:
    return stub.ModelConfig(pb.ModelConfigRequest(name=name), timeout=TIMEOUT_SECONDS).config


def test_a_configuration_tells_whether_calls_share_runs(start_server: StartServer, repository: Repository) -> None:
    """Where they do, the largest batch, and dimensions without the first; elsewhere 0, and all dimensions."""
    repository.publish("lookup", graphs.lookup())
    declare_independent(repository, "lookup")
    server = start_server(max_batch_rows=512)
    with grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        linear, plain, lookup = (_config(stub, name) for name in ("linear", "plain", "lookup"))
    assert (linear.max_batch_size, linear.HasField("dynamic_batching"), list(linear.input[0].dims)) == (512, True, [1])
    assert (plain.max_batch_size, plain.HasField("dynamic_batching"), list(plain.input[0].dims)) == (0, False, [-1, 1])
    assert (list(lookup.input[0].dims), lookup.input[0].HasField("reshape")) == ([1], True)
    assert (linear.name, linear.platform, linear.backend) == ("linear", "onnxruntime_onnx", "onnxruntime")
    assert linear.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU
    assert linear.parameters["sha256"].string_value == server.models.catalogue.resolve("linear", None).sha256
    assert [output.name for output in linear.output] == ["celsius", "celsius_lower", "celsius_upper", "extrapolated"]
    assert linear.output[3].data_type == pb.TYPE_BOOL


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("latest:2", pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=2))),
        ("all", pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())),
        ("1,2", pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=[1, 2]))),
    ],
)
def test_a_configuration_tells_which_versions_are_loaded(
    start_server: StartServer, policy: str, told: pb.ModelVersionPolicy
) -> None:
    """Each policy that the settings know."""
    with grpc.insecure_channel(start_server(version_policy=policy).address) as channel:
        assert _config(GRPCInferenceServiceStub(channel), "linear").version_policy == told


def test_the_index_lists_every_version_with_its_state(start_server: StartServer, repository: Repository) -> None:
    """And the reason of one that does not answer."""
    repository.publish("linear", b"broken")
    with grpc.insecure_channel(start_server(version_policy="all").address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        everything = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT_SECONDS).models
        ready = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True), timeout=TIMEOUT_SECONDS).models
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="other"), timeout=TIMEOUT_SECONDS)
    assert [(entry.name, entry.version, entry.state) for entry in everything] == [
        ("linear", "1", "READY"),
        ("linear", "2", "READY"),
        ("linear", "3", "UNAVAILABLE"),
        ("plain", "1", "READY"),
    ]
    assert everything[2].reason.startswith("ONNX Runtime cannot load the file")
    assert [(entry.name, entry.version) for entry in ready] == [("linear", "1"), ("linear", "2"), ("plain", "1")]
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_questions_get_answers_through_reflection_too(any_server: Server, any_channel: grpc.Channel) -> None:
    """A client without our .proto file finds the service and its messages."""
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # noqa: PLC0415 - of this test alone
        ProtoReflectionDescriptorDatabase,
    )

    assert any_server.health.ready
    database = ProtoReflectionDescriptorDatabase(any_channel)
    assert "inference.GRPCInferenceService" in database.get_services()
    described = database.FindFileContainingSymbol("inference.ModelInferRequest")
    assert [service.name for service in described.service] == ["GRPCInferenceService"]
