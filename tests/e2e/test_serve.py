"""`quicksilver serve` as a process: what it says, what it refuses, and how it ends."""

import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from proto.runtime import onnxruntime
from service.client import Converter
from tests.e2e.processes import ENVIRONMENT, FREE_PORTS, Serving, children, quicksilver, serving, thread_arenas
from tests.e2e.streams import Stream
from tests.service.artefacts import make_artefact
from tests.waiting import until

LARGE_CALLS = 16
MANY_VERSIONS = 1000
"""As many as take a start seconds to load."""
LARGE_ROWS = 1 << 19
STARTED = (
    'grpc_server_started_total{grpc_method="Convert",grpc_service="quicksilver.v1.ConverterService",grpc_type="unary"}'
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """`linear` in one version."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", make_artefact())
    return repository


_REFUSED = {
    "http2": {grpc.StatusCode.UNAVAILABLE},
    "grpcio": {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED},
}


@pytest.fixture(params=["http2", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each front in turn."""
    return str(request.param)


@pytest.fixture
def server(transport: str, repository: Repository) -> Iterator[Serving]:
    """A serving process with either front."""
    with serving(repository.root, "--transport", transport) as process:
        yield process


def _wait_for_the_drain(server: Serving) -> None:
    until(lambda: server.get("/readyz")[0] == 503, "the drain")


def _code_of_a_new_call(address: str) -> grpc.StatusCode:
    with grpc.insecure_channel(address) as channel:
        try:
            ConverterServiceStub(channel).Convert(api.ConvertRequest(fahrenheit=[1]), timeout=60)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no arenas")
@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one-process", "workers"])
def test_all_threads_share_one_heap(repository: Repository, flags: tuple[str, ...]) -> None:
    """Neither the loop's thread nor a worker's has an arena of its own, whose freed memory no other could use."""
    with serving(repository.root, *flags) as server, Converter(server.address) as converter:
        assert converter.convert([32.0]).celsius[0] == pytest.approx(0, abs=1e-4)
        assert converter.convert(np.full(LARGE_ROWS, 50, np.float32)).celsius[0] == pytest.approx(10, abs=1e-4)
        processes = [server.process.pid, *children(server.process.pid)]
        assert len(processes) >= (3 if flags else 1)
        assert {pid: thread_arenas(pid) for pid in processes} == dict.fromkeys(processes, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(server: Serving, transport: str, number: signal.Signals) -> None:
    """Every call in flight is answered, no new one is taken, probes say so, and the exit code is 0."""
    request = api.ConvertRequest(fahrenheit=np.full(LARGE_ROWS, 50, np.float32).tolist())
    with grpc.insecure_channel(server.address) as channel:
        stream = Stream(channel)
        assert stream.convert(32) == pytest.approx(0, abs=1e-4)
        large = [ConverterServiceStub(channel).Convert.future(request, timeout=60) for _ in range(LARGE_CALLS)]
        while server.metric(STARTED) < LARGE_CALLS:
            time.sleep(0.001)
        assert server.get("/readyz")[0] == 200
        server.signal(number)
        _wait_for_the_drain(server)
        assert server.get("/healthz")[0] == 200
        while (code := _code_of_a_new_call(server.address)) is grpc.StatusCode.OK:
            time.sleep(0.001)  # probes learn of the drain a moment before calls are refused
        # grpcio's own server cancels a call that arrives just as it stops; nothing of ours can tell it otherwise.
        assert code in _REFUSED[transport]
        for call in large:
            np.testing.assert_allclose(np.array(call.result().celsius), 10, atol=1e-4)
        assert stream.convert(212) == pytest.approx(100, abs=1e-4)
        assert stream.end() is grpc.StatusCode.OK
    assert server.wait() == 0
    assert [event["event"] for event in server.logged[-2:]] == ["draining", "stopped"]


def test_a_drain_ends_in_time(repository: Repository) -> None:
    """A call that outlasts `drain_seconds` is cut off; the log and the exit code say so."""
    with serving(repository.root, "--drain-seconds", "0.2") as server, grpc.insecure_channel(server.address) as channel:
        stream = Stream(channel)
        stream.convert(32)
        server.signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError):
            next(stream.call)
        assert server.wait() == 1
        assert any("cut off" in event["event"] for event in server.logged)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("workers", "inherited"), [("1", "default"), ("1", "ignore"), ("2", "default")])
def test_a_signal_ends_a_start_at_once(
    repository: Repository, number: signal.Signals, workers: str, inherited: str
) -> None:
    """While models are loaded nothing is in flight: the process ends by the signal, and so do its workers.

    So does one that a shell started in the background, whose jobs begin by ignoring SIGINT.
    """
    content = repository.model_path("linear", 1).read_bytes()
    for version in range(2, MANY_VERSIONS):
        path = repository.model_path("linear", version)
        path.parent.mkdir()
        path.write_bytes(content)
    flags = ["--repository", str(repository.root), "--version-policy", "all", "--log-format", "json", *FREE_PORTS]
    command = ["env", f"--{inherited}-signal={number.value}", sys.executable, "-m", "quicksilver", "serve", *flags]
    command += ["--workers", workers]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    ) as server:
        assert server.stderr is not None
        assert "version loaded" in next(line for line in server.stderr if "version loaded" in line)
        server.send_signal(number)
        assert server.wait(60) == -number
        rest = server.stderr.read()  # its end comes when no process is left that could write
    assert '"serving"' not in rest
    assert rest.count("version loaded") < MANY_VERSIONS - 2


def test_who_asks_twice_does_not_wait(repository: Repository) -> None:
    """The same signal a second time ends a drain at once."""
    with serving(repository.root, "--drain-seconds", "60") as server, grpc.insecure_channel(server.address) as channel:
        stream = Stream(channel)
        stream.convert(32)
        server.signal(signal.SIGTERM)
        _wait_for_the_drain(server)
        server.signal(signal.SIGTERM)
        assert server.wait() == -signal.SIGTERM


def test_ctrl_c_in_a_script_that_ends_its_children_drains(repository: Repository) -> None:
    """The terminal's SIGINT and the script's SIGTERM behind it ask once, not twice."""
    with serving(repository.root, "--drain-seconds", "60") as server, grpc.insecure_channel(server.address) as channel:
        stream = Stream(channel)
        stream.convert(32)
        server.signal(signal.SIGINT)
        server.signal(signal.SIGTERM)
        _wait_for_the_drain(server)
        server.signal(signal.SIGTERM)
        assert stream.convert(212) == pytest.approx(100, abs=1e-4)
        assert stream.end() is grpc.StatusCode.OK
        assert server.wait() == 0


def test_certificates_that_are_not_there_are_named(repository: Repository, transport: str) -> None:
    """TLS with files that cannot be read is one line and exit code 1."""
    tls = ("--tls-certificate", "/nowhere/chain.pem", "--tls-key", "/nowhere/key.pem")
    ran = quicksilver("serve", "--repository", str(repository.root), "--transport", transport, *FREE_PORTS, *tls)
    assert ran.returncode == 1
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("quicksilver serve:")]
    assert "/nowhere/" in line
    assert "Traceback" not in ran.stderr


def test_a_repository_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A path that can never hold models is not served as an empty repository."""
    (tmp_path / "models").write_text("")
    ran = quicksilver("serve", "--repository", str(tmp_path / "models"), *FREE_PORTS)
    assert (ran.returncode, "is no directory" in ran.stderr) == (2, True)


def test_the_log_is_json_and_holds_no_payload(repository: Repository) -> None:
    """One object a line, at the lowest level too; no temperature that anybody sent, right or wrong."""
    with serving(repository.root, "--log-level", "debug") as server:
        for words in (["41.424344"], ["-941.424344"], ["41.424344", "--reject", "--model", "nope"]):
            quicksilver("convert", *words, "--server", server.address)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert {event["level"] for event in server.logged} <= {"debug", "info", "warning", "error"}
        assert "41.42434" not in "".join(server.lines)


def test_a_broken_version_does_not_take_the_good_one_down(repository: Repository) -> None:
    """The stable version answers, and the list tells what is wrong with the new one."""
    repository.publish("linear", b"no model at all")
    with serving(repository.root) as server:
        with Converter(server.address) as converter:
            assert converter.convert([212]).version == 1
        listed = quicksilver("models", "list", "--server", server.address).stdout.splitlines()
        (failed,) = [line.split("\t") for line in listed if line.startswith("linear\t2\t")]
        assert failed[2].startswith("failed: ONNX Runtime cannot load the file")
        assert server.get("/readyz")[0] == 200
        (event,) = [event for event in server.logged if event["level"] == "error"]
        assert (event["model"], event["version"]) == ("linear", 2)


def test_a_version_that_answers_wrong_is_not_served(repository: Repository) -> None:
    """Its golden vectors do not come out right, and the reason shows which."""
    wrong = make_artefact().replace(b'"outputs": [-40.0, 0.0', b'"outputs": [-41.0, 0.0')
    assert wrong != make_artefact()
    repository.publish("linear", wrong)
    with serving(repository.root) as server:
        listed = quicksilver("models", "list", "--server", server.address).stdout
        assert "failed: golden vector 0: input [-40.0] gave -40" in listed


def test_a_missing_repository_is_served_as_empty(tmp_path: Path) -> None:
    """Alive, not ready, and the log says why; a model may yet come."""
    missing = tmp_path / "nowhere"
    with serving(missing) as server:
        assert server.get("/healthz")[0] == 200
        assert server.get("/readyz")[0] == 503
        (warning,) = [event for event in server.logged if event["level"] == "warning"]
        assert warning["repository"] == str(missing)
        assert "holds no models" in warning["event"]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("flags", [("--transport", "http2"), ("--transport", "grpcio"), ("http",)])
def test_a_port_in_use_is_exit_code_1(repository: Repository, flags: tuple[str, ...]) -> None:
    """The last line names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        where = ("--http-listen", address) if flags == ("http",) else (*flags, "--listen", address)
        done = quicksilver("serve", "--repository", str(repository.root), "--log-format", "json", *FREE_PORTS, *where)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"quicksilver serve: cannot listen on {address}: ")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is here")
def test_cuda_is_refused_where_it_cannot_be_had(repository: Repository) -> None:
    """Exit code 1, and what there is."""
    done = quicksilver("serve", "--repository", str(repository.root), "--device", "cuda", *FREE_PORTS)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("quicksilver serve: device 'cuda' cannot be had: ")


def test_settings_come_from_file_and_environment(repository: Repository, tmp_path: Path) -> None:
    """And what is wrong with one is exit code 2, with its origin, before anything is opened."""
    file = tmp_path / "settings.toml"
    file.write_text(f"repository = '{repository.root}'\nlog_level = 'loud'\n")
    done = quicksilver("serve", QUICKSILVER_SETTINGS=str(file), QUICKSILVER_LOG_FORMAT="xml")
    assert done.returncode == 2
    assert sorted(line.split(": ")[1] for line in done.stderr.splitlines()) == [
        f"'log_level' in {file}",
        "QUICKSILVER_LOG_FORMAT",
    ]


def test_a_unix_socket_can_be_listened_on(repository: Repository, tmp_path: Path) -> None:
    """The commands take the same address."""
    address = f"unix:{tmp_path}/q.sock"
    with serving(repository.root, "--listen", address) as server:
        assert server.address == address
        assert "linear, version 1" in quicksilver("convert", "32", "--server", address).stdout
