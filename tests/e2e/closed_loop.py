"""The closed loop, lived through by real processes: a thermometer drifts and jumps, and another version takes over.

    python -m tests.e2e.closed_loop PICTURE.png

Whoever reads the thermometer asks a real server what its readings mean, and reports later what was true. Time is
compressed: the first twenty days lie in the past, and after the new version is published a day takes two seconds, for
observations count for a version only from when it was there.
"""

import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from proto.observations import Observation
from proto.repository import CANARY, STABLE, Repository
from service.client import Converter
from tests.e2e.processes import Serving, quicksilver, serving
from tests.service.artefacts import make_artefact
from tests.thermometer import DAY_SECONDS, Thermometer, observe

if TYPE_CHECKING:
    import subprocess

HISTORY_DAYS = 20.0
JUMP_DAY = 8.0
LATER_DAY_SECONDS = 2.0
ROWS_PER_DAY = 20
THERMOMETER = Thermometer(
    gain_per_day=0.002, offset_per_day_fahrenheit=0.1, steady_from_day=10.0, jump_day=JUMP_DAY, jump_fahrenheit=6.0
)
QUICK = ("--seeds", "1", "--epochs", "250")
LIMIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What a server answered for some readings: the day of each, the errors in °C, and the version that made them."""

    days: np.ndarray
    errors: np.ndarray
    version: int


class Load:
    """Conversions without pause, on a thread, with every answer's version and every failure."""

    def __init__(self, address: str) -> None:
        self.versions: Counter[int] = Counter()
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(address,), name="load")
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()

    def _work(self, address: str) -> None:
        with Converter(address) as converter:
            while not self._stopping.wait(0.01):
                try:
                    self.versions[converter.convert([32.0, 50.0, 68.0]).version] += 1
                except Exception as error:  # noqa: BLE001 - any is one too many, and is told
                    self.failures.append(repr(error))


@dataclass
class Loop:
    """The server, its repository and its store; what was answered, and the days at which a version took over."""

    root: Path
    server: Serving
    converter: Converter
    load: Load
    start_seconds: float
    answered: list[Answered] = field(default_factory=list)
    swaps: dict[int, float] = field(default_factory=dict)
    published_seconds: float = 0.0

    @property
    def repository(self) -> Repository:
        """What the server serves."""
        return Repository(self.root / "models")

    @property
    def url(self) -> str:
        """The store of observations."""
        return f"sqlite:///{self.root}/observations.db"

    def live(self, first_day: float, last_day: float) -> None:
        """Read the thermometer, have its readings converted, and report the truth of each."""
        rows = round((last_day - first_day) * ROWS_PER_DAY)
        days = np.linspace(first_day, last_day, rows, endpoint=False)
        seen = observe(THERMOMETER, (first_day, last_day), rows, start_seconds=0.0, seed=int(first_day * 10))
        for start in range(0, rows, ROWS_PER_DAY):
            self._ask_and_report(days[start : start + ROWS_PER_DAY], seen[start : start + ROWS_PER_DAY])

    def _ask_and_report(self, days: np.ndarray, seen: list[Observation]) -> None:
        request_id = f"day-{days[0]:.3f}"
        answer = self.converter.convert([each.fahrenheit for each in seen], request_id=request_id)
        errors = np.abs(answer.celsius.astype(np.float64) - [each.celsius for each in seen])
        self.answered.append(Answered(days, errors, answer.version))
        self.converter.report(
            replace(each, observed_at_seconds=self._when(float(day)), request_id=request_id, row=row)
            for row, (day, each) in enumerate(zip(days, seen, strict=True))
        )

    def poison(self, rows: int) -> None:
        """Report wrong truths, many at once, under one source's name."""
        wrong = observe(THERMOMETER, (HISTORY_DAYS, HISTORY_DAYS + 1), rows, start_seconds=0.0, sources=("mallory",))
        now = time.time()
        self.converter.report(
            replace(each, celsius=each.celsius + 20.0, observed_at_seconds=now + row / rows)
            for row, each in enumerate(wrong)
        )

    def _when(self, day: float) -> float:
        if day < HISTORY_DAYS:
            return self.start_seconds + day * DAY_SECONDS
        return self.published_seconds + (day - HISTORY_DAYS) * LATER_DAY_SECONDS

    def retrain(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run the job to its end."""
        places = ["--repository", str(self.repository.root), "--reports", str(self.root / "reports")]
        return quicksilver(
            "retrain", "linear", "--observations", self.url, *places, *QUICK, *options, timeout_seconds=300
        )

    def promote(self) -> "subprocess.CompletedProcess[str]":
        """Look once whether the canary is proven better."""
        return quicksilver("promote", "linear", "--repository", str(self.repository.root), "--store", self.url)

    def live_error(self, version: int) -> float:
        """The mean absolute error in °C against the latest observations that the server states of a version."""
        return self.server.metric(f'quicksilver_live_mae_celsius{{model="linear",version="{version}"}}')

    def eventually(self, condition: Callable[[], bool]) -> bool:
        """Wait until something holds, for a generous time; whether it came."""
        end = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < end:
            try:
                if condition():
                    return True
            except IndexError:  # a series that is not there yet
                pass
            time.sleep(0.05)
        return False


def begin(root: Path, stack: ExitStack) -> Loop:
    """A server with a first version, which follows the exact law, under a load that does not pause."""
    Repository(root / "models").publish("linear", make_artefact())
    store = ("--observations", f"sqlite:///{root}/observations.db", "--live-observations", "100")
    server = stack.enter_context(serving(root / "models", *store))
    load = Load(server.address)
    stack.callback(load.stop)
    converter = stack.enter_context(Converter(server.address, timeout_seconds=60))
    return Loop(root, server, converter, load, time.time() - HISTORY_DAYS * DAY_SECONDS)


def follow(loop: Loop, version: int, day: float) -> None:
    """Wait until a version answers those that name none."""
    assert loop.eventually(lambda: loop.converter.convert([50.0]).version == version)
    loop.swaps[version] = day


def live_through(loop: Loop) -> None:
    """All of it, each step checked: calm, drift and jump, alarm, challenger, promotion, and a poisoned batch."""
    loop.live(0.0, 5.0)
    assert loop.eventually(lambda: loop.live_error(1) < 1.5)
    calm = loop.retrain("--if-drift")
    assert (calm.returncode, "nothing to do" in calm.stdout) == (0, True), calm.stderr

    loop.live(5.0, HISTORY_DAYS)
    assert loop.eventually(lambda: loop.live_error(1) > 4.0)
    accepted = loop.retrain("--if-drift")
    assert (accepted.returncode, "linear: drift: " in accepted.stdout) == (0, True), accepted.stdout + accepted.stderr
    loop.published_seconds = time.time()
    assert loop.repository.labels("linear") == {STABLE: 1, CANARY: 2}

    shared = quicksilver("models", "canary", "linear", "--share", "0.3", "--repository", str(loop.repository.root))
    assert shared.returncode == 0, shared.stderr
    assert loop.eventually(lambda: loop.load.versions[2] > 0)
    loop.live(HISTORY_DAYS, 30.0)
    assert loop.eventually(lambda: loop.live_error(2) < 1.0)
    promoted = loop.promote()
    assert promoted.returncode == 0, promoted.stdout + promoted.stderr
    follow(loop, 2, 30.0)
    loop.live(30.0, 35.0)
    assert loop.eventually(lambda: loop.live_error(2) < 1.0)
    assert loop.answered[-1].errors.mean() < 1.0

    loop.poison(1000)
    rejected = loop.retrain()
    assert rejected.returncode == 3, rejected.stdout + rejected.stderr
    assert loop.repository.labels("linear")[STABLE] == 2
    loop.live(35.0, 40.0)
    assert loop.answered[-1].errors.mean() < 1.0


def draw(loop: Loop) -> bytes:
    """Draw the error of what was answered over the days, with what happened marked."""
    from training import plots  # noqa: PLC0415 - matplotlib takes long to import, and the test draws nothing
    from training.plots import LIGHT, Label  # noqa: PLC0415 - as above

    means = [float(each.errors.mean()) for each in loop.answered]
    title = "A thermometer drifts and jumps; version 2 is fitted to it, and takes over"
    figure = plots.new_figure(LIGHT, title, height_inches=3.4)
    axes = figure.add_subplot()
    plots.style_axes(axes, LIGHT, x_label="days", y_label="mean absolute error (°C)")
    labels = []
    for version, colour in zip((1, 2), LIGHT.series, strict=False):
        places = [place for place, each in enumerate(loop.answered) if each.version == version]
        axes.plot(
            [float(loop.answered[place].days.mean()) for place in places],
            [means[place] for place in places],
            color=colour,
            linewidth=2.0,
            marker="o",
            markersize=3,
        )
        labels.append(Label(means[places[-1]], f"version {version}", colour))
    marks = {
        JUMP_DAY: "it jumps",
        HISTORY_DAYS: "accepted, on trial:\n30 % of requests",
        30.0: "promoted",
        35.0: "poisoned batch\nrejected",
    }
    axes.set_ylim(0.0, max(means) * 1.3)
    for day, text in marks.items():
        axes.axvline(day, color=LIGHT.muted, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.text(day + 0.3, 1.28 * max(means), text, color=LIGHT.muted, fontsize=plots.SMALL_POINTS, va="top")
    plots.label_right(axes, labels)
    return plots.png(figure)


def main(picture: Path) -> None:
    """Live through it, and draw it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        loop = begin(Path(root), stack)
        live_through(loop)
        picture.write_bytes(draw(loop))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
