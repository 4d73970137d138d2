"""A trial of a canary as docs/canary.md shows it: its commands as they stand, beside a server."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from proto.observation import Observation
from proto.repository import Repository
from service.client import Converter
from service.observation_files import write_observations
from tests.e2e.processes import ENVIRONMENT, serving
from tests.environments import ROOT
from tests.service.artefacts import describe, exact_celsius, make_artefact
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)


def commands() -> list[str]:
    """The lines of the page's section."""
    page = (ROOT / "docs" / "canary.md").read_text("utf-8")
    (section,) = re.findall(r"^### A trial from beginning to end$(.*?)^### ", page, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```bash\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def words(line: str) -> list[str]:
    """A command as it stands, for the interpreter that runs this."""
    name, *arguments = line.split()
    assert name == "quicksilver"
    return [sys.executable, "-m", name, *arguments]


class Place:
    """A directory with a repository in it, where somebody types."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repository = Repository(directory / "models")
        self.environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}

    def type(self, line: str) -> str:
        """Run a command to its end, which must be a good one; return what it said."""
        done = subprocess.run(
            words(line), cwd=self.directory, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    @contextmanager
    def watching(self, line: str) -> Iterator["subprocess.Popen[str]"]:
        """Start a command that goes on; kill it in the end. What it says stands in a file, after what was there."""
        with (self.directory / "said").open("a") as said:
            process = subprocess.Popen(
                words(line), cwd=self.directory, env=self.environment, stdout=said, stderr=subprocess.STDOUT, text=True
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the watch has said something so often."""
        until(lambda: (self.directory / "said").read_text().count(text) >= times, f"{text!r} in what the watch says")


def observed(rows: int, offset_celsius: float) -> list[Observation]:
    """What two people saw just now of a thermometer that is so far off the law."""
    chance = np.random.default_rng(rows)
    return [
        Observation(
            id=f"{offset_celsius}-{row}",
            fahrenheit=reading,
            celsius=exact_celsius(reading) + offset_celsius + float(chance.normal()),
            observed_at_seconds=time.time(),
            source=("kitchen", "cellar")[row % 2],
        )
        for row, reading in enumerate(chance.uniform(-40, 212, rows).tolist())
    ]


def test_a_trial_as_the_page_shows_it(tmp_path: Path) -> None:
    """A version is labelled, shadows, and is promoted by what a file brings; what a server is told takes it back.

    The watch is killed between the two looks, and the server names in each answer the version that stable names.
    """
    place = Place(tmp_path)
    for offset in (0.0, 5.0):
        place.repository.publish("linear", make_artefact(describe(), offset_celsius=offset))
    label, shadow, watch, bring, stats = commands()
    assert "--watch" in watch
    with serving(place.repository.root, "--observations", f"sqlite:///{tmp_path / 'observations.db'}") as server:
        place.type(label)
        place.type(shadow)
        with place.watching(watch):
            place.wait_for("canary 2 against stable 1: 0 observations")
        with (tmp_path / "seen.csv").open("w") as file:
            write_observations(observed(400, 5.0), file)
        assert "400 observations: 400 are new" in place.type(bring)
        with place.watching(watch) as process, Converter(server.address) as converter:
            place.wait_for("linear: stable is version 2, promoted")
            assert place.repository.labels("linear") == {"stable": 2}
            until(lambda: converter.convert([50.0], model="linear").version == 2, "answers of version 2")
            assert "400 observations from" in place.type(stats)
            assert converter.report(observed(400, 0.0)).accepted == 400
            place.wait_for("linear: stable is version 1 again, since it is better")
            until(lambda: converter.convert([50.0], model="linear").version == 1, "answers of version 1")
            process.terminate()
            assert process.wait(60) == 0
    assert place.repository.label_history("linear").moves.rollbacks == 1
