"""Real servers under load, and Debian's Prometheus, Alertmanager and Pushgateway that watch them in shortened time."""

import contextlib
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np

from proto.artefact import Histogram
from proto.observation import Observation
from proto.repository import Repository
from proto.traffic import CanaryTraffic
from service.client import Converter
from service.client_errors import InvalidRequestError
from tests.e2e.processes import Serving, serving
from tests.environments import free_port
from tests.operations.debian import beside_its_data
from tests.operations.monitoring.promql import ROOT, RULES
from tests.operations.monitoring.shortened import call_webhook, point_prometheus, shorten_rules
from tests.service.artefacts import describe, exact_celsius, make_artefact
from tests.waiting import LIMIT_SECONDS, answers, until

PAUSE_SECONDS: Final = 0.02
"""Between two rounds of calls: load enough for every rate, and time left for the rest of the machine."""

REFERENCE: Final = Histogram(edges=(20.0, 40.0, 60.0, 82.0), counts=(300, 500, 300))
"""What the models say they were trained on; with over 100 rows drift is looked at."""

Program = Callable[[str], Path]


def usual(rows: int, rng: np.random.Generator) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Readings in °F that are distributed as the reference."""
    bins = rng.choice(3, rows, p=np.asarray(REFERENCE.counts) / sum(REFERENCE.counts))
    edges = np.asarray(REFERENCE.edges)
    return rng.uniform(edges[bins] + 0.01, edges[bins + 1] - 0.01).clip(22.0, 81.5)


def make_model(offset_celsius: float = 0.0) -> bytes:
    """A converter with a reference that carries drift; the offset tells versions apart."""
    described = describe()
    (column,) = described.columns
    large = replace(described, columns=(replace(column, histogram=REFERENCE),), dataset_rows=sum(REFERENCE.counts))
    return make_artefact(large, offset_celsius=offset_celsius)


class Webhook:
    """Takes what Alertmanager sends, and remembers each alert that was firing."""

    def __init__(self) -> None:
        self._told = threading.Condition()
        self._alerts: list[dict[str, str]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name the library calls it by
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook")
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def take(self, message: Mapping[str, Any]) -> None:
        """Remember what is firing."""
        with self._told:
            self._alerts += [alert["labels"] for alert in message["alerts"] if alert["status"] == "firing"]
            self._told.notify_all()

    def alerts(self) -> list[dict[str, str]]:
        """The labels of what was firing, in the order in which it was told."""
        with self._told:
            return list(self._alerts)

    def wait_for(self, **labels: str) -> None:
        """Wait until an alert with these labels was told of."""
        with self._told:
            come = self._told.wait_for(
                lambda: any(labels.items() <= alert.items() for alert in self._alerts), LIMIT_SECONDS
            )
            assert come, f"no alert {labels}; there were {self._alerts}"

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Load:
    """Callers who convert, err and report, until they are stopped: of each model, with inputs moved by so many °F."""

    def __init__(self, address: str, models: Mapping[str, float]) -> None:
        self._address = address
        self._models = models
        self._name = uuid.uuid4().hex
        self._stopping = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        rng = np.random.default_rng(7)
        try:
            with Converter(self._address) as converter:
                for turn in range(10**9):
                    if self._stopping.wait(PAUSE_SECONDS):
                        return
                    for model, shift in self._models.items():
                        self._convert(converter, model, usual(32, rng) + shift, f"{self._name}-{model}-{turn}")
        except BaseException as error:  # noqa: BLE001 - told to whoever stops the load
            self._failed = error

    def _convert(
        self, converter: Converter, model: str, fahrenheit: "np.ndarray[Any, np.dtype[np.float64]]", name: str
    ) -> None:
        converter.convert(fahrenheit, model=model, interval=True, request_id=name)
        with contextlib.suppress(InvalidRequestError):
            converter.convert(float("nan"), model=model)
        now = time.time()
        reported = [
            Observation(
                id=f"{name}-{row}",
                fahrenheit=float(np.float32(fahrenheit[row])),
                celsius=exact_celsius(float(fahrenheit[row])) + 0.5,
                observed_at_seconds=now,
                source="test",
                request_id=name,
                row=row,
            )
            for row in range(2)
        ]
        converter.report(reported)


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything that runs, and how it is asked."""

    repository: Repository
    server: Serving
    doomed: Serving
    """A second server, of a job's two, that a test may kill."""
    prometheus: str
    pushgateway: str
    """Its URL: jobs push there."""
    store: str
    """The URL of the observations."""
    webhook: Webhook
    started_seconds: float
    """Since then it is watched, in Unix time."""

    def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - the API's JSON
        """Ask Prometheus' API, and return what the answer holds."""
        with urlopen(f"http://{self.prometheus}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as response:
            return json.load(response)["data"]

    def series(self, expression: str, *, instant: bool = False) -> list[dict[str, Any]]:
        """The series of an expression that have a number, now or at any time since the start."""
        if instant:
            result = self.ask("query", query=expression)["result"]
            return [one for one in result if one["value"][1] != "NaN"]
        over = {"start": str(self.started_seconds), "end": str(time.time()), "step": "500ms"}
        result = self.ask("query_range", query=expression, **over)["result"]
        return [one for one in result if any(value != "NaN" for _, value in one["values"])]


@contextlib.contextmanager
def running(program: Program, directory: Path) -> Iterator[Stack]:
    """Start it all, and end it all."""
    with contextlib.ExitStack() as ending:
        started_seconds = time.time()
        repository = _publish(directory / "models")
        store = f"sqlite:///{directory / 'observations.db'}"
        quick = ("--default-model", "linear", "--watch-interval-seconds", "0.2")
        server = ending.enter_context(serving(repository.root, "--workers", "2", "--observations", store, *quick))
        doomed = ending.enter_context(serving(repository.root, *quick))
        webhook = Webhook()
        ending.callback(webhook.close)
        addresses = _watch(program, directory, [server.http_address, doomed.http_address], webhook, ending)
        # the drift of `shifted` is looked at by the test that moves its inputs
        ending.enter_context(Load(server.address, {"linear": 0.0, "mlp": 0.0}))
        pushgateway = f"http://{addresses['pushgateway']}"
        yield Stack(repository, server, doomed, addresses["prometheus"], pushgateway, store, webhook, started_seconds)


def _publish(root: Path) -> Repository:
    """Models with a canary that answers a share, with one in the shadow, and one that a test may ask what it likes."""
    repository = Repository(root)
    for name in ("linear", "mlp", "shifted"):
        repository.publish(name, make_model())
    for name in ("linear", "mlp"):
        repository.publish(name, make_model(0.25))
        repository.set_label(name, "canary", 2)
    repository.set_canary_traffic("linear", CanaryTraffic(shadow=True))
    repository.set_canary_traffic("mlp", CanaryTraffic(share=0.5))
    return repository


def _watch(
    program: Program, directory: Path, servers: Sequence[str], webhook: Webhook, ending: contextlib.ExitStack
) -> dict[str, str]:
    """Start Alertmanager, Pushgateway and Prometheus as they are shipped, and return their addresses."""
    shipped = ROOT / "deploy" / "prometheus"
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("prometheus", "alertmanager", "pushgateway")}
    shorten_rules(RULES, directory / "rules")
    (directory / "prometheus.yml").write_text(
        point_prometheus((shipped / "prometheus.yml").read_text("utf-8"), servers=servers, **addresses), "utf-8"
    )
    (directory / "alertmanager.yml").write_text(
        call_webhook((shipped / "alertmanager.yml").read_text("utf-8"), webhook.url), "utf-8"
    )
    start = _Starter(directory, ending)
    start(
        program("prometheus-alertmanager"),
        f"--config.file={directory / 'alertmanager.yml'}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address={addresses['alertmanager']}",
        "--cluster.listen-address=",
        before=beside_its_data("prometheus-alertmanager"),  # its templates
    )
    start(program("prometheus-pushgateway"), f"--web.listen-address={addresses['pushgateway']}")
    start(
        program("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'prometheus'}",
        f"--web.listen-address={addresses['prometheus']}",
    )
    for address in addresses.values():
        until(partial(answers, f"http://{address}/-/ready"), f"http://{address}/-/ready")
    return addresses


class _Starter:
    """Starts programs that write into one log each, and are killed at the end."""

    def __init__(self, directory: Path, ending: contextlib.ExitStack) -> None:
        self._directory = directory
        self._ending = ending

    def __call__(self, file: Path, *arguments: str, before: Sequence[str] = ()) -> None:
        log = self._ending.enter_context((self._directory / f"{file.name}.log").open("w"))
        process = subprocess.Popen([*before, file, *arguments], stdout=log, stderr=log)
        self._ending.callback(process.wait)
        self._ending.callback(process.kill)
