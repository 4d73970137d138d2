"""Labels moved on a running server, by the command that people use."""

import re
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

import quicksilver
from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from service.server import Server
from tests.service.artefacts import make_artefact
from tests.service.conftest import StartServer

TIMEOUT_SECONDS = 30
TOKEN = "correct-horse-battery-staple"  # noqa: S105 - of servers that live for a test

Run = Callable[..., tuple[int, str, str]]

LOGGED = re.compile(r"^20.*\n", re.MULTILINE)
"""Lines of the server in the same process, which begin with a date."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `quicksilver models`; gives its exit code, and what it said on stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = quicksilver.main(["models", *words])
        said, complained = capsys.readouterr()
        return code, LOGGED.sub("", said), complained

    return call


def version_of(server: Server, label: str = "stable") -> int:
    """The version that answers under a label."""
    with grpc.insecure_channel(server.address) as channel:
        request = api.ConvertRequest(model="linear", label=label, fahrenheit=[50.0])
        return ConverterServiceStub(channel).Convert(request, timeout=TIMEOUT_SECONDS).version


def code_of(server: Server, request: api.SetLabelRequest) -> grpc.StatusCode:
    """How a call of SetLabel ends."""
    with grpc.insecure_channel(server.address) as channel:
        try:
            ConverterServiceStub(channel).SetLabel(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("mode", ["watch", "explicit"])
def test_a_label_moves_forward_and_back_on_a_server(
    start_server: StartServer, repository: Repository, run: Run, mode: str
) -> None:
    """When the command has ended, the server answers with the version that it named, and the repository says so."""
    server = start_server(model_control=mode, load_models="*" if mode == "explicit" else None)
    there = ("--server", server.address)
    said = run("label", "linear", "stable=2", "canary=2", *there)
    assert said == (0, "linear: stable is version 2\nlinear: canary is version 2\n", "")
    assert (version_of(server), version_of(server, "canary")) == (2, 2)
    assert run("rollback", "linear", *there) == (0, "linear: stable is version 1 again\n", "")
    assert (version_of(server), version_of(server, "canary")) == (1, 2)
    assert run("unlabel", "linear", "canary", *there) == (0, "linear: there is no canary any more\n", "")
    assert repository.labels("linear") == {"stable": 1}
    assert code_of(server, api.SetLabelRequest(model="linear", label="canary", none=True)) is grpc.StatusCode.NOT_FOUND


def test_a_label_of_a_model_that_is_not_loaded_moves_on_disk(
    start_server: StartServer, repository: Repository, run: Run
) -> None:
    """It takes effect with the load, and does not load by itself."""
    server = start_server(model_control="explicit")
    assert run("label", "linear", "stable=2", "--server", server.address)[0] == 0
    assert repository.labels("linear") == {"stable": 2}
    assert not server.models.catalogue.models["linear"].loaded
    server.models.load_model("linear")
    assert version_of(server) == 2


def test_no_label_moves_to_a_version_that_does_not_verify_there(
    start_server: StartServer, repository: Repository, run: Run
) -> None:
    """The reason comes back, and nothing moved, on disk or in the server."""
    repository.publish("linear", b"broken")
    server = start_server()
    code, said, complained = run("label", "linear", "canary=2", "stable=3", "--server", server.address)
    assert (code, said) == (1, "linear: canary is version 2\n")
    assert "FAILED_PRECONDITION: linear/3 does not verify, so no label moves to it" in complained
    assert repository.labels("linear") == {"stable": 1, "canary": 2}
    assert version_of(server) == 1


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (api.SetLabelRequest(model="linear", label="stable"), grpc.StatusCode.INVALID_ARGUMENT),
        (api.SetLabelRequest(model="linear", label="stable", version=0), grpc.StatusCode.INVALID_ARGUMENT),
        (api.SetLabelRequest(model="linear", label="stable", version=-1), grpc.StatusCode.INVALID_ARGUMENT),
        (api.SetLabelRequest(model="linear", label="stable", none=False), grpc.StatusCode.INVALID_ARGUMENT),
        (api.SetLabelRequest(model="linear", label="Stable", version=1), grpc.StatusCode.INVALID_ARGUMENT),
        (api.SetLabelRequest(model="../linear", label="stable", version=1), grpc.StatusCode.INVALID_ARGUMENT),
        (api.SetLabelRequest(model="linear", label="stable", version=9), grpc.StatusCode.NOT_FOUND),
        (api.SetLabelRequest(model="absent", label="stable", version=1), grpc.StatusCode.NOT_FOUND),
        (api.SetLabelRequest(model="linear", label="canary", previous=True), grpc.StatusCode.NOT_FOUND),
        (api.SetLabelRequest(model="linear", label="stable", previous=True), grpc.StatusCode.NOT_FOUND),
        (api.SetLabelRequest(model="linear", label="stable", none=True), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_what_cannot_be_done_has_a_code_of_its_own(
    server: Server, repository: Repository, request_: api.SetLabelRequest, code: grpc.StatusCode
) -> None:
    """And leaves the labels as they were."""
    assert code_of(server, request_) is code
    assert repository.labels("linear") == {"stable": 1}


def test_labels_of_a_server_whose_models_are_fixed_stay(start_server: StartServer, repository: Repository) -> None:
    """With `model_control` none, nobody moves them through the API."""
    server = start_server(model_control="none")
    request = api.SetLabelRequest(model="linear", label="stable", version=2)
    assert code_of(server, request) is grpc.StatusCode.FAILED_PRECONDITION
    assert repository.labels("linear") == {"stable": 1}


def test_who_may_move_labels(start_server: StartServer, run: Run, tmp_path: Path) -> None:
    """Nobody on an address that others reach, but with the token; a wrong one, or none, changes nothing."""
    token, wrong = tmp_path / "token", tmp_path / "wrong"
    token.write_text(TOKEN + "\n", "ascii")
    wrong.write_text(TOKEN[::-1], "ascii")
    closed = start_server(listen="0.0.0.0:0")
    address = closed.address.replace("0.0.0.0", "127.0.0.1")
    assert "PERMISSION_DENIED" in run("label", "linear", "stable=2", "--server", address)[2]
    guarded = start_server(listen="0.0.0.0:0", admin_token_file=token)
    there = ("--server", guarded.address.replace("0.0.0.0", "127.0.0.1"))
    assert "UNAUTHENTICATED" in run("label", "linear", "stable=2", *there)[2]
    assert "PERMISSION_DENIED" in run("label", "linear", "stable=2", *there, "--token-file", str(wrong))[2]
    assert "No such file" in run("label", "linear", "stable=2", *there, "--token-file", str(tmp_path / "absent"))[2]
    assert run("label", "linear", "stable=2", *there, "--token-file", str(token))[0] == 0


def test_a_server_that_is_not_there_is_one_line(run: Run) -> None:
    """Exit code 1, and the address is named."""
    code, said, complained = run("rollback", "linear", "--server", "127.0.0.1:1", "--timeout", "5")
    assert (code, said) == (1, "")
    assert "127.0.0.1:1" in complained
    assert complained.count("\n") == 1


def test_a_directory_and_a_server_are_not_both_named(run: Run, tmp_path: Path) -> None:
    """That makes no sense; nor does a remote removal, which there is no method for."""
    for words in (
        ("label", "linear", "stable=2", "--server", "x:1", "--repository", str(tmp_path)),
        ("remove", "linear", "2", "--server", "x:1"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(*words)
        assert caught.value.code == 2


def test_the_version_that_was_stable_is_served_until_the_new_one_is(server: Server, repository: Repository) -> None:
    """A version published a moment ago, which the server never looked at, can be labelled at once."""
    number = repository.publish("linear", make_artefact(offset_celsius=9.0))
    request = api.SetLabelRequest(model="linear", label="stable", version=number)
    assert code_of(server, request) is grpc.StatusCode.OK
    assert version_of(server) == number
