"""`docker compose up`, for real: the images are built, the stack is started, and it is treated as operators treat one.

`make test-compose` runs these; they take minutes. Grafana is the one service that is not started: no image of it can be
made of Debian's packages.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
import yaml

from service.client import Converter
from service.client_errors import ServerUnavailableError
from tests.e2e.streams import Stream
from tests.e2e.test_readme import blocks
from tests.environments import ROOT, install
from tests.operations.conftest import INSTALL
from tests.operations.engine import Engine, engine
from tests.operations.stand_ins import download_packages, make_images, package_index
from tests.waiting import LIMIT_SECONDS, until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]  # of which the first test makes the images

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
PULLED = [service["image"] for service in COMPOSE["services"].values() if service["image"].startswith("prom/")]
STARTED = ["example", "prometheus", "alertmanager", "pushgateway"]
PYTHON_IMAGE = "python:3.11-slim-bookworm"


class Stack:
    """The services of docker-compose.yml, on an engine of our own."""

    def __init__(self, running: Engine, compose: Path) -> None:
        self._engine, self.program = running, compose
        self.environment = running.environment | {"BIND_ADDRESS": running.engine_address}
        self.grpc_address = f"{running.engine_address}:50051"

    def compose(self, *arguments: str) -> str:
        """Run Docker Compose, and return what it printed on stdout."""
        done = subprocess.run(
            [self.program, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self._last_words()
        return done.stdout

    def up(self) -> None:
        """Start what can be started here."""
        self.compose("up", "--detach", "--no-build", *STARTED)

    def job(self, *words: str) -> str:
        """Run a command of ours in the container that may write the models."""
        return self.compose("run", "--rm", "--no-deps", "job", *words)

    def state(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        name = self.compose("ps", "--all", "--quiet", service).strip()
        described: dict[str, Any] = json.loads(self._engine.docker("inspect", name))[0]
        return described

    def healthy(self, service: str) -> bool:
        """Whether a service passes its own health check."""
        return bool(self.state(service)["State"]["Health"]["Status"] == "healthy")

    def get(self, port: int, path: str) -> Any:  # noqa: ANN401 - whatever JSON says
        """Ask a published HTTP port."""
        with urlopen(f"http://{self._engine.engine_address}:{port}{path}", timeout=10) as response:
            return json.load(response)

    def answer(self, fahrenheit: float, model: str = "linear") -> tuple[float, int]:
        """A conversion through the published port: the answer and the version that made it."""
        with Converter(self.grpc_address, timeout_seconds=LIMIT_SECONDS) as converter:
            answered = converter.convert([fahrenheit], model=model)
            return float(answered.celsius[0]), answered.version

    def drains(self) -> int:
        """How often the server's container has begun to drain; what it said before a restart is in the log, too."""
        return self.compose("logs", "--no-log-prefix", "server").count('"draining"')

    def says(self, service: str, words: str) -> bool:
        """Whether a service's log has the words."""
        return words in self.compose("logs", "--no-log-prefix", service)

    def comes_back(self) -> float:
        """Ask for 50 °F until there is an answer, and return it."""
        answers: list[float] = []

        def answered() -> bool:
            with contextlib.suppress(ServerUnavailableError):
                answers.append(self.answer(50)[0])
            return bool(answers)

        until(answered, "an answer")
        return answers[0]

    def _last_words(self) -> str:
        """What the services said last, for a failure's message."""
        command: list[str | Path] = [self.program, "logs", "--tail", "30"]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout


def _build(running: Engine, arguments: dict[str, str], target: str) -> None:
    options = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    recipe = ROOT / "deploy" / "docker" / "Dockerfile"
    running.docker("build", *options, "--target", target, "--tag", f"quicksilver-{target}", "--file", recipe, ROOT)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that holds our images, built from the Dockerfile as it stands."""
    install(INSTALL, "engine")
    directory = tmp_path_factory.mktemp("compose")
    packages = directory / "packages"
    packages.mkdir()
    with engine(directory / "engine") as started:
        make_images(started, directory, [PYTHON_IMAGE, *PULLED])
        download_packages(packages)
        with package_index(packages, started.test_address) as arguments:
            for target in ("server", "trainer"):
                _build(started, arguments, target)
        yield started


@pytest.fixture(scope="module")
def stack(running: Engine, tools: Path) -> Iterator[Stack]:
    """The stack, up."""
    stack = Stack(running, tools / "docker-compose")
    stack.up()
    yield stack
    stack.compose("down", "--volumes", "--timeout", "20")


def _size_bytes(running: Engine, image: str) -> int:
    return int(running.docker("image", "inspect", "--format", "{{.Size}}", image))


def test_sizes(running: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """The server's image has no PyTorch in it and adds under 300 MB to its base; both sizes are printed."""
    base = _size_bytes(running, PYTHON_IMAGE)
    added = {target: _size_bytes(running, f"quicksilver-{target}") - base for target in ("server", "trainer")}
    with capsys.disabled():
        print("\nadded to the base image:", {target: f"{size / 1e6:.0f} MB" for target, size in added.items()})  # noqa: T201 - as promised
    assert added["server"] < 300e6
    listing = (
        "run",
        "--rm",
        "--entrypoint",
        "ls",
        "quicksilver-server",
        "/opt/quicksilver/lib/python3.11/site-packages",
    )
    packages = running.docker(*listing).split()
    assert "onnxruntime" in packages
    assert not {"torch", "onnx", "matplotlib"} & set(packages)


def test_it_has_answered_a_conversion(stack: Stack) -> None:
    """`docker compose up` trains both models, serves them when they are there, and shows conversions."""
    until(lambda: stack.state("example")["State"]["Status"] == "exited", "the end of the example")
    assert stack.state("example")["State"]["ExitCode"] == 0
    assert "mlp, version 1" in stack.compose("logs", "--no-log-prefix", "example")
    assert stack.state("trainer")["State"]["ExitCode"] == 0
    assert stack.state("server")["State"]["Health"]["Status"] == "healthy"


def test_all_are_healthy(stack: Stack) -> None:
    """Every service that stays passes its own health check, with no right to write outside of its volumes."""
    for service in ("server", "prometheus", "alertmanager", "pushgateway"):
        until(partial(stack.healthy, service), f"health of {service}")
        assert stack.state(service)["HostConfig"]["ReadonlyRootfs"]
        assert stack.state(service)["RestartCount"] == 0 or service == "server"  # which another test kills


def test_a_conversion_from_outside(stack: Stack) -> None:
    """A client that is no container converts through the published port."""
    celsius, _version = stack.answer(50)
    assert celsius == pytest.approx(10, abs=1.5)


def test_prometheus_scrapes_the_server(stack: Stack) -> None:
    """Prometheus finds the server by its name, and has its series."""
    stack.answer(50)

    def rows() -> list[Any]:
        found: list[Any] = stack.get(9090, "/api/v1/query?query=quicksilver_rows_total")["data"]["result"]
        return found

    until(rows, "a scrape of the server")
    assert {series["metric"]["model"] for series in rows()} <= {"linear", "mlp"}


def test_training_jobs_tell_what_they_came_to(stack: Stack) -> None:
    """The trainer's figures reach Prometheus by way of the Pushgateway."""

    def told() -> set[str]:
        found = stack.get(9090, "/api/v1/query?query=quicksilver_training_last_run_timestamp_seconds")
        return {series["metric"]["model"] for series in found["data"]["result"]}

    until(lambda: told() >= {"linear", "mlp"}, "figures of both models")


def test_the_loop_runs_by_itself(stack: Stack) -> None:
    """The profile `retrain`: both of its services look at once, find nothing to do, wait, and end when told to."""
    looked = {"retrain": "the round ended with 0", "promote": "there is no canary"}
    stack.compose("--profile", "retrain", "up", "--detach", "--no-build", "--no-deps", *looked)
    for service, said in looked.items():
        until(partial(stack.says, service, said), f"a look of {service}")
        state = stack.state(service)
        assert (state["State"]["Running"], state["RestartCount"]) == (True, 0), stack.compose("logs", service)
    query = "/api/v1/query?query=quicksilver_training_last_look_timestamp_seconds"
    until(lambda: stack.get(9090, query)["data"]["result"], "the look in Prometheus")
    stack.compose("--profile", "retrain", "stop", *looked)
    assert {service: stack.state(service)["State"]["ExitCode"] for service in looked} == dict.fromkeys(looked, 0)


def test_prometheus_knows_its_alertmanager(stack: Stack) -> None:
    """Rules are loaded without an error, and alerts would arrive."""
    until(lambda: stack.get(9090, "/api/v1/alertmanagers")["data"]["activeAlertmanagers"], "finding Alertmanager")
    groups = stack.get(9090, "/api/v1/rules")["data"]["groups"]
    assert groups
    assert not [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")]


def test_a_new_version_is_served_without_a_restart(stack: Stack) -> None:
    """What the trainer publishes into the volume is loaded, and answers when its label says so."""
    before = stack.state("server")["State"]["StartedAt"]
    celsius, version = stack.answer(212)
    said = stack.job("train", "linear", "--seed", str(version + 7), "--publish", "/models")
    new = int(said.rpartition("published linear/")[2].split()[0])
    assert stack.answer(212) == (celsius, version)
    stack.job("models", "label", "linear", f"stable={new}")
    until(lambda: stack.answer(212)[1] == new, "the new version's answer")
    assert stack.answer(212)[0] != celsius
    assert stack.state("server")["State"]["StartedAt"] == before


def test_a_killed_server_comes_back(stack: Stack) -> None:
    """The engine starts a server that died again, and it answers."""
    until(lambda: stack.state("server")["State"]["Running"], "the server's start")
    before = stack.state("server")
    os.kill(before["State"]["Pid"], signal.SIGKILL)
    until(lambda: stack.state("server")["RestartCount"] > before["RestartCount"], "a restart")
    assert stack.comes_back() == pytest.approx(10, abs=1.5)


def test_a_stop_drains(stack: Stack) -> None:
    """A call in flight is answered after `docker compose stop`, and the server's exit code is 0."""
    with grpc.insecure_channel(stack.grpc_address) as channel:
        stream = Stream(channel, model="linear", timeout_seconds=LIMIT_SECONDS)
        first = stream.convert(50)
        before = stack.drains()
        stop = subprocess.Popen(
            [stack.program, "stop", "server"],
            cwd=ROOT,
            env=stack.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: stack.drains() > before, "the drain")
        assert stream.convert(50) == first
        assert stream.end() is grpc.StatusCode.OK
        assert stop.wait(LIMIT_SECONDS) == 0
    state = stack.state("server")["State"]
    stack.up()
    assert (state["Running"], state["ExitCode"]) == (False, 0)
    assert stack.comes_back() == pytest.approx(10, abs=1.5)


def test_the_volume_survives(stack: Stack) -> None:
    """What was published and labelled is there after `docker compose down`; nothing is trained again."""
    stack.comes_back()
    before = stack.answer(50)
    stack.compose("down", "--timeout", "20")
    stack.up()
    assert stack.comes_back() == before[0]
    assert stack.answer(50) == before
    assert stack.compose("logs", "--no-log-prefix", "trainer").count("already: nothing to do") == 2


def test_the_readmes_commands_work(stack: Stack) -> None:
    """From nothing to nothing, as the README has them, in order; in between, the new version answers."""
    stack.compose("down", "--volumes", "--timeout", "20")
    (block,) = blocks("sh")
    *commands, last = (shlex.split(line, comments=True)[2:] for line in block.splitlines())
    for command in commands:
        # images are there already, and Grafana's cannot be had
        what = [word.replace("--build", "--no-build") for word in command]
        stack.compose(*what, *(STARTED if command[0] == "up" else ()))
    stack.comes_back()
    until(lambda: stack.answer(50)[1] == 2, "the second version's answer")
    stack.compose(*last)
    assert stack.compose("ps", "--quiet") == ""
    stack.up()


def test_containers_are_confined(stack: Stack) -> None:
    """The server runs as nobody in particular, without capabilities, and can write neither its root nor the models."""
    status = stack.compose("exec", "--no-TTY", "server", "cat", "/proc/1/status")
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == ["10001"] * 4
    assert (int(lines["CapBnd"], 16), lines["NoNewPrivs"]) == (0, "1")
    for path in ("/opt/quicksilver/new", "/models/new", "/new"):
        with pytest.raises(AssertionError, match="Read-only file system"):
            stack.compose("exec", "--no-TTY", "server", "touch", path)
    assert stack.state("server")["HostConfig"]["Memory"] == 1 << 30
