"""Load and unload through the API of a real server, and who may."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from proto.inference.v2 import open_inference_pb2 as pb
from proto.quicksilver.v1 import converter_pb2 as api
from proto.repository import MODEL_FILE, VERDICT_FILES, Repository
from proto.upload import LOAD_METHOD, VERSIONS_KEY, file_key, parse_file_key
from service.server import Server
from tests.service.artefacts import make_artefact, make_plain
from tests.service.conftest import StartServer

TIMEOUT_SECONDS = 30
SERVICE = "inference.GRPCInferenceService"
TOKEN = "correct-horse-battery-staple"  # noqa: S105 - of servers that live for a test

CONVERT = "/quicksilver.v1.ConverterService/Convert"
Call = Callable[..., Any]


class Caller:
    """Calls a server's methods over a real channel."""

    def __init__(self, address: str, metadata: Mapping[str, str] | None = None) -> None:
        self._channel = grpc.insecure_channel(address)
        self._metadata = tuple((metadata or {}).items())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def _call(self, path: str, request: Any, response_type: Any) -> tuple[Any, grpc.Call]:  # noqa: ANN401 - any message
        method: grpc.UnaryUnaryMultiCallable[bytes, Any] = self._channel.unary_unary(
            path, response_deserializer=response_type.FromString
        )
        return method.with_call(request.SerializeToString(), timeout=TIMEOUT_SECONDS, metadata=self._metadata)

    def load(self, name: str, files: Mapping[str, bytes] | None = None, config: str | None = None) -> str:
        """Load a model, with files by their keys; returns the versions that were published, as the server says them."""
        request = pb.RepositoryModelLoadRequest(model_name=name)
        for key, content in (files or {}).items():
            request.parameters[key].bytes_param = content
        if config is not None:
            request.parameters["config"].string_param = config
        _, call = self._call(LOAD_METHOD, request, pb.RepositoryModelLoadResponse)
        return str(dict(call.trailing_metadata() or ()).get(VERSIONS_KEY, ""))

    def unload(self, name: str) -> None:
        """Unload a model."""
        request = pb.RepositoryModelUnloadRequest(model_name=name)
        self._call(f"/{SERVICE}/RepositoryModelUnload", request, pb.RepositoryModelUnloadResponse)

    def version_of(self, name: str, **choice: Any) -> int:  # noqa: ANN401 - a version or a label
        """The version that answers a conversion."""
        request = api.ConvertRequest(model=name, fahrenheit=[50.0], **choice)
        return int(self._call(CONVERT, request, api.ConvertResponse)[0].version)

    def log_settings(self, **settings: bool) -> Any:  # noqa: ANN401 - a message
        """Read or change the log settings."""
        request = pb.LogSettingsRequest()
        for name, value in settings.items():
            request.settings[name].bool_param = value
        return self._call(f"/{SERVICE}/LogSettings", request, pb.LogSettingsResponse)[0]


def refused(code: grpc.StatusCode, call: Call, *arguments: Any) -> str:  # noqa: ANN401 - any arguments
    """The details of a call that must be refused with a code."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    assert caught.value.code() is code, caught.value.details()
    return str(caught.value.details())


def content_of(root: Path) -> dict[str, bytes]:
    """Every file below a directory, by its path, but for the lock."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def explicit(start_server: StartServer) -> Server:
    """A server that loads nothing until it is told."""
    return start_server(model_control="explicit")


@pytest.fixture
def caller(explicit: Server) -> Iterator[Caller]:
    """Calls `explicit`."""
    with Caller(explicit.address) as caller:
        yield caller


# Load and unload ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_a_model_answers_from_its_load_to_its_unload(start_server: StartServer, transport: str) -> None:
    """Before and after, it is known and UNAVAILABLE; loads and unloads that change nothing are no errors."""
    server = start_server(model_control="explicit", transport=transport)
    assert server.health.ready
    with Caller(server.address) as caller:
        assert "not loaded" in refused(grpc.StatusCode.UNAVAILABLE, caller.version_of, "linear")
        for _ in range(2):
            caller.load("linear")
            assert caller.version_of("linear") == 1
        for _ in range(2):
            caller.unload("linear")
            assert "not loaded" in refused(grpc.StatusCode.UNAVAILABLE, caller.version_of, "linear")


def test_health_watchers_learn_of_loads_and_unloads(caller: Caller, explicit: Server) -> None:
    """A watch on a model that is not there yet ends its wait when the model is sent, and learns when it is unloaded."""
    with grpc.insecure_channel(explicit.address) as channel:
        watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="models/sent"), timeout=TIMEOUT_SECONDS)
        told = [next(watch).status]
        caller.load("sent", {file_key(1): make_artefact()})
        told.append(next(watch).status)
        caller.unload("sent")
        told.append(next(watch).status)
        watch.cancel()
    states = health_pb2.HealthCheckResponse
    assert told == [states.SERVICE_UNKNOWN, states.SERVING, states.NOT_SERVING]


def test_what_is_not_there_is_neither_loaded_nor_unloaded(caller: Caller) -> None:
    """NOT_FOUND, naming what there is."""
    assert "there are linear, plain" in refused(grpc.StatusCode.NOT_FOUND, caller.load, "absent")
    refused(grpc.StatusCode.NOT_FOUND, caller.unload, "absent")


def test_a_model_none_of_whose_versions_loads_is_unavailable(caller: Caller, repository: Repository) -> None:
    """The load fails with the reason."""
    repository.publish("mlp", b"broken")
    assert "version 1: ONNX Runtime cannot load" in refused(grpc.StatusCode.UNAVAILABLE, caller.load, "mlp")


@pytest.mark.parametrize("control", ["watch", "none"])
def test_a_server_that_loads_by_itself_unloads_nothing(start_server: StartServer, control: str) -> None:
    """FAILED_PRECONDITION: the model would be back at the next look, or could never come back."""
    with Caller(start_server(model_control=control).address) as caller:
        assert "model_control" in refused(grpc.StatusCode.FAILED_PRECONDITION, caller.unload, "linear")
        assert caller.version_of("linear") == 1


# Sent files -----------------------------------------------------------------------------------------------------------


def test_a_sent_file_becomes_a_version_and_is_served(caller: Caller, repository: Repository) -> None:
    """Its bytes are in the repository as they were sent; the first version of a name becomes stable."""
    content = make_artefact(offset_celsius=3)
    assert caller.load("sent", {file_key(None): content}) == "1"
    assert caller.load("sent", {file_key(7): make_artefact()}) == "7"
    assert caller.load("sent", {file_key(None): make_plain()}) == "8"
    assert repository.model_path("sent", 1).read_bytes() == content
    assert repository.labels("sent") == {"stable": 1}
    assert caller.version_of("sent") == 1
    assert caller.version_of("sent", version=8) == 8


def test_a_server_that_watches_takes_files_too(start_server: StartServer) -> None:
    """A retraining job needs no other mode; the answer comes when the version is loaded."""
    with Caller(start_server().address) as caller:
        assert caller.load("linear", {file_key(None): make_artefact(offset_celsius=3)}, config="{}") == "3"
        assert caller.version_of("linear", version=3) == 3


def test_a_version_sent_again_exists_already(caller: Caller, repository: Repository) -> None:
    """ALREADY_EXISTS, also where the content is the same, and where the version was removed."""
    before = content_of(repository.root)
    for content in (make_artefact(), make_artefact(offset_celsius=3)):
        refused(grpc.StatusCode.ALREADY_EXISTS, caller.load, "linear", {file_key(2): content})
    assert content_of(repository.root) == before
    repository.remove("linear", 2)
    assert "removed" in refused(grpc.StatusCode.ALREADY_EXISTS, caller.load, "linear", {file_key(2): make_artefact()})


def test_a_file_that_does_not_verify_is_not_written(caller: Caller, repository: Repository) -> None:
    """INVALID_ARGUMENT with the reason, and none of several files is written where one is broken."""
    before = content_of(repository.root)
    files = {file_key(8): make_artefact(), file_key(9): make_artefact()[:-100]}
    assert "model.onnx" in refused(grpc.StatusCode.INVALID_ARGUMENT, caller.load, "linear", files)
    assert content_of(repository.root) == before


NO_NAMES = ["", "..", "../up", "/abs", "a/b", "a\\b", "Linear", ".lock", "x\0y", "a" * 64, "linear\n", "é", "%2e%2e"]
NO_PATHS = [
    "file:", "file:1", "file:/model.onnx", "file:0/model.onnx", "file:01/model.onnx", "file:-1/model.onnx",
    "file:../1/model.onnx", "file:1/../2/model.onnx", "file:/1/model.onnx", "file:1//model.onnx",
    "file:1/model.onnx/", "file:1/other.onnx", "file:1/labels.json", "file:1/model.onnx\0", "file:1\0/model.onnx",
    "file:1/model.onnx\n", "file:\uff11/model.onnx", "file:NEXT/model.onnx", f"file:{10**18}/model.onnx",
    "1/model.onnx",
]  # fmt: skip


def test_nothing_leaves_the_repository(caller: Caller, repository: Repository) -> None:
    """A name or path outside the pattern is INVALID_ARGUMENT, and nothing is written anywhere."""
    before = content_of(repository.root.parent)
    for name in NO_NAMES:
        refused(grpc.StatusCode.INVALID_ARGUMENT, caller.load, name, {file_key(1): make_artefact()})
    for path in NO_PATHS:
        refused(grpc.StatusCode.INVALID_ARGUMENT, caller.load, "sent", {path: make_artefact()})
    assert content_of(repository.root.parent) == before


def test_nothing_is_written_through_a_link(caller: Caller, repository: Repository, tmp_path: Path) -> None:
    """A model or a version that is a link to elsewhere is not written to, whatever is behind it; nor is the lock."""
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
        (repository.root / name).symlink_to(tmp_path / name)
    Repository(tmp_path).publish("full", make_artefact())
    (repository.root / "linear" / "9").symlink_to(tmp_path / "empty")
    (tmp_path / "precious").write_text("precious")
    (repository.root / ".lock").unlink()
    (repository.root / ".lock").symlink_to(tmp_path / "precious")
    before = content_of(tmp_path)
    refused(grpc.StatusCode.FAILED_PRECONDITION, caller.load, "sent", {file_key(1): make_artefact()})
    (repository.root / ".lock").unlink()
    for name, version in (("empty", 1), ("full", 2), ("linear", 9)):
        refused(grpc.StatusCode.FAILED_PRECONDITION, caller.load, name, {file_key(version): make_artefact()})
    assert content_of(tmp_path) == before


def test_a_repository_that_cannot_be_written_is_said_to_be(
    caller: Caller, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAILED_PRECONDITION with the system's reason, and none of its paths."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/secret/path")

    monkeypatch.setattr("proto.repository._write_synced", full)
    details = refused(grpc.StatusCode.FAILED_PRECONDITION, caller.load, "sent", {file_key(1): make_artefact()})
    assert "No space left on device" in details
    assert "/secret" not in details
    assert repository.versions("sent") == []


def test_many_send_at_once_and_each_gets_a_version_of_its_own(caller: Caller, repository: Repository) -> None:
    """No two uploads share a number, and each file is under the number that its sender was told."""
    told: dict[int, str] = {}

    def send(offset: int) -> None:
        told[offset] = caller.load("sent", {file_key(None): make_artefact(offset_celsius=offset)})

    threads = [threading.Thread(target=send, args=(offset,)) for offset in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told.values()) == ["1", "2", "3", "4", "5", "6"]
    for offset, version in told.items():
        assert repository.model_path("sent", int(version)).read_bytes() == make_artefact(offset_celsius=offset)


def test_keys_of_files_are_read_as_they_are_written() -> None:
    """Writing and reading are inverse."""
    for version in (1, 12, 10**17, None):
        for name in (MODEL_FILE, *VERDICT_FILES):
            assert parse_file_key(file_key(version, name)) == (version, name)


def test_a_verdict_is_put_beside_its_model(caller: Caller, repository: Repository) -> None:
    """It appears with the version that it let in; without a model it is refused, and so is a file of another name."""
    files = {file_key(None): make_artefact(), **{file_key(None, name): name.encode() for name in VERDICT_FILES}}
    version = caller.load("sent", files)
    directory = repository.model_path("sent", int(version)).parent
    assert {path.name for path in directory.iterdir()} == {MODEL_FILE, *VERDICT_FILES}
    assert (directory / VERDICT_FILES[0]).read_bytes() == VERDICT_FILES[0].encode()
    for key in (file_key(9, VERDICT_FILES[0]), file_key(None, "notes.txt")):
        refused(grpc.StatusCode.INVALID_ARGUMENT, lambda key=key: caller.load("sent", {key: b"x"}))


# Who may --------------------------------------------------------------------------------------------------------------


def _admin_calls(caller: Caller) -> list[tuple[Call, tuple[Any, ...], dict[str, Any]]]:
    return [
        (caller.load, ("linear",), {}),
        (caller.unload, ("linear",), {}),
        (caller.log_settings, (), {"log_info": True}),
    ]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The file of the admin token."""
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_elsewhere_admin_methods_are_closed(start_server: StartServer, transport: str) -> None:
    """A server bound to every address refuses them to all, also to a caller from this machine; the rest is open."""
    server = start_server(model_control="explicit", load_models="*", listen="0.0.0.0:0", transport=transport)
    with Caller(server.address.replace("0.0.0.0", "127.0.0.1")) as caller:
        for call, arguments, options in _admin_calls(caller):
            refused(grpc.StatusCode.PERMISSION_DENIED, lambda c=call, a=arguments, o=options: c(*a, **o))
        assert caller.version_of("linear") == 1


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "127.0.0.1:0"])
def test_a_token_opens_them(start_server: StartServer, token_file: Path, listen: str) -> None:
    """Without it UNAUTHENTICATED, with a wrong one PERMISSION_DENIED; it is wanted on a local address too."""
    server = start_server(model_control="explicit", listen=listen, admin_token_file=token_file)
    address = server.address.replace("0.0.0.0", "127.0.0.1")
    for header, code in (
        (None, grpc.StatusCode.UNAUTHENTICATED),
        ("Basic " + TOKEN, grpc.StatusCode.UNAUTHENTICATED),
        ("Bearer", grpc.StatusCode.UNAUTHENTICATED),
        ("Bearer " + TOKEN[:-1], grpc.StatusCode.PERMISSION_DENIED),
        ("Bearer " + TOKEN + "x", grpc.StatusCode.PERMISSION_DENIED),
    ):
        with Caller(address, {} if header is None else {"authorization": header}) as caller:
            for call, arguments, options in _admin_calls(caller):
                refused(code, lambda c=call, a=arguments, o=options: c(*a, **o))
            refused(grpc.StatusCode.UNAVAILABLE, caller.version_of, "linear")
    with Caller(address, {"authorization": "bearer " + TOKEN}) as caller:
        caller.load("linear")
        assert caller.version_of("linear") == 1


def test_a_new_token_takes_effect_at_once(start_server: StartServer, token_file: Path) -> None:
    """The file may be replaced while the server runs; one that holds no token closes the methods."""
    server = start_server(model_control="explicit", admin_token_file=token_file)
    other = TOKEN[::-1]
    with Caller(server.address, {"authorization": f"Bearer {other}"}) as caller:
        refused(grpc.StatusCode.PERMISSION_DENIED, caller.load, "linear")
        token_file.write_text(other)
        caller.load("linear")
        token_file.write_text("short")
        assert "cannot be read" in refused(grpc.StatusCode.PERMISSION_DENIED, caller.load, "linear")


def test_settings_of_the_log_may_be_read_by_anybody(start_server: StartServer) -> None:
    """Only a change wants permission."""
    server = start_server(listen="0.0.0.0:0")
    with Caller(server.address.replace("0.0.0.0", "127.0.0.1")) as caller:
        assert "log_info" in caller.log_settings().settings
