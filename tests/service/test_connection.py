"""Commands against servers that speak TLS and ask for certificates."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import quicksilver
from service.server import Server
from tests.service.conftest import StartServer
from tests.service.http2.authority import Authority

Run = Callable[..., tuple[int, str, str]]

LOGGED = re.compile(r"^20.*\n", re.MULTILINE)
"""Lines of the server in the same process, which begin with a date."""

COMMANDS = [
    ("convert", "50"),
    ("models", "list"),
    ("models", "show"),
    ("models", "label", "linear", "stable=2"),
    ("ready",),
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; gives its exit code, and what it said on stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = quicksilver.main(list(words))
        said, complained = capsys.readouterr()
        return code, LOGGED.sub("", said), complained

    return call


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom both sides trust."""
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture
def guarded(start_server: StartServer, authority: Authority) -> Server:
    """A server that shows a certificate and wants to see one."""
    certificate, key = authority.issue("server")
    return start_server(tls_certificate=certificate, tls_key=key, tls_client_authorities=authority.certificate)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_speaks_mutual_tls(
    guarded: Server, authority: Authority, run: Run, command: tuple[str, ...]
) -> None:
    """With its certificate it is answered; without, or in clear text, it is not, and says so."""
    certificate, key = authority.issue("client")
    there = ("--server", guarded.address.replace("127.0.0.1", "localhost"))
    trusting = ("--tls-authorities", str(authority.certificate))
    code, _, complained = run(*command, *there, *trusting, "--tls-certificate", str(certificate), "--tls-key", str(key))
    assert (code, complained) == (0, "")
    for wanting in ((), trusting):
        code, said, complained = run(*command, *there, *wanting)
        assert (code, said) == (1, "")
        assert complained.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_options_that_contradict_each_other_are_named(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A certificate without its key, or without TLS, and a file that is not there."""
    there = (*command, "--server", "127.0.0.1:1")
    file = str(tmp_path / "absent.pem")
    for words, reason in (
        (("--tls-certificate", file), "--tls-key go together"),
        (("--tls-certificate", file, "--tls-key", file), "--tls-authorities is missing"),
        (("--tls-authorities", file), f"{file}: No such file"),
    ):
        code, said, complained = run(*there, *words)
        assert (code, said) == (1, "")
        assert reason in complained
