"""Foreign clients, unchanged, each in an environment and a process of its own, against both fronts."""

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proto.repository import Repository
from service.config import Settings
from service.server import Server
from service.workers.supervisor import Supervisor
from tests.clients.oracle import READINGS_FAHRENHEIT, celsius, inside
from tests.environments import ROOT, install
from tests.service.artefacts import make_artefact
from tests.service.open_inference.conftest import publish_any

HERE = ROOT / "tests" / "clients"
ENVIRONMENTS = ROOT / ".venv-clients"

pytestmark = pytest.mark.timeout(900)  # the first run installs: kserve alone takes minutes


@pytest.fixture(scope="session")
def installed() -> Callable[[str], Path]:
    """Installs a client where it is not there yet, and returns its directory; skips by name where it cannot be had."""

    def client(name: str) -> Path:
        install(HERE / "install.sh", name)
        return ENVIRONMENTS / name

    return client


@pytest.fixture(scope="module", params=["http2", "grpcio"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server listens that holds models of every kind, and lets callers load and unload."""
    server = Server(_settings(tmp_path_factory.mktemp("clients") / "models", transport=request.param))
    server.start()
    yield server.address
    server.stop()


@pytest.fixture
def address_of_two_workers(tmp_path: Path) -> Iterator[str]:
    """The same with two workers."""
    supervisor = Supervisor(_settings(tmp_path / "models", workers=2))
    supervisor.start()
    yield supervisor.address
    supervisor.stop()


def _settings(models: Path, **chosen: Any) -> Settings:  # noqa: ANN401 - any setting
    repository = Repository(models)
    publish_any(repository)
    return Settings(
        repository=models,
        listen="127.0.0.1:0",
        http_listen="127.0.0.1:0",
        model_control="explicit",
        load_models=",".join(repository.names()),
        **chosen,
    )


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tritonclient(installed: Callable[[str], Path], address: str, tmp_path: Path) -> None:
    """Every method it has for what we serve, sync, asyncio and stream."""
    model = tmp_path / "model.onnx"
    model.write_bytes(make_artefact())
    said = _run(installed("triton") / "bin" / "python", HERE / "triton_client.py", address, model)
    assert said == "tritonclient: all as it should be\n"


def test_tritonclient_finds_one_server_behind_two_workers(
    installed: Callable[[str], Path], address_of_two_workers: str, tmp_path: Path
) -> None:
    """Its counts, settings, loads and unloads are those of all, on whichever connection it asks."""
    test_tritonclient(installed, address_of_two_workers, tmp_path)


def test_kserve(installed: Callable[[str], Path], address: str) -> None:
    """Its InferenceGRPCClient, raw and typed."""
    said = _run(installed("kserve") / "bin" / "python", HERE / "kserve_client.py", address)
    assert said.endswith("kserve: all as it should be\n")


def test_node(installed: Callable[[str], Path], address: str) -> None:
    """@grpc/grpc-js, with messages that it reads from our .proto file at run time."""
    directory = installed("node")
    (directory / "client.js").write_text((HERE / "node" / "client.js").read_text())
    assert _run("node", directory / "client.js", address, ROOT) == "grpc-js: all as it should be\n"


def test_cpp(installed: Callable[[str], Path], address: str) -> None:
    """Debian's libgrpc++, of another year than our grpcio."""
    assert _run(installed("cpp") / "client", address) == "C++: all as it should be\n"


def test_grpcurl(installed: Callable[[str], Path], address: str) -> None:
    """grpcurl, which knows our messages through reflection alone."""
    grpcurl = installed("grpcurl") / "bin" / "grpcurl"
    listed = _run(grpcurl, "-plaintext", address, "list").split()
    assert {"inference.GRPCInferenceService", "quicksilver.v1.ConverterService"} <= set(listed)
    tensor: dict[str, object] = {"name": "fahrenheit", "datatype": "FP32", "shape": [len(READINGS_FAHRENHEIT), 1]}
    tensor["contents"] = {"fp32_contents": READINGS_FAHRENHEIT}
    outputs = [{"name": "celsius"}, {"name": "extrapolated"}]
    asked = json.dumps({"model_name": "linear", "id": "17", "inputs": [tensor], "outputs": outputs})
    said = _run(grpcurl, "-plaintext", "-d", asked, address, "inference.GRPCInferenceService/ModelInfer")
    answer = json.loads(said)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("linear", "1", "17")
    given = answer["outputs"][0]["contents"]["fp32_contents"]
    assert all(
        math.isclose(value, celsius(reading), abs_tol=1e-4)
        for value, reading in zip(given, READINGS_FAHRENHEIT, strict=True)
    )
    flags = answer["outputs"][1]["contents"]["bool_contents"]
    assert flags == [not inside(reading) for reading in READINGS_FAHRENHEIT]
    failed = subprocess.run(
        [grpcurl, "-plaintext", "-d", '{"name": "absent"}', address, "inference.GRPCInferenceService/ModelMetadata"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Code: NotFound" in failed.stderr
