"""Metrics, gathered cheaply while calls are answered, and put into Prometheus' terms when somebody scrapes.

The hot path adds whole numbers to plain tables under one lock; families, labels and text exist only during a scrape.
The names of the call metrics are those that the gRPC ecosystem's dashboards know. Label values come from registered
methods and loaded versions alone, so that no caller can make series; anything else is `other`.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.calls import Method, grpc_type
from service.models import LoadedVersion, Models, VersionState
from service.status import Code

# From what was measured: an answer within one host takes 200 µs, a full batch some milliseconds.
SECONDS_BOUNDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
)
# One row takes 5 µs, 1,024 take 14 µs, 65,536 take 0.7 ms.
INFERENCE_SECONDS_BOUNDS: Final = (0.000005, 0.00001, 0.000025, 0.00005, *SECONDS_BOUNDS)
ROWS_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576)

OTHER: Final = ("other", "other", "other")
_METHOD_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")
_VERSION_LABELS: Final = ("model", "version")


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

    def buckets(self) -> list[tuple[str, float]]:
        """The cumulative counts, each with its bound as Prometheus writes it."""
        bounds = [*(_number(bound) for bound in self.bounds), "+Inf"]
        return [(bound, float(count)) for bound, count in zip(bounds, accumulate(self.counts), strict=True)]


class _MethodTable:
    """What happened to the calls of one method."""

    def __init__(self, labels: tuple[str, str, str]) -> None:
        self.labels = labels
        self.started = 0
        self.handled: Counter[Code] = Counter()
        self.handling_seconds = Histogram(SECONDS_BOUNDS)


class _VersionTable:
    """What one version ran."""

    def __init__(self) -> None:
        self.rows = 0
        self.batch_rows = Histogram(ROWS_BOUNDS)
        self.batch_calls = Histogram(ROWS_BOUNDS)
        self.queue_seconds = Histogram(SECONDS_BOUNDS)
        self.inference_seconds = Histogram(INFERENCE_SECONDS_BOUNDS)


class Metrics(Collector):
    """Is told what happens, and tells Prometheus. Every method may be called by any thread."""

    def __init__(self, methods: Iterable[Method], models: Models) -> None:
        self._models = models
        self._lock = threading.Lock()
        self._methods = {method.path: _MethodTable(_method_labels(method)) for method in methods}
        self._other = _MethodTable(OTHER)
        self._versions: dict[tuple[str, str], _VersionTable] = {}
        self._in_flight = 0

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
            for value in seconds:
                table.handling_seconds.observe(value)
            self._in_flight -= len(seconds)

    # Told by the dataplane --------------------------------------------------------------------------------------------

    def ran(self, version: LoadedVersion, rows: int, queue_seconds: Sequence[float], inference_seconds: float) -> None:
        """Learn of a run: its rows, how long each of its calls had waited, how long ONNX Runtime took."""
        key = (version.name, str(version.version))
        with self._lock:
            table = self._versions.get(key)
            if table is None:
                if not self._models.catalogue.holds(version):  # a last run of a retired version makes no new series
                    return
                table = self._versions[key] = _VersionTable()
            table.rows += rows
            table.batch_rows.observe(rows)
            table.batch_calls.observe(len(queue_seconds))
            table.inference_seconds.observe(inference_seconds)
            for value in queue_seconds:
                table.queue_seconds.observe(value)

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
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Yield every family as it stands at this instant."""
        with self._lock:
            families = [*self._call_families(), *self._run_families()]
        yield from families
        yield from self._model_families()

    def _call_families(self) -> Iterator[Metric]:
        started = CounterMetricFamily("grpc_server_started", "Calls begun.", labels=_METHOD_LABELS)
        handled = CounterMetricFamily("grpc_server_handled", "Calls ended.", labels=(*_METHOD_LABELS, "grpc_code"))
        handling = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Time from a call's begin to its end.", labels=_METHOD_LABELS
        )
        for table in (*self._methods.values(), self._other):
            started.add_metric(table.labels, table.started)
            for code in Code:  # those at 0 too: a rate needs a beginning
                handled.add_metric((*table.labels, _camel(code)), table.handled[code])
            histogram = table.handling_seconds
            handling.add_metric(table.labels, histogram.buckets(), histogram.total)
        in_flight = GaugeMetricFamily("quicksilver_in_flight_calls", "Calls begun and not ended.", self._in_flight)
        yield from (started, handled, handling, in_flight)

    def _run_families(self) -> Iterator[Metric]:
        rows = CounterMetricFamily("quicksilver_rows", "Rows answered.", labels=_VERSION_LABELS)
        tables = {**{key: _VersionTable() for key in self._loaded()}, **self._versions}
        for labels, table in tables.items():
            rows.add_metric(labels, table.rows)
        yield rows
        for name, text in (
            ("batch_rows", "Rows of a run."),
            ("batch_calls", "Calls that shared a run."),
            ("queue_seconds", "Time a call waited before its run."),
            ("inference_seconds", "Time of a run in ONNX Runtime."),
        ):
            family = HistogramMetricFamily(f"quicksilver_{name}", text, labels=_VERSION_LABELS)
            for labels, table in tables.items():
                histogram: Histogram = getattr(table, name)
                family.add_metric(labels, histogram.buckets(), histogram.total)
            yield family

    def _loaded(self) -> Iterator[tuple[str, str]]:
        for model in self._models.catalogue.models.values():
            yield from ((model.name, str(number)) for number, entry in model.versions.items() if entry.loaded)

    def _model_families(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "quicksilver_model_info", "A loaded version.", labels=(*_VERSION_LABELS, "kind", "sha256", "device")
        )
        ready = GaugeMetricFamily(
            "quicksilver_model_ready", "Whether a request that names no version is answered.", labels=("model",)
        )
        failed = GaugeMetricFamily(
            "quicksilver_version_failed", "1 for a version that could not be loaded.", labels=_VERSION_LABELS
        )
        failures = CounterMetricFamily(
            "quicksilver_load_failures", "Attempts to load a version that failed.", labels=("model",)
        )
        last_load = GaugeMetricFamily(
            "quicksilver_last_load_timestamp_seconds", "When a version was last loaded.", labels=("model",)
        )
        for name, record in self._models.load_records().items():
            failures.add_metric((name,), record.failures)
            if record.last_load_timestamp_seconds is not None:
                last_load.add_metric((name,), record.last_load_timestamp_seconds)
        for model in self._models.catalogue.models.values():
            ready.add_metric((model.name,), float(model.ready))
            for number, entry in model.versions.items():
                if entry.state is VersionState.FAILED:
                    failed.add_metric((model.name, str(number)), 1)
                elif entry.loaded is not None:
                    info.add_metric(_info_labels(entry.loaded), 1)
        yield from (info, ready, failed, failures, last_load)


def _info_labels(loaded: LoadedVersion) -> tuple[str, ...]:
    kind = "onnx" if loaded.artefact is None else loaded.artefact.kind
    return (loaded.name, str(loaded.version), kind, loaded.sha256, loaded.engine.device)


def _method_labels(method: Method) -> tuple[str, str, str]:
    service, _, name = method.path.removeprefix("/").rpartition("/")
    return grpc_type(method), service, name


def _camel(code: Code) -> str:
    """Name a code as the ecosystem's metrics do: `InvalidArgument`, but `OK`."""
    return "OK" if code is Code.OK else code.name.title().replace("_", "")


def _number(bound: float) -> str:
    return repr(float(bound))
