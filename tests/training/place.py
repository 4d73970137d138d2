"""A place to retrain in: a repository, a store of observations, reports; and the real command there."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from proto.observations import Observation, ObservationStore
from proto.repository import Repository
from tests.e2e.processes import ENVIRONMENT
from tests.service.artefacts import make_artefact
from tests.thermometer import DAY_SECONDS, Thermometer, observe
from training import cli, verdict

QUICK = ("--kinds", "linear", "--seeds", "1", "--epochs", "200")
DAYS = (0.0, 20.0)
STEADY = Thermometer(gain_per_day=0.0, offset_per_day_fahrenheit=0.0)


class Place:
    """A directory with a repository, whose `linear` follows the exact law, a store of observations, and reports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.repository = Repository(root / "models")
        self.repository.publish("linear", make_artefact())
        self.reports = root / "reports" / "linear"
        self.url = f"sqlite:///{root}/observations.db"
        self.start_seconds = time.time() - DAYS[1] * DAY_SECONDS

    def add(self, observations: Sequence[Observation]) -> None:
        """Store observations."""
        with ObservationStore.open(self.url) as store:
            store.add(observations)

    def observe(self, thermometer: Thermometer, rows: int = 400, **options: Any) -> None:  # noqa: ANN401 - those of `observe`
        """Store observations of a thermometer over all days."""
        self.add(observe(thermometer, DAYS, rows, start_seconds=self.start_seconds, **options))

    def words(self, *options: str) -> list[str]:
        """The command line."""
        places = ["--repository", str(self.repository.root), "--reports", str(self.root / "reports")]
        told = ["--metrics-file", str(self.root / "job.prom")]
        return ["retrain", "linear", "--observations", self.url, *places, *told, *options]

    def retrain(self, *options: str) -> int:
        """Run the command here, and return its exit code."""
        return cli.main(self.words(*options))

    def start(self, *options: str) -> "subprocess.Popen[str]":
        """Run the command in a process of its own."""
        command = [sys.executable, "-m", "quicksilver", *self.words(*options)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=self.root
        )

    def told(self) -> list[str]:
        """What the last job said became of it, in the terms of Prometheus."""
        lines = (self.root / "job.prom").read_text().splitlines()
        return [line for line in lines if line.startswith("quicksilver_training_verdict") and line.endswith(" 1.0")]

    def timestamp(self, file: str, what: str) -> float:
        """A time that a file for Prometheus tells of the model, in Unix time."""
        series = f'quicksilver_training_{what}_timestamp_seconds{{model="linear"}} '
        (line,) = [line for line in (self.root / file).read_text().splitlines() if line.startswith(series)]
        return float(line.removeprefix(series))

    def report(self) -> tuple[Path, dict[str, Any]]:
        """The one report that was written, and its verdict."""
        (path,) = [path for path in self.reports.iterdir() if not path.name.startswith(".")]
        return path, json.loads((path / verdict.JSON_FILE).read_text())

    def hidden(self) -> set[str]:
        """What lies among the reports that is none."""
        return {path.name for path in self.reports.glob(".*")}


def said(stream: IO[str], text: str) -> bool:
    """Read lines until one holds the text; whether one did."""
    return any(text in line for line in stream)
