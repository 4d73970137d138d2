"""Retraining jobs are clients: `quicksilver publish --to` against a real server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import quicksilver
from proto.repository import Repository
from service.client import Converter
from service.config import Settings
from service.server import Server
from tests.service.artefacts import make_artefact, make_plain

TOKEN = "correct-horse-battery-staple"  # noqa: S105 - of servers that live for a test
Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers over `tmp_path/models`; stops them at the end."""
    servers: list[Server] = []

    def start(**settings: Any) -> Server:  # noqa: ANN401 - any setting
        chosen = {"listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", **settings}
        server = Server(Settings(repository=tmp_path / "models", **chosen))
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file as training writes it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(make_artefact())
    return path


def test_a_job_publishes_to_a_server_that_serves_it(
    start: Start, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says under which version; when it ends, that version answers."""
    server = start()
    for version in (1, 2):
        assert quicksilver.main(["publish", str(model), "--to", server.address, "--name", "linear"]) == 0
        assert capsys.readouterr().out.endswith(f"published linear/{version} to {server.address}\n")
        with Converter(server.address) as converter:
            assert converter.convert(50.0, model="linear", version=version).version == version
    assert Repository(tmp_path / "models").model_path("linear", 2).read_bytes() == model.read_bytes()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--version", "1"], "ALREADY_EXISTS: linear/1 is published already"),
        (["--name", "Linear"], "'Linear' is not a valid name"),
        (["--to", "127.0.0.1:1"], "127.0.0.1:1: UNAVAILABLE"),
    ],
)
def test_what_a_server_refuses_is_one_line(
    start: Start, model: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    """Exit code 1, with the server's reason."""
    base = ["publish", str(model), "--to", start().address, "--name", "linear"]
    assert quicksilver.main(base) == 0
    capsys.readouterr()
    assert quicksilver.main([*base, *words]) == 1
    assert reason in capsys.readouterr().err


def test_a_file_is_checked_before_it_travels(
    start: Start, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain model must be meant, here as with a directory."""
    model.write_bytes(make_plain())
    words = ["publish", str(model), "--to", start().address, "--name", "plain"]
    assert quicksilver.main(words) == 1
    assert "--plain" in capsys.readouterr().err
    assert Repository(tmp_path / "models").names() == []
    assert quicksilver.main([*words, "--plain"]) == 0


def test_the_token_travels_along(start: Start, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that wants a token gets it from a file."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    words = ["publish", str(model), "--to", start(admin_token_file=token).address, "--name", "linear"]
    assert quicksilver.main(words) == 1
    assert "UNAUTHENTICATED" in capsys.readouterr().err
    assert quicksilver.main([*words, "--token-file", str(token)]) == 0
