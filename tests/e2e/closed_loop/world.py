"""The world of the loop: a thermometer, servers, a store, jobs, and what was asked, answered, reported and killed."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from proto.artefact import Column, Histogram
from proto.observation import Observation
from proto.observations import ObservationStore
from proto.repository import Repository
from tests.databases.postgres import Postgres
from tests.e2e.closed_loop.alarms import Threshold
from tests.e2e.closed_loop.callers import LIMIT_SECONDS, Asking, Load, Reporter
from tests.e2e.closed_loop.servers import Servers
from tests.e2e.processes import ENVIRONMENT, quicksilver
from tests.service.artefacts import describe, make_artefact
from tests.thermometer import DAY_SECONDS, Thermometer, observe

HISTORY_DAYS: Final = 20.0
"""So many days lie in the past when the loop begins; what is observed later is observed now."""
JUMP_DAY: Final = 8.0
THERMOMETER: Final = Thermometer(
    gain_per_day=0.002, offset_per_day_fahrenheit=0.1, steady_from_day=10.0, jump_day=JUMP_DAY, jump_fahrenheit=6.0
)
NEW: Final = Thermometer(gain_per_day=0.0, offset_per_day_fahrenheit=0.0)
LOAD_ROWS: Final = 8
JOB_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What was answered for the readings of one day: their mean absolute error in °C, and the version that did."""

    day: float
    error_celsius: float
    version: int


class Mark(NamedTuple):
    """What happened on a day."""

    day: float
    text: str


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is observed, how fast time goes, and what jobs do."""

    history_rows: int
    """Observations of a day that lies in the past."""
    rows: int
    """Of a later one."""
    day_seconds: float
    """How long such a day takes at least."""
    job_options: tuple[str, ...]


Poison = Callable[[list[Observation]], list[Observation]]
"""Makes wrong observations of right ones."""


@dataclass
class World:
    """Everything that runs, and what came of it."""

    root: Path
    url: str
    pace: Pace
    servers: Servers
    asking: Asking
    reporter: Reporter
    database: Postgres | None = None
    thermometer: Thermometer = THERMOMETER
    day: float = 0.0
    answered: list[Answered] = field(default_factory=list)
    turns: list[Mark] = field(default_factory=list)
    kills: list[Mark] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    """What the servers said while the database was away."""
    _database_is_away: bool = False

    def __post_init__(self) -> None:
        """Begin the load."""
        self._start_seconds = time.time() - HISTORY_DAYS * DAY_SECONDS
        self._chance = np.random.default_rng(5)
        self.load = Load(self.servers.target, self._readings)
        self.reporter.on_refusal = self._refused

    @property
    def repository(self) -> Repository:
        """What the servers serve."""
        return Repository(self.root / "models")

    # Living -----------------------------------------------------------------------------------------------------------

    def live(self, days: int, poison: Poison | None = None) -> list[Observation]:
        """Live some days: ask what the thermometer's readings mean, and report what was true; return what was."""
        seen: list[Observation] = []
        for _ in range(days):
            seen += self._live_a_day(poison)
        return seen

    def _live_a_day(self, poison: Poison | None) -> list[Observation]:
        began, began_seconds, day = time.monotonic(), time.time(), self.day
        name = f"day-{day:g}"
        is_past = day < HISTORY_DAYS
        rows = self.pace.history_rows if is_past else self.pace.rows
        true = observe(self.thermometer, (day, day + 1.0), rows, start_seconds=self._start_seconds, seed=int(day))
        answer = self.asking.convert(np.array([each.fahrenheit for each in true]), request_id=name)
        errors = np.abs(answer.celsius.astype(np.float64) - [each.celsius for each in true])
        self.answered.append(Answered(day + 0.5, float(errors.mean()), answer.version))
        if not is_past:
            true = _observed(true, began_seconds, time.time())
        asked = [replace(each, request_id=name, row=row) for row, each in enumerate(true)]
        self.reporter.report(poison(asked) if poison else asked)
        self.day = day + 1.0
        if not is_past:
            time.sleep(max(0.0, began + self.pace.day_seconds - time.monotonic()))
        return asked

    def _readings(self) -> np.ndarray:
        """What the thermometer shows just now, here and there."""
        celsius = self._chance.uniform(-5.0, 30.0, LOAD_ROWS)
        return self.thermometer.show(celsius, np.full(LOAD_ROWS, self.day)).astype(np.float32)

    # Killing ----------------------------------------------------------------------------------------------------------

    def fault(self, after_rows: int, action: Callable[[], None]) -> None:
        """Do something once so many further observations are acknowledged, in the middle of the stream."""
        self.reporter.faults.append((len(self.reporter.acknowledged) + after_rows, action))

    def kill_server(self, number: int) -> None:
        """Kill -9 a server."""
        self.kills.append(Mark(self.day, "server"))
        self.servers.kill(number)

    def kill_database(self) -> None:
        """Kill -9 the database. It comes back when a report was refused, and conversions went on without it."""
        assert self.database is not None
        self.kills.append(Mark(self.day, "database"))
        self.database.kill()
        self._database_is_away = True

    def _refused(self, said: str) -> None:
        if not self._database_is_away or self.database is None:
            return  # a server was killed
        self.refusals.append(said)
        answers = self.load.answers
        assert self.eventually(lambda: self.load.answers > answers + 20), "conversions wait for the database"
        self.database.start()
        self._database_is_away = False

    def kill_job(self, *options: str, after_line: str) -> None:
        """Begin a job, and kill -9 it once its log tells of something."""
        command = [sys.executable, "-m", "quicksilver", *self._job(self.root, self.url, *options)]
        job = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert job.stderr is not None
        with job.stderr:
            assert any(after_line in line for line in job.stderr), f"the job ended before {after_line!r}"
            job.kill()
            job.wait()
        self.kills.append(Mark(self.day, "job"))

    # Jobs -------------------------------------------------------------------------------------------------------------

    def retrain(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run the job to its end."""
        return quicksilver(*self._job(self.root, self.url, *options), timeout_seconds=JOB_SECONDS)

    def retrain_elsewhere(
        self, name: str, before_seconds: float, batch: Iterable[Observation], *options: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run the job in a copy of this world: the same models, what was observed before, and another batch after."""
        root = self.root / name
        shutil.copytree(self.repository.root, root / "models")
        url = f"sqlite:///{root}/observations.db"
        with ObservationStore.open(self.url) as here, ObservationStore.open(url) as there:
            there.add(list(here.observations(until_seconds=before_seconds)))
            there.add(list(batch))
        return quicksilver(*self._job(root, url, *options), timeout_seconds=JOB_SECONDS)

    def _job(self, root: Path, url: str, *options: str) -> tuple[str, ...]:
        places = ("--repository", str(root / "models"), "--reports", str(root / "reports"))
        return ("retrain", "linear", "--observations", url, *places, *self.pace.job_options, *options)

    def models(self, *words: str) -> None:
        """Run one of the commands on models."""
        done = quicksilver("models", *words, "--repository", str(self.repository.root), timeout_seconds=JOB_SECONDS)
        assert done.returncode == 0, done.stderr

    def promote(self) -> "subprocess.CompletedProcess[str]":
        """Look once whether the canary is proven better."""
        return quicksilver(
            "promote",
            "linear",
            "--repository",
            str(self.repository.root),
            "--store",
            self.url,
            timeout_seconds=JOB_SECONDS,
        )

    # Looking ----------------------------------------------------------------------------------------------------------

    def worst(self, metric: str, version: int) -> float:
        """The greatest value that a server tells of a version, as the rules take it; -infinity where none tells one."""
        return max(self.servers.metrics(f'{metric}{{model="linear",version="{version}"}}'), default=-np.inf)

    def is_above(self, rule: Threshold, version: int) -> bool:
        """Whether what the servers tell of a version is above a rule's threshold."""
        return self.worst(rule.metric, version) > rule.value

    def eventually(self, condition: Callable[[], bool]) -> bool:
        """Wait until something holds, for a generous time; whether it came."""
        end = time.monotonic() + LIMIT_SECONDS
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True


def _observed(true: list[Observation], first_seconds: float, last_seconds: float) -> list[Observation]:
    """The same, observed one after the other between two moments."""
    times = np.linspace(first_seconds, last_seconds, len(true)).tolist()
    return [replace(each, observed_at_seconds=when) for each, when in zip(true, times, strict=True)]


def begin(root: Path, url: str, pace: Pace, ending: ExitStack, database: Postgres | None = None) -> World:
    """Two servers with a first version, made when the thermometer was new, under a load that does not pause."""
    Repository(root / "models").publish("linear", _first_version())
    flags = ("--observations", url, "--live-observations", "200", "--version-policy", "all")
    servers = Servers(root / "models", (*flags, "--watch-interval-seconds", "0.5"), ending)
    asking, reporter = Asking(servers.target), Reporter(servers.target)
    ending.callback(asking.close)
    ending.callback(reporter.close)
    world = World(root, url, pace, servers, asking, reporter, database)
    ending.callback(world.load.stop)
    return world


def _first_version() -> bytes:
    """The exact law, and how a new thermometer's readings lie."""
    readings = [each.fahrenheit for each in observe(NEW, (0.0, 1.0), 2000, start_seconds=0.0, seed=9)]
    counts, edges = np.histogram(readings, np.linspace(23.0, 86.0, 10))
    reference = Histogram(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))
    column = Column("fahrenheit", min(readings), max(readings), reference)
    return make_artefact(replace(describe(), columns=(column,), dataset_rows=int(counts.sum())))
