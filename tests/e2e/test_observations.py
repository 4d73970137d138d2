"""Observations of real processes: killed while they store, several behind one port, and from the command line."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from proto.observations import ObservationStore
from proto.repository import Repository
from service.client import Converter, ConverterError, Observation
from tests.e2e.processes import ENVIRONMENT, Serving, quicksilver, serving
from tests.service.artefacts import exact_celsius, make_artefact
from tests.waiting import until

BEGAN_SECONDS = time.time() - 3600
GROUP = 5


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """`linear` in one version."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", make_artefact())
    return repository


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of SQLite."""
    return f"sqlite:///{tmp_path}/observations.db"


def _group(number: int, *, request_id: str | None = None) -> list[Observation]:
    """Observations that the exact law is 0.5 °C off from."""
    return [
        Observation(
            f"g{number}-{row}",
            40.0 + row,
            exact_celsius(40.0 + row) - 0.5,
            BEGAN_SECONDS + number,
            f"bench-{number % 3}",
            request_id,
            None if request_id is None else row,
        )
        for row in range(GROUP)
    ]


def _follows(converter: Converter, observations: int) -> bool:
    return converter.model().live_quality.observations == observations


def _report_until_killed(server: Serving, numbers: Iterator[int], after: int) -> list[int]:
    """Report group after group, kill the server after so many, and return those that were answered."""
    answered: list[int] = []
    with Converter(server.address, timeout_seconds=5) as converter:
        for number in numbers:
            if len(answered) == after:
                server.signal(signal.SIGKILL)
            try:
                converter.report(_group(number))
            except ConverterError:
                break
            answered.append(number)
    server.signal(signal.SIGKILL)  # also where a report failed before
    return answered


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 15))])
def test_a_server_killed_anywhere_loses_no_observation_it_acknowledged(
    repository: Repository, url: str, seed: int
) -> None:
    """Kill -9 in the middle of reports, three times on one store: every group that was answered is there, whole."""
    chance = random.Random(seed)  # noqa: S311 - a moment, not a secret
    numbers = iter(range(1_000_000))
    answered: list[int] = []
    for _ in range(3):
        with serving(repository.root, "--observations", url) as server:
            answered += _report_until_killed(server, numbers, chance.randint(0, 40))
            assert server.wait() == -signal.SIGKILL
    with ObservationStore.open(url) as store:
        stored = set(store.read().id)
    assert {one.id for number in answered for one in _group(number)} <= stored
    assert len(stored) % GROUP == 0


def test_workers_count_once_and_join_what_another_answered(repository: Repository, url: str) -> None:
    """Whichever worker is asked: answers of one are joined to reports to another, and no figure counts twice."""
    with serving(repository.root, "--observations", url, "--workers", "2") as server:
        for number in range(20):  # a connection of its own each: they are spread over the workers
            with Converter(server.address) as asking, Converter(server.address) as reporting:
                asking.convert([one.fahrenheit for one in _group(number)], request_id=f"r{number}")
                reporting.report(_group(number, request_id=f"r{number}"))
        series = '{model="linear",version="1"}'
        with ObservationStore.open(url) as store:
            until(lambda: store.stats().joined == 20 * GROUP, "all observations to be joined")
        until(
            lambda: server.metric(f"quicksilver_live_observations{series}") == 20 * GROUP,
            "all observations to be followed",
        )
        assert server.metric('quicksilver_observations_total{result="accepted"}') == 20 * GROUP
        assert server.metric(f"quicksilver_live_mae_celsius{series}") == pytest.approx(0.5, abs=1e-4)
        for _ in range(4):
            with Converter(server.address) as converter:
                until(partial(_follows, converter, 20 * GROUP), "the worker to follow all")


def test_conversions_go_on_while_a_job_on_the_store_is_killed(repository: Repository, url: str, tmp_path: Path) -> None:
    """Kill -9 of an import at seeded moments: no call fails, the file can be imported again, and nothing is doubled."""
    file = tmp_path / "observations.csv"
    lines = [f"{one.id},{one.fahrenheit},{one.celsius},{one.observed_at_seconds},{one.source}" for one in _many(6000)]
    file.write_text("\n".join(["id,fahrenheit,celsius,observed_at_seconds,source", *lines]))
    with (
        serving(repository.root, "--observations", url) as server,
        Converter(server.address) as converter,
        ObservationStore.open(url) as store,
    ):
        for enough in (1, 2500):
            command = [sys.executable, "-m", "quicksilver", "observations", "import", str(file), "--store", url]
            job = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
            while job.poll() is None and store.mark() < enough:
                assert converter.convert(50.0).version == 1
            job.kill()
            job.wait()
        done = quicksilver("observations", "import", str(file), "--server", server.address)
        assert done.returncode == 0, done.stderr
        stats = quicksilver("observations", "stats", QUICKSILVER_OBSERVATIONS=url)
        assert stats.stdout.startswith("6000 observations from "), stats


def _many(count: int) -> list[Observation]:
    return [one for number in range(count // GROUP) for one in _group(number)]
