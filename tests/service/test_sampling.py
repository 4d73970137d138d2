"""Errors against the law, rows outside the domain, and drift: of samples, over both fronts, and over workers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from proto.artefact import Column, Histogram
from proto.drift import count, population_stability_index
from proto.repository import Repository
from service.client import Converter
from service.engine import EngineOptions
from service.metrics import Metrics
from service.models import LoadedVersion, Models
from service.sampling import REFILL_SECONDS, ROOM_ROWS, ROWS_OF_A_RUN, WINDOW_SECONDS, Sample
from service.snapshot import ERROR, ERROR_BOUNDS, MIN_REFERENCE_ROWS, MIN_WINDOW_ROWS, Snapshot, Window, families
from service.workers.merge import lasting, merge
from tests.service.artefacts import describe, exact_celsius, make_artefact, make_plain
from tests.service.conftest import StartServer
from tests.waiting import until

ALERT_THRESHOLD = 0.25
"""From which the index is said to mean a major shift, and the alert fires."""
LINEAR = ("linear", "1")


def reference(rows: int, bins: int = 10) -> Histogram:
    """As training makes it of rows that lie evenly in 20 … 80 °F."""
    counts, edges = np.histogram(np.linspace(20, 80, rows), bins)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))


def trained_on(rows: int) -> bytes:
    """A converter after the exact law, whose file says that it was trained on rows in 20 … 80 °F."""
    artefact = describe()
    return make_artefact(replace(artefact, columns=(Column("fahrenheit", 20.0, 80.0, reference(rows)),)))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 10_000.0

    def __call__(self) -> float:
        """What time it is."""
        return self.seconds


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """`linear` of 200 rows, `few` of 99, `warm` three degrees off, and `plain`, whose file says nothing."""
    repository = Repository(Path(tmp_path_factory.mktemp("sampled")))
    repository.publish("linear", trained_on(200))
    repository.publish("few", trained_on(MIN_REFERENCE_ROWS - 1))
    repository.publish("warm", make_artefact(offset_celsius=3.0))
    repository.publish("plain", make_plain())
    models = Models(repository, EngineOptions(device="cpu"))
    models.load()
    return models


class Run:
    """Metrics over real models, and runs that are told to them as the dataplane tells them."""

    def __init__(self, models: Models) -> None:
        self.clock = Clock()
        self.models = models
        self.metrics = Metrics([], models, clock=self.clock)

    def version(self, name: str) -> LoadedVersion:
        """The version of a model."""
        return self.models.catalogue.resolve(name, None)

    def serve(self, name: str, fahrenheit: NDArray[np.float64]) -> None:
        """Run rows in one run."""
        version, rows = self.version(name), fahrenheit.astype(np.float32).reshape(-1, 1)
        self.metrics.ran(version, len(rows), [0.0], 0.0, ([rows], version.engine.run([rows])))

    def traffic(self, name: str, fahrenheit: NDArray[np.float64]) -> None:
        """Run rows as small runs over some minutes, so that all of them are looked at."""
        for part in np.array_split(fahrenheit, -(-len(fahrenheit) // ROWS_OF_A_RUN)):
            self.serve(name, part)
            self.clock.seconds += REFILL_SECONDS
            self.metrics.snapshot()

    def value(self, name: str, model: str) -> float | None:
        """What a scrape says of a model's first version."""
        return written(self.metrics.snapshot()).get((name, model))


def written(snapshot: Snapshot) -> dict[tuple[str, str], float]:
    """The samples of the families that have a model and a version."""
    return {
        (sample.name, sample.labels["model"]): sample.value
        for family in families(snapshot)
        for sample in family.samples
        if {"model", "version"} == sample.labels.keys()
    }


@pytest.fixture
def run(models: Models) -> Run:
    """Fresh metrics."""
    return Run(models)


def like_training(rows: int, seed: int = 0) -> NDArray[np.float64]:
    """Inputs from where the model was trained."""
    return np.random.default_rng(seed).uniform(20, 80, rows)


# What is sampled ------------------------------------------------------------------------------------------------------


def test_a_run_leaves_few_rows_evenly_spaced(run: Run) -> None:
    """However large it is; and once there is no more room, none until somebody has looked."""

    def sampled() -> float:
        return run.value("quicksilver_sampled_rows_total", "linear") or 0

    run.serve("linear", np.linspace(20, 80, 65_536))
    assert sampled() == ROWS_OF_A_RUN
    (window,) = [window for labels, window in run.metrics.snapshot().windows.items() if labels == LINEAR]
    assert max(window.found[0]) - min(window.found[0]) <= 1
    for _ in range(100):
        run.serve("linear", like_training(64))
    assert sampled() <= ROOM_ROWS + ROWS_OF_A_RUN
    run.clock.seconds += REFILL_SECONDS
    run.metrics.snapshot()
    run.serve("linear", like_training(64))
    assert sampled() > ROOM_ROWS


def test_the_error_is_that_of_the_answers(run: Run) -> None:
    """A model that is three degrees off is told to be, in a histogram whose sum and count agree."""
    run.serve("warm", like_training(60))
    snapshot = run.metrics.snapshot()
    distribution = snapshot.distributions[ERROR]["warm", "1"]
    assert sum(distribution.counts) == 60
    assert distribution.total == pytest.approx(180, rel=1e-3)
    places = [index for index, counted in enumerate(distribution.counts) if counted]
    assert set(places) <= {ERROR_BOUNDS.index(3), ERROR_BOUNDS.index(3) + 1}
    assert snapshot.distributions[ERROR][LINEAR].total == 0


def test_rows_outside_the_domain_are_counted(run: Run) -> None:
    """Of what was looked at, those outside what the model was trained on; what is no number among them."""
    run.serve("linear", np.array([19.0, 20.0, 50.0, 80.0, 81.0, np.nan]))
    assert run.value("quicksilver_outside_domain_rows_total", "linear") == 3
    assert run.value("quicksilver_sampled_rows_total", "linear") == 6
    assert sum(run.metrics.snapshot().distributions[ERROR][LINEAR].counts) == 5


def test_nothing_is_said_of_a_file_that_says_nothing(run: Run) -> None:
    """A plain model has none of these series; one that says what it was trained on has them before its first run."""
    run.serve("plain", like_training(10))
    told = {model for name, model in written(run.metrics.snapshot()) if name == "quicksilver_sampled_rows_total"}
    assert told == {"linear", "few", "warm"}
    assert not any(model == "plain" and "drift" in name for name, model in written(run.metrics.snapshot()))


def test_nothing_of_a_run_is_kept(models: Models) -> None:
    """The sample holds copies: what came from the network can go."""
    version = models.catalogue.resolve("linear", None)
    assert version.artefact is not None
    sample = Sample(version, version.artefact.columns)
    rows = np.full((4, 1), 50, np.float32)
    sample.offer(([rows], [rows]))
    rows[:] = 1000
    sample.look(sample.take(0.0), 0.0)
    assert sample.outside == 0


# Drift ----------------------------------------------------------------------------------------------------------------


def test_unshifted_traffic_stays_silent(run: Run) -> None:
    """Inputs from where the model was trained do not reach half of the alert's threshold."""
    run.traffic("linear", like_training(4000))
    index = run.value("quicksilver_drift_psi", "linear")
    assert index is not None
    assert index < ALERT_THRESHOLD / 2
    assert run.value("quicksilver_drift_window_rows", "linear") == 4000


def test_traffic_shifted_by_40_degrees_fires(run: Run) -> None:
    """Inputs 40 °F too warm pass the threshold many times over."""
    run.traffic("linear", like_training(2000) + 40)
    assert (run.value("quicksilver_drift_psi", "linear") or 0) > 4 * ALERT_THRESHOLD


def test_the_window_slides(run: Run) -> None:
    """What was served longer ago than the window reaches no longer counts."""
    run.traffic("linear", like_training(2000) + 40)
    run.clock.seconds += WINDOW_SECONDS
    assert run.value("quicksilver_drift_window_rows", "linear") == 0
    assert run.value("quicksilver_drift_psi", "linear") is None
    run.traffic("linear", like_training(2000))
    assert (run.value("quicksilver_drift_psi", "linear") or 1) < ALERT_THRESHOLD / 2
    assert run.value("quicksilver_sampled_rows_total", "linear") == 4000


def test_too_little_says_nothing(run: Run) -> None:
    """Neither a reference of fewer than 100 rows nor a window that is not full enough yet has an index."""
    run.traffic("few", like_training(2000) + 40)
    assert run.value("quicksilver_drift_psi", "few") is None
    assert run.value("quicksilver_drift_window_rows", "few") == 2000
    run.traffic("linear", like_training(MIN_WINDOW_ROWS - 1) + 40)
    assert run.value("quicksilver_drift_psi", "linear") is None
    run.traffic("linear", like_training(1) + 40)
    assert run.value("quicksilver_drift_psi", "linear") is not None


@pytest.mark.parametrize(
    ("reference_rows", "window_rows", "at_most"),
    [(100, MIN_WINDOW_ROWS, 0.02), (100, 4_000, 0.01), (200, MIN_WINDOW_ROWS, 0.001), (1000, MIN_WINDOW_ROWS, 0.0005)],
)
def test_false_alarms_by_chance(reference_rows: int, window_rows: int, at_most: float) -> None:
    """Of 2,000 models and windows from one distribution, about as few pass the threshold as docs/metrics.md says."""
    generator = np.random.default_rng(reference_rows + window_rows)
    alarms = 0
    for _ in range(2000):
        counts, edges = np.histogram(generator.uniform(20, 80, reference_rows), 10)
        found = count(Histogram(tuple(edges.tolist()), tuple(counts.tolist())), generator.uniform(20, 80, window_rows))
        alarms += population_stability_index(counts.tolist(), found) > ALERT_THRESHOLD
    assert alarms / 2000 <= at_most


# Over workers ---------------------------------------------------------------------------------------------------------


def test_workers_windows_are_joined_before_the_index_is_taken(models: Models) -> None:
    """What neither worker has enough of to tell, both together do; and it is the index of all rows."""
    rows = like_training(MIN_WINDOW_ROWS) + 40
    parts = [Run(models) for _ in range(2)]
    for part, half in zip(parts, np.array_split(rows, 2), strict=True):
        part.traffic("linear", half)
        assert part.value("quicksilver_drift_psi", "linear") is None
    whole = Run(models)
    whole.traffic("linear", rows)
    joined = written(merge(part.metrics.snapshot() for part in parts))
    for name in ("quicksilver_drift_psi", "quicksilver_drift_window_rows"):
        assert joined[name, "linear"] == whole.value(name, "linear")


def test_of_two_references_the_fuller_window_counts() -> None:
    """While one worker has a version's new content and another its old, their counts are not mixed."""
    old, new = Window(((5, 5),), ((7, 0),)), Window(((50, 50),), ((70, 1),))
    joined = merge((Snapshot(windows={LINEAR: old}), Snapshot(windows={LINEAR: new})))
    assert joined.windows[LINEAR] == new
    assert not lasting(joined).windows


# Served ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """`linear`, whose reference can tell drift."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", trained_on(200))
    return repository


def batches(rows: NDArray[np.float64]) -> Iterator[list[float]]:
    """Rows as calls have them."""
    for part in np.array_split(rows, -(-len(rows) // ROWS_OF_A_RUN)):
        yield part.tolist()


def test_calls_are_sampled_over_each_front(start_server: StartServer) -> None:
    """Real calls 40 °F too warm: the window fills, drift and extrapolation show, and the answers are right."""
    server = start_server()
    with Converter(server.address, model="linear") as converter:
        for batch in batches(np.tile(like_training(64), MIN_WINDOW_ROWS // 64 + 1) + 40):
            answer = converter.convert(batch)
            assert answer.celsius == pytest.approx([exact_celsius(value) for value in batch], abs=1e-4)
            server.metrics.snapshot()

    def sampled() -> bool:  # the last call is in the books a moment after its answer
        return written(server.metrics.snapshot())["quicksilver_sampled_rows_total", "linear"] >= MIN_WINDOW_ROWS

    until(sampled, "all rows in the sample")
    told = written(server.metrics.snapshot())
    assert told["quicksilver_drift_psi", "linear"] > ALERT_THRESHOLD
    share = told["quicksilver_outside_domain_rows_total", "linear"] / told["quicksilver_sampled_rows_total", "linear"]
    assert 0.4 < share < 0.9
