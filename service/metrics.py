"""Metrics, gathered cheaply while calls are answered, and put into Prometheus' terms when somebody scrapes.

The hot path adds whole numbers to plain tables under one lock; families, labels and text exist only during a scrape.
The names of the call metrics are those that the gRPC ecosystem's dashboards know. Label values come from registered
methods and loaded versions alone, so that no caller can make series; anything else is `other`.
"""

import contextlib
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from service.calls import Method, grpc_type
from service.closed import Closed
from service.device import Device
from service.errors import Shed
from service.models import LoadedVersion, Models, VersionState
from service.observations.figures import LiveQuality
from service.run_observers import Served
from service.sampling import Sample
from service.snapshot import (
    ERROR,
    FAMILIES,
    HANDLED,
    HANDLING,
    INFERENCE_SECONDS_BOUNDS,
    ROWS_BOUNDS,
    SECONDS_BOUNDS,
    STARTED,
    Distribution,
    Exemplar,
    Labels,
    Snapshot,
    Window,
    code_name,
    families,
)
from service.status import Code

OTHER: Final = ("other", "other", "other")


class Histogram:
    """Counts of values up to each bound, and their sum. Not locked: the owner does that."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count several values; those that came together are equal, nearly always all of them, and looked up once."""
        if not values:
            return
        last, index, counts = values[0], bisect_left(self.bounds, values[0]), self.counts
        if values.count(last) == len(values):
            counts[index] += len(values)
        else:
            for value in values:
                if value != last:
                    last, index = value, bisect_left(self.bounds, value)
                counts[index] += 1
        self.total += sum(values)

    def distribution(self) -> Distribution:
        """What it holds now, as a value."""
        return Distribution(tuple(self.counts), self.total)


class ObservationSource(Protocol):
    """Knows what became of observations, and how versions do against them."""

    def counts(self) -> Mapping[str, int]:
        """How many observations came to what."""

    def quality(self, version: LoadedVersion) -> LiveQuality | None:
        """How a version does; None where that is not known."""


class _MethodTable:
    """What happened to the calls of one method."""

    def __init__(self, labels: tuple[str, str, str]) -> None:
        self.labels = labels
        self.started = 0
        self.handled: Counter[Code] = Counter()
        self.handling_seconds = Histogram(SECONDS_BOUNDS)
        self.exemplars: dict[int, Exemplar] = {}
        """The last traced call of each bucket."""


class _VersionTable:
    """What one version ran."""

    def __init__(self, version: LoadedVersion) -> None:
        self.version = version
        self.sample = None if version.artefact is None else Sample(version, version.artefact.columns)
        self.rows = 0
        self.batch_rows = Histogram(ROWS_BOUNDS)
        self.batch_calls = Histogram(ROWS_BOUNDS)
        self.queue_seconds = Histogram(SECONDS_BOUNDS)
        self.inference_seconds = Histogram(INFERENCE_SECONDS_BOUNDS)


class Source(Protocol):
    """Something else that counts."""

    def add_to(
        self,
        numbers: MutableMapping[str, dict[Labels, float]],
        distributions: MutableMapping[str, dict[Labels, Distribution]],
    ) -> None:
        """Add what it counted, by family; each family is there."""


class Metrics(Collector):
    """Is told what happens, and tells Prometheus. Every method may be called by any thread."""

    def __init__(
        self,
        methods: Iterable[Method],
        models: Models,
        device: Device = "auto",
        observations: ObservationSource | None = None,
        *,
        sources: Sequence[Source] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._clock = clock
        self._device = device
        self._observations = observations
        self._sources = sources
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        """Held by whoever makes a snapshot."""
        self._methods = {method.path: _MethodTable(_method_labels(method)) for method in methods}
        self._other = _MethodTable(OTHER)
        self._versions: dict[tuple[str, str], _VersionTable] = {}
        self._in_flight = 0
        self._shed = dict.fromkeys(Shed, 0)
        self._connections_opened: int | None = None
        """None where the front is not told of connections, as grpcio's is not."""
        self._connections_closed = dict.fromkeys(Closed, 0)

    def register(self, registry: CollectorRegistry) -> None:
        """Expose these metrics, and those of the process, in a registry."""
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    # Told by the fronts -----------------------------------------------------------------------------------------------

    def started(self, path: str, calls: int = 1) -> None:
        """Learn that calls of a method began."""
        with self._lock:
            self._methods.get(path, self._other).started += calls
            self._in_flight += calls

    def handled(self, path: str, code: Code, seconds: float) -> None:
        """Learn that a call ended."""
        self.handled_many(path, code, (seconds,))

    def handled_many(self, path: str, code: Code, seconds: Sequence[float]) -> None:
        """Learn that several calls of a method ended with the same code, each after its own time."""
        with self._lock:
            table = self._methods.get(path, self._other)
            table.handled[code] += len(seconds)
            table.handling_seconds.observe_all(seconds)
            self._in_flight -= len(seconds)

    def exemplar(self, path: str, seconds: float, trace_id: str) -> None:
        """Learn which trace a call had that ended after so long."""
        known = Exemplar(trace_id, seconds, time.time())
        with self._lock:
            self._methods.get(path, self._other).exemplars[bisect_left(SECONDS_BOUNDS, seconds)] = known

    def shed(self, reason: Shed, calls: int = 1) -> None:
        """Learn that calls were refused for load, or given up."""
        with self._lock:
            self._shed[reason] += calls

    def knows_connections(self) -> None:
        """Learn that the front will tell of its connections."""
        self._connections_opened = 0

    def connection_opened(self) -> None:
        """Learn that a connection came."""
        with self._lock:
            self._connections_opened = (self._connections_opened or 0) + 1

    def connection_closed(self, reason: Closed) -> None:
        """Learn that a connection is gone."""
        with self._lock:
            self._connections_closed[reason] += 1

    # Told by the dataplane --------------------------------------------------------------------------------------------

    def ran(
        self,
        version: LoadedVersion,
        rows: int,
        queue_seconds: Sequence[float],
        inference_seconds: float,
        served: Served,
    ) -> None:
        """Learn of a run: its rows, how long each of its calls had waited, how long ONNX Runtime took, its arrays."""
        key = (version.name, str(version.version))
        with self._lock:
            table = self._versions.get(key)
            if table is None or table.version is not version:
                if not self._models.catalogue.holds(version):  # a last run of a retired version makes no new series
                    return
                table = self._versions[key] = _VersionTable(version)
            table.rows += rows
            table.batch_rows.observe(rows)
            table.batch_calls.observe(len(queue_seconds))
            table.inference_seconds.observe(inference_seconds)
            table.queue_seconds.observe_all(queue_seconds)
            if table.sample is not None and table.sample.room > 0:
                table.sample.offer(served)

    # Told by the models -----------------------------------------------------------------------------------------------

    def forget_retired(self) -> None:
        """Drop the series of versions that are no longer loaded, after the models changed."""
        models = self._models.catalogue.models.values()
        held = {(version.name, str(version.version)) for model in models for version in model.loaded}
        with self._lock:
            for key in self._versions.keys() - held:
                del self._versions[key]

    # Asked by Prometheus ----------------------------------------------------------------------------------------------

    def describe(self) -> Iterator[Metric]:
        """Name the families without their samples, so that a registry can refuse what collides."""
        return families(Snapshot())

    def collect(self) -> Iterator[Metric]:
        """Yield every family as it stands at this instant."""
        return families(self.snapshot())

    def snapshot(self) -> Snapshot:
        """What every family stands at, in a fraction of the time that writing it takes."""
        numbers: dict[str, dict[Labels, float]] = {name: {} for name in FAMILIES}
        distributions: dict[str, dict[Labels, Distribution]] = {name: {} for name in FAMILIES}
        windows: dict[Labels, Window] = {}
        now = self._clock()
        with self._looking, self._samples_looked_at(now):
            exemplars = {method.labels: dict(method.exemplars) for method in (*self._methods.values(), self._other)}
            for method in (*self._methods.values(), self._other):
                numbers[STARTED][method.labels] = method.started
                numbers[HANDLED] |= {(*method.labels, code_name(code)): calls for code, calls in method.handled.items()}
                distributions[HANDLING][method.labels] = method.handling_seconds.distribution()
            numbers["quicksilver_in_flight_calls"][()] = self._in_flight
            numbers["quicksilver_shed_calls"] = {(reason.value,): calls for reason, calls in self._shed.items()}
            self._add_connections(numbers)
            for labels, table in {**self._untouched(), **self._versions}.items():
                numbers["quicksilver_rows"][labels] = table.rows
                distributions["quicksilver_batch_rows"][labels] = table.batch_rows.distribution()
                distributions["quicksilver_batch_calls"][labels] = table.batch_calls.distribution()
                distributions["quicksilver_queue_seconds"][labels] = table.queue_seconds.distribution()
                distributions["quicksilver_inference_seconds"][labels] = table.inference_seconds.distribution()
                if table.sample is not None:
                    numbers["quicksilver_sampled_rows"][labels] = table.sample.rows
                    numbers["quicksilver_outside_domain_rows"][labels] = table.sample.outside
                    distributions[ERROR] |= {} if table.sample.errors is None else {labels: table.sample.errors}
                    windows[labels] = table.sample.window(now)
        self._add_models(numbers)
        if self._observations is not None:
            self._add_observations(numbers, self._observations)
        for source in self._sources:
            source.add_to(numbers, distributions)
        return Snapshot(
            {name: series for name, series in numbers.items() if series},
            {name: series for name, series in distributions.items() if series},
            windows,
            {labels: known for labels, known in exemplars.items() if known},
        )

    @contextlib.contextmanager
    def _samples_looked_at(self, now: float) -> Iterator[None]:
        """Look at what was sampled, and then hold the lock. The look takes longer than calls should wait for it."""
        with self._lock:
            samples = [table.sample for table in self._versions.values() if table.sample is not None]
            taken = [sample.take(now) for sample in samples]
        for sample, rows in zip(samples, taken, strict=True):
            sample.look(rows, now)
        with self._lock:
            yield

    def _untouched(self) -> dict[tuple[str, str], _VersionTable]:
        """Tables of what is loaded, as they are before the first run."""
        models = self._models.catalogue.models.values()
        loaded = [version for model in models for version in model.loaded]
        return {(version.name, str(version.version)): _VersionTable(version) for version in loaded}

    def _add_connections(self, numbers: dict[str, dict[Labels, float]]) -> None:
        if self._connections_opened is None:
            return
        closed = self._connections_closed
        numbers["quicksilver_connections_opened"][()] = self._connections_opened
        numbers["quicksilver_connections_closed"] = {(reason.value,): count for reason, count in closed.items()}
        numbers["quicksilver_connections"][()] = self._connections_opened - sum(closed.values())

    def _add_models(self, numbers: dict[str, dict[Labels, float]]) -> None:
        for name, record in self._models.load_records().items():
            numbers["quicksilver_load_failures"][name,] = record.failures
            if record.last_load_timestamp_seconds is not None:
                numbers["quicksilver_last_load_timestamp_seconds"][name,] = record.last_load_timestamp_seconds
        for model in self._models.catalogue.models.values():
            numbers["quicksilver_model_ready"][model.name,] = float(model.ready)
            for label, number in model.labels.items():
                numbers["quicksilver_label_info"][model.name, label, str(number)] = 1
            for number, entry in model.versions.items():
                if entry.state is VersionState.FAILED:
                    numbers["quicksilver_version_failed"][model.name, str(number)] = 1
                elif entry.loaded is not None:
                    self._add_version(numbers, entry.loaded)

    def _add_version(self, numbers: dict[str, dict[Labels, float]], loaded: LoadedVersion) -> None:
        numbers["quicksilver_model_info"][_info_labels(loaded)] = 1
        numbers["quicksilver_device_info"][self._device, loaded.engine.device] = 1
        if loaded.golden_deviation_celsius is not None:
            deviation = loaded.golden_deviation_celsius
            numbers["quicksilver_golden_deviation_celsius"][loaded.name, str(loaded.version)] = deviation

    def _add_observations(self, numbers: dict[str, dict[Labels, float]], observations: ObservationSource) -> None:
        for result, count in observations.counts().items():
            numbers["quicksilver_observations"][result,] = count
        for model in self._models.catalogue.models.values():
            for version in model.loaded:
                quality = observations.quality(version)
                for name, value in live_numbers(quality).items() if quality else ():
                    numbers[name][version.name, str(version.version)] = value


def live_numbers(quality: LiveQuality) -> dict[str, float]:
    """The gauges of one version's live quality; what is not known has none."""
    mae, mse, coverage = quality.mae_celsius, quality.mse_celsius2, quality.coverage
    gauges = {
        "quicksilver_live_observations": quality.observations,
        "quicksilver_live_mae_celsius": mae.value,
        "quicksilver_live_mae_lower_celsius": mae.lower,
        "quicksilver_live_mae_upper_celsius": mae.upper,
        "quicksilver_live_mse_celsius2": mse.value,
        "quicksilver_live_mse_lower_celsius2": mse.lower,
        "quicksilver_live_mse_upper_celsius2": mse.upper,
        "quicksilver_live_coverage_ratio": None if coverage is None else coverage.value,
        "quicksilver_live_coverage_lower_ratio": None if coverage is None else coverage.lower,
        "quicksilver_live_coverage_upper_ratio": None if coverage is None else coverage.upper,
        "quicksilver_live_stated_coverage_ratio": quality.stated_coverage,
    }
    return {name: value for name, value in gauges.items() if value is not None}


def _info_labels(loaded: LoadedVersion) -> tuple[str, ...]:
    kind = "onnx" if loaded.artefact is None else loaded.artefact.kind
    return (loaded.name, str(loaded.version), kind, loaded.sha256, loaded.engine.device)


def _method_labels(method: Method) -> tuple[str, str, str]:
    service, _, name = method.path.removeprefix("/").rpartition("/")
    return grpc_type(method), service, name
