"""A real PostgreSQL is killed under a real server: it goes on converting, and nothing that was acknowledged is lost."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from proto.observation import Observation
from proto.observations import ObservationStore
from proto.repository import Repository
from service.client import Converter, ServerUnavailableError
from tests.databases.postgres import Postgres
from tests.e2e.closed_loop.callers import Load, Reporter
from tests.e2e.processes import Serving, serving
from tests.service.artefacts import make_artefact
from tests.thermometer import Thermometer, observe
from tests.waiting import until

KILLS = 3
STEP_ROWS = 1000
ROWS = KILLS * STEP_ROWS
REFUSAL = "the store of observations failed; send them again: none is known to be stored"


@pytest.fixture
def url(postgres: Postgres) -> str:
    """An empty database."""
    return postgres.new_database()


@pytest.fixture
def server(tmp_path: Path, url: str) -> Iterator[Serving]:
    """A server that stores there."""
    Repository(tmp_path / "models").publish("linear", make_artefact())
    with serving(tmp_path / "models", "--observations", url) as server:
        yield server


@pytest.fixture
def load(server: Serving) -> Iterator[Load]:
    """Conversions without pause."""
    load = Load(server.address, lambda: np.array([32.0, 50.0, 68.0], np.float32))
    yield load
    load.stop()


@pytest.fixture
def reporter(server: Serving) -> Iterator[Reporter]:
    """Streams observations, again and again until they are acknowledged."""
    reporter = Reporter(server.address)
    yield reporter
    reporter.close()


class Outages:
    """Kills the database, and brings it back when a report was refused and conversions went on without it."""

    def __init__(self, postgres: Postgres, load: Load) -> None:
        self.count = 0
        self.said: list[str] = []
        self._postgres = postgres
        self._load = load
        self._is_away = False

    def begin(self) -> None:
        """Kill it."""
        self.count += 1
        self._is_away = True
        self._postgres.kill()

    def end(self, refusal: str) -> None:
        """Bring it back where it is away; the first report afterwards may still find a connection that is gone."""
        self.said.append(refusal)
        if not self._is_away:
            return
        answers = self._load.answers
        until(lambda: self._load.answers > answers + 20, "conversions without the database")
        self._postgres.start()
        self._is_away = False


def _observations() -> list[Observation]:
    return observe(Thermometer(), (0.0, 1.0), ROWS, start_seconds=1e9)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 15))])
def test_nothing_acknowledged_is_lost(postgres: Postgres, url: str, load: Load, reporter: Reporter, seed: int) -> None:
    """Kill -9 in the middle of a stream of reports, three times: no call of a steady load fails or is asked again."""
    outages = Outages(postgres, load)
    reporter.on_refusal = outages.end
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    reporter.faults = [
        (STEP_ROWS * number + chance.randint(1, STEP_ROWS // 2), outages.begin) for number in range(KILLS)
    ]
    reporter.report(_observations())
    load.stop()
    assert outages.count == KILLS
    assert set(outages.said) == {REFUSAL}
    assert (load.failures, load.repeated) == ([], 0)
    with ObservationStore.open(url) as store:
        stored = {one.id: one.reported() for one in store.observations()}
    assert reporter.acknowledged == stored.keys()
    assert stored == reporter.sent


def test_a_single_report_is_refused_and_taken_again(postgres: Postgres, url: str, server: Serving) -> None:
    """While the database is away a report is UNAVAILABLE, and the message says what to do; conversions go on."""
    one, other = _observations()[:2]
    with Converter(server.address) as converter:
        assert converter.report([one]).accepted == 1
        with postgres.killed():
            with pytest.raises(ServerUnavailableError, match=REFUSAL):
                converter.report([other])
            assert converter.convert(50.0).version == 1
        until(lambda: _taken(converter, [one, other]), "reports with the database back")
    with ObservationStore.open(url) as store:
        assert sorted(store.read().id) == sorted([one.id, other.id])


def _taken(converter: Converter, observations: list[Observation]) -> bool:
    try:
        return sum(converter.report(observations)) == len(observations)
    except ServerUnavailableError:
        return False
