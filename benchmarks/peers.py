"""The servers that are measured: how each is started, what it speaks, and the configuration it is given.

A peer is configured as its own documentation advises for throughput on one core. Where that leaves a choice that
decides (Triton's batching and instances), every choice is run and the best one of each workload is compared with.
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import wire
from benchmarks.plan import CORE, ECHO, JSON, OURS, PLAIN, SHORT, Call, Workload
from benchmarks.process import free_port
from benchmarks.wire import MODEL, Exchange

SERVERS: Final = Path(__file__).parent / "servers"
MakeExchange = Callable[[Path, int], Exchange]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server needs to be started: the environments, the models, and a directory of its own to write to."""

    environments: Path
    repository: Path
    scratch: Path

    @property
    def model_file(self) -> Path:
        """The model that everybody serves."""
        return self.repository / MODEL / "1" / "model.onnx"

    def program(self, environment: str, name: str = "python") -> str:
        """A program of an environment."""
        return str(self.environments / environment / "bin" / name)

    def site_packages(self, environment: str) -> Path:
        """Where an environment's packages lie."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.environments / environment / "lib" / version / "site-packages"


@dataclass(frozen=True, slots=True)
class Launch:
    """A server about to be started."""

    command: list[str]
    address: str
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """One row of the table."""

    key: str
    title: str
    family: str
    """Servers of one family are the same product in other configurations; the best of them stands for it."""
    environment: str
    configuration: str
    launch: Callable[[Setup], Launch]
    workloads: tuple[Workload, ...]
    exchanges: Mapping[Call, MakeExchange] = field(default_factory=lambda: {"infer": wire.infer})
    needs: str = "bin/python"
    """The file that must be in the environment for the server to be there."""
    installed_by: str = ""
    """What benchmarks/install.sh is told, where that is not the environment's name."""
    start_seconds: float = 30.0
    rounds: int | None = None
    """How many rounds it takes part in; None: all."""


def missing(server: Server, environments: Path) -> str | None:
    """Why a server cannot be run here, or None."""
    if (environments / server.environment / server.needs).exists():
        return None
    return f"it is not installed (benchmarks/install.sh {server.installed_by or server.environment})"


# Ours -----------------------------------------------------------------------------------------------------------------


def quicksilver(transport: str, *more: str) -> Callable[[Setup], Launch]:
    """Start our server on a front, with more flags if any."""

    def launch(setup: Setup) -> Launch:
        address = f"127.0.0.1:{free_port()}"
        options = ["--repository", str(setup.repository), "--listen", address, "--http-listen", "127.0.0.1:0"]
        command = [setup.program("quicksilver", "quicksilver"), "serve", *options, "--transport", transport]
        return Launch([*command, "--log-level", "warning", *more], address, directory=setup.scratch)

    return launch


def _echo(setup: Setup) -> Launch:
    port = free_port()
    command = [setup.program("quicksilver"), str(SERVERS / "echo.py"), str(port)]
    return Launch(command, f"127.0.0.1:{port}", directory=setup.scratch)


def _cpp_echo(setup: Setup) -> Launch:
    port = free_port()
    return Launch([setup.program("cpp", "echo"), str(port)], f"127.0.0.1:{port}")


# Peers ----------------------------------------------------------------------------------------------------------------


def _plain(kind: str) -> Callable[[Setup], Launch]:
    def launch(setup: Setup) -> Launch:
        port = free_port()
        script = [setup.program("grpcio"), str(SERVERS / "plain_grpcio.py")]
        stubs = {"PYTHONPATH": str(setup.environments / "grpcio" / "stubs")}
        return Launch([*script, str(setup.model_file), str(port), kind], f"127.0.0.1:{port}", stubs)

    return launch


TRITON_CONFIGURATION: Final = """\
name: "{model}"
backend: "{backend}"
max_batch_size: {max_batch}
input [{{ name: "fahrenheit" data_type: TYPE_FP32 dims: [ 1 ] }}]
output [{{ name: "celsius" data_type: TYPE_FP32 dims: [ 1 ] }}]
instance_group [{{ kind: KIND_CPU count: {instances} }}]
{batching}{parameters}"""
_ONE_THREAD: Final = 'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }\n'


def triton_configuration(backend: str, *, batching: bool, instances: int) -> str:
    """The text of a config.pbtxt. Rows are Triton's batch dimension, so that it may join requests."""
    return TRITON_CONFIGURATION.format(
        model=MODEL,
        backend=backend,
        max_batch=1 << 20,
        instances=instances,
        batching="dynamic_batching { }\n" if batching else "",
        parameters=_ONE_THREAD if backend == "onnxruntime" else "",
    )


def _triton(backend: str, *, batching: bool, instances: int) -> Callable[[Setup], Launch]:
    def launch(setup: Setup) -> Launch:
        repository = setup.scratch / "triton"
        version = repository / MODEL / "1"
        version.mkdir(parents=True)
        shutil.copy(setup.model_file, version / "model.onnx")
        if backend == "python":
            shutil.copy(SERVERS / "triton_python_model.py", version / "model.py")
            shutil.copy(SERVERS / "onnx_model.py", version)
        text = triton_configuration(backend, batching=batching, instances=instances)
        (repository / MODEL / "config.pbtxt").write_text(text, "utf-8")
        home = setup.site_packages("triton") / "pytriton" / "tritonserver"
        if backend == "onnxruntime":
            backends = setup.environments / "triton" / "backends"
        else:
            backends = _python_backend(setup, home)
        port = free_port()
        command = [
            str(home / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            f"--grpc-port={port}",
            "--allow-http=0",
            "--allow-metrics=0",
        ]
        path = f"{setup.environments / 'triton' / 'bin'}:/usr/bin:/bin"
        packages = setup.site_packages("triton")
        libraries = str(packages / "nvidia_pytriton.libs")  # those of the Python backend's own process
        environment = {"PYTHONPATH": str(packages), "PATH": path, "LD_LIBRARY_PATH": libraries}
        return Launch(command, f"127.0.0.1:{port}", environment)

    return launch


def _python_backend(setup: Setup, home: Path) -> Path:
    """A directory of backends with the Python backend and its stub for this Python, which lie apart in the wheel."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = setup.scratch / "backends" / "python"
    shutil.copytree(home / "backends" / "python", target)
    shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", target)
    return target.parent


def _mlserver(setup: Setup) -> Launch:
    port = free_port()
    home = setup.scratch / "mlserver"
    home.mkdir()
    settings = {
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "grpc_max_message_length": 64 << 20,
        "debug": False,
    }
    model = {
        "name": MODEL,
        "implementation": "mlserver_model.Converter",
        "parameters": {"uri": str(setup.model_file)},
    }
    (home / "settings.json").write_text(json.dumps(settings), "utf-8")
    (home / "model-settings.json").write_text(json.dumps(model), "utf-8")
    command = [setup.program("mlserver", "mlserver"), "start", str(home)]
    return Launch(command, f"127.0.0.1:{port}", {"PYTHONPATH": str(SERVERS)})


def _kserve(setup: Setup) -> Launch:
    port = free_port()
    script = [setup.program("kserve"), str(SERVERS / "kserve_server.py")]
    return Launch([*script, str(setup.model_file), str(port), str(free_port())], f"127.0.0.1:{port}")


def _ray_serve(setup: Setup) -> Launch:
    port = free_port()
    script = [setup.program("ray_serve"), str(SERVERS / "ray_server.py")]
    environment = {
        "PYTHONPATH": f"{setup.environments / 'ray_serve' / 'stubs'}:{SERVERS}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return Launch([*script, str(setup.model_file), str(port), str(free_port())], f"127.0.0.1:{port}", environment)


def _litserve(setup: Setup) -> Launch:
    port = free_port()
    script = [setup.program("litserve"), str(SERVERS / "litserve_server.py")]
    return Launch([*script, str(setup.model_file), str(port)], f"127.0.0.1:{port}", directory=setup.scratch)


def _bentoml(setup: Setup) -> Launch:
    port = free_port()
    home = setup.scratch / "bentoml"
    home.mkdir()
    for name in ("bentoml_service.py", "onnx_model.py"):
        shutil.copy(SERVERS / name, home)
    command = [setup.program("bentoml", "bentoml"), "serve", "bentoml_service:Converter", "--port", str(port)]
    environment = {
        "BENCHMARK_MODEL": str(setup.model_file),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(home / "home"),
        "PATH": f"{setup.environments / 'bentoml' / 'bin'}:/usr/bin:/bin",
    }
    return Launch([*command, "--host", "127.0.0.1"], f"127.0.0.1:{port}", environment, home)


_OURS: Final[Mapping[Call, MakeExchange]] = {
    "infer": wire.infer,
    "convert": wire.convert,
    "stream": wire.convert_stream,
}


def _triton_onnxruntime(key: str, *, batching: bool, instances: int) -> Server:
    words = f"{'dynamic' if batching else 'no'} batching, {instances} instance{'s' if instances > 1 else ''}"
    return Server(
        key=key,
        title=f"Triton, {words}",
        family="triton",
        environment="triton",
        configuration=f"Triton 2.51, its ONNX Runtime backend (r24.10), {words}, 1 thread a run; no HTTP, no metrics",
        launch=_triton("onnxruntime", batching=batching, instances=instances),
        workloads=CORE,
        needs="backends/onnxruntime/libtriton_onnxruntime.so",
        installed_by="triton-onnxruntime",
        exchanges={"infer": wire.infer, "stream": wire.infer_stream},
    )


QUICKSILVER: Final = Server(
    key="quicksilver",
    title="Quicksilver",
    family="quicksilver",
    environment="quicksilver",
    configuration="`quicksilver serve --transport http2` as shipped: metrics, limits and deadlines on",
    launch=quicksilver("http2"),
    workloads=OURS,
    exchanges=_OURS,
)
QUICKSILVER_GRPCIO: Final = Server(
    key="quicksilver_grpcio",
    title="Quicksilver, grpcio front",
    family="quicksilver_grpcio",
    environment="quicksilver",
    configuration="`quicksilver serve --transport grpcio` as shipped: metrics, limits and deadlines on",
    launch=quicksilver("grpcio"),
    workloads=OURS,
    exchanges=_OURS,
)
ECHO_SERVER: Final = Server(
    key="echo",
    title="Echo on Quicksilver's front",
    family="echo",
    environment="quicksilver",
    configuration="a limit, not a server: the front answers each call with the bytes that came",
    launch=_echo,
    workloads=ECHO,
    exchanges={"infer": wire.echo},
)

ALL: Final = (
    QUICKSILVER,
    QUICKSILVER_GRPCIO,
    Server(
        key="grpcio_threads",
        title="plain grpcio, threads",
        family="grpcio",
        environment="grpcio",
        configuration="`grpc.server`, generated stubs, a pool of 10 threads, one ONNX Runtime run a request",
        launch=_plain("threads"),
        workloads=PLAIN,
    ),
    Server(
        key="grpcio_asyncio",
        title="plain grpcio, asyncio",
        family="grpcio",
        environment="grpcio",
        configuration="`grpc.aio.server`, generated stubs, one ONNX Runtime run a request",
        launch=_plain("asyncio"),
        workloads=PLAIN,
    ),
    _triton_onnxruntime("triton_1", batching=False, instances=1),
    _triton_onnxruntime("triton_2", batching=False, instances=2),
    _triton_onnxruntime("triton_1_batching", batching=True, instances=1),
    _triton_onnxruntime("triton_2_batching", batching=True, instances=2),
    Server(
        key="triton_python",
        title="Triton, Python backend",
        family="triton_python",
        environment="triton",
        configuration="Triton 2.51, its Python backend, dynamic batching on, 1 instance, one ONNX Runtime run a batch",
        launch=_triton("python", batching=True, instances=1),
        workloads=PLAIN,
    ),
    Server(
        key="mlserver",
        title="MLServer",
        family="mlserver",
        environment="mlserver",
        configuration="MLServer with a custom runtime over gRPC, `parallel_workers` 0 (no second process on one core)",
        launch=_mlserver,
        workloads=SHORT,
        rounds=2,
    ),
    Server(
        key="kserve",
        title="KServe ModelServer",
        family="kserve",
        environment="kserve",
        configuration="KServe's ModelServer over gRPC, 1 worker, binary outputs",
        launch=_kserve,
        workloads=SHORT,
        rounds=2,
    ),
    Server(
        key="litserve",
        title="LitServe (HTTP)",
        family="litserve",
        environment="litserve",
        configuration="LitServe over HTTP and JSON (it has no gRPC), 1 worker, `fast_queue`, batches up to 64",
        launch=_litserve,
        workloads=JSON,
        exchanges={"infer": wire.litserve},
        rounds=2,
    ),
    Server(
        key="bentoml",
        title="BentoML (HTTP)",
        family="bentoml",
        environment="bentoml",
        configuration="BentoML over HTTP and JSON, 1 worker, adaptive batching",
        launch=_bentoml,
        workloads=JSON,
        exchanges={"infer": wire.bentoml},
        rounds=2,
    ),
    Server(
        key="ray_serve",
        title="Ray Serve",
        family="ray_serve",
        environment="ray_serve",
        configuration="Ray Serve's gRPC ingress with generated stubs, 1 replica",
        launch=_ray_serve,
        workloads=SHORT,
        start_seconds=90.0,
        rounds=1,
    ),
    ECHO_SERVER,
    Server(
        key="cpp_echo",
        title="Echo on C++ gRPC",
        family="cpp_echo",
        environment="cpp",
        configuration="a limit, not a server: gRPC 1.51 for C++, callback API, answers with the bytes that came",
        launch=_cpp_echo,
        workloads=ECHO,
        exchanges={"infer": wire.echo},
        needs="bin/echo",
    ),
)
