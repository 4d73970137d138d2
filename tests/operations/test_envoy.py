"""deploy/envoy/envoy.yaml, for real: Envoy in front of two server processes, one of which is killed.

The file is taken as it stands, but for addresses and paths.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
import yaml

from proto.inference.v2 import open_inference_pb2
from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub
from proto.repository import Repository
from tests.e2e.processes import Serving, serving
from tests.environments import ROOT
from tests.service.artefacts import make_artefact
from tests.service.http2.authority import Authority
from tests.waiting import LIMIT_SECONDS, until

CONFIGURATION = ROOT / "deploy" / "envoy" / "envoy.yaml"
CALLERS = 4
CALLS_AFTER_THE_KILL = 200
HANDLED = (
    'grpc_server_handled_total{grpc_code="OK",grpc_method="Convert",grpc_service="quicksilver.v1.ConverterService",'
    'grpc_type="unary"}'
)
REPEATABLE = {
    "/quicksilver.v1.ConverterService/Convert",
    "/quicksilver.v1.ConverterService/ConvertStream",
    "/inference.GRPCInferenceService/ModelInfer",
}
"""Methods that change nothing."""


class Proxy:
    """A running Envoy, and the two servers behind it."""

    def __init__(
        self, process: subprocess.Popen[bytes], directory: Path, authority: Authority, servers: list[Serving]
    ) -> None:
        self._process, self._directory = process, directory
        self.authority, self.servers = authority, servers
        admin = directory / "admin"
        until(lambda: admin.exists() and admin.read_text(), "Envoy's start")
        self._admin = admin.read_text()
        until(lambda: self.asked("listeners").get("listener_statuses"), "Envoy's listener")
        (listener,) = self.asked("listeners")["listener_statuses"]
        self.port: int = listener["local_address"]["socket_address"]["port_value"]

    def asked(self, what: str) -> dict[str, Any]:
        """What Envoy's own port knows of its listeners or clusters."""
        with urlopen(f"http://{self._admin}/{what}?format=json", timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def healthy(self) -> int:
        """How many servers Envoy sends calls to."""
        (cluster,) = self.asked("clusters")["cluster_statuses"]
        return sum(host["health_status"] == {"eds_health_status": "HEALTHY"} for host in cluster["host_statuses"])

    def channel(self) -> grpc.Channel:
        """A channel over TLS."""
        credentials = grpc.ssl_channel_credentials(self.authority.certificate.read_bytes())
        return grpc.secure_channel(f"localhost:{self.port}", credentials)

    def curl(self, method: str, body: str) -> tuple[int, dict[str, Any]]:
        """Call a method with JSON: the HTTP status, and the answer."""
        url = f"https://localhost:{self.port}/quicksilver.v1.ConverterService/{method}"
        command: list[str | Path] = ["curl", "--silent", "--show-error", "--write-out", "\n%{http_code}"]
        command += [
            "--cacert",
            self.authority.certificate,
            "--header",
            "content-type: application/json",
            "--data",
            body,
        ]
        done = subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=LIMIT_SECONDS)
        answer, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(answer)


def _configuration(directory: Path, servers: list[Serving], certificate: Path, key: Path) -> str:
    """The committed file, with the addresses and paths of this test."""
    text = CONFIGURATION.read_text("utf-8")
    paths = {
        "/etc/envoy/tls/tls.crt": certificate,
        "/etc/envoy/tls/tls.key": key,
        "/etc/envoy/quicksilver.binpb": directory / "quicksilver.binpb",
    }
    for written, used in paths.items():
        assert written in text
        text = text.replace(written, str(used))
    configuration: dict[str, Any] = yaml.safe_load(text)
    (listener,), (cluster,) = (configuration["static_resources"][kind] for kind in ("listeners", "clusters"))
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    configuration["admin"]["address"]["socket_address"]["port_value"] = 0
    cluster["type"] = "STATIC"
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [_endpoint(server.address) for server in servers]
    return json.dumps(configuration)


def _endpoint(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


@contextlib.contextmanager
def _envoy(tools: Path, directory: Path, servers: list[Serving]) -> Iterator[Proxy]:
    authority = Authority(directory, "authority")
    describe: list[str | Path] = [
        sys.executable,
        ROOT / "deploy" / "envoy" / "descriptors.py",
        directory / "quicksilver.binpb",
    ]
    subprocess.run(describe, check=True, cwd=ROOT)
    (directory / "envoy.json").write_text(_configuration(directory, servers, *authority.issue("localhost")))
    command: list[str | Path] = [tools / "envoy", "--config-path", directory / "envoy.json"]
    command += ["--admin-address-path", directory / "admin", "--concurrency", "1", "--disable-hot-restart"]
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--log-level", "warning"], stdout=log, stderr=log)
    try:
        proxy = Proxy(process, directory, authority, servers)
        until(lambda: proxy.healthy() == len(servers), "two healthy servers")
        yield proxy
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def proxy(tools: Path, tmp_path: Path) -> Iterator[Proxy]:
    """Envoy in front of two servers of one repository, both healthy."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", make_artefact())
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(repository.root)) for _ in range(2)]
        yield stack.enter_context(_envoy(tools, tmp_path, servers))


def _convert(channel: grpc.Channel, fahrenheit: float) -> float:
    answer = ConverterServiceStub(channel).Convert(api.ConvertRequest(fahrenheit=[fahrenheit]), timeout=LIMIT_SECONDS)
    return answer.celsius[0]


def _handled(proxy: Proxy) -> list[float]:
    """Calls that each server has ended and counted, which it does a moment after the answer."""
    return [server.metric(HANDLED) for server in proxy.servers]


def test_only_what_may_be_repeated_is_repeated() -> None:
    """After a connection that broke, a conversion is tried again; what changes a model, or a store, is not."""
    (listener,) = yaml.safe_load(CONFIGURATION.read_text("utf-8"))["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    repeated = {
        f"/{service.full_name}/{method.name}"
        for file in (api.DESCRIPTOR, open_inference_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
        if _is_repeated(host["routes"], f"/{service.full_name}/{method.name}")
    }
    assert repeated == REPEATABLE


def _is_repeated(routes: list[dict[str, Any]], path: str) -> bool:
    """Whether the first route that matches tries again what a server may have seen."""
    route = next(route["route"] for route in routes if path.startswith(route["match"]["prefix"]))
    return not {"reset", "unavailable"}.isdisjoint(route["retry_policy"]["retry_on"].split(","))


def test_calls_take_turns(proxy: Proxy) -> None:
    """TLS ends at Envoy, and calls on one connection go to both servers, each of them once."""
    with proxy.channel() as channel:
        assert [_convert(channel, 212) for _ in range(20)] == pytest.approx([100] * 20, abs=1e-3)
    until(lambda: sum(_handled(proxy)) >= 20, "the count of every call")
    assert sum(_handled(proxy)) == 20
    assert min(_handled(proxy)) >= 5  # half each, unless a server was slow to accept, and its turn went to the other


def test_curl_converts_a_temperature(proxy: Proxy) -> None:
    """JSON in, JSON out; a temperature that cannot be is HTTP's 400, and says what is wrong."""
    status, answer = proxy.curl("Convert", '{"model": "linear", "fahrenheit": [32, 212]}')
    assert status == 200
    assert answer["celsius"] == pytest.approx([0, 100], abs=1e-3)
    assert (answer["model"], answer["version"]) == ("linear", "1")
    status, answer = proxy.curl("Convert", '{"fahrenheit": [32, -500]}')
    assert status == 400
    assert "-500" in answer["message"]
    status, answer = proxy.curl("ListModels", "{}")
    assert (status, answer["models"][0]["name"]) == (200, "linear")


def test_a_draining_server_is_left_alone(proxy: Proxy) -> None:
    """Envoy learns over grpc.health.v1 that a server stops, and sends all calls to the other: none fails."""
    first, second = proxy.servers
    with proxy.channel() as channel:
        first.signal(signal.SIGTERM)
        for _ in range(50):
            assert _convert(channel, 212) == pytest.approx(100, abs=1e-3)
        assert first.wait() == 0
        until(lambda: proxy.healthy() == 1, "noticing that a server is gone")
        before = second.metric(HANDLED)
        for _ in range(10):
            _convert(channel, 212)
        # at least: the count of the last call before may have come only now
        until(lambda: second.metric(HANDLED) >= before + 10, "the count of ten more calls")


def test_a_killed_server_fails_no_call(proxy: Proxy) -> None:
    """One of two servers is killed under load: every call is answered, and answered right."""
    answers: list[float] = []
    failures: list[grpc.RpcError] = []
    done = threading.Event()

    def call() -> None:
        with proxy.channel() as channel:
            while not done.is_set():
                try:
                    answers.append(_convert(channel, 212))
                except grpc.RpcError as error:
                    failures.append(error)

    callers = [threading.Thread(target=call, name=f"caller {number}") for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    until(lambda: len(answers) > CALLERS, "load")
    proxy.servers[0].signal(signal.SIGKILL)
    seen = len(answers)
    until(lambda: failures or len(answers) > seen + CALLS_AFTER_THE_KILL, "calls after the kill")
    done.set()
    for caller in callers:
        caller.join()
    assert failures == []
    assert answers == pytest.approx([100] * len(answers), abs=1e-3)
