"""What the metrics stand at, as plain numbers: one table of every family, and a value of them at one instant.

Between the tables that the hot path adds to and the text that Prometheus reads stands a Snapshot: it can be sent to
another process, joined with others (`service.workers.merge`), and written as families, by one function for all cases.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Exemplar as PrometheusExemplar

from proto.drift import population_stability_index
from service.status import Code

# From what was measured: an answer within one host takes 200 µs, a full batch some milliseconds.
_SPELT_OTHERWISE: Final = {Code.OK: "OK", Code.CANCELLED: "Canceled"}
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
# Readings are noisy by about 2 °C; two versions of one model differ by less, unless one of them is wrong.
DIFFERENCE_CELSIUS_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)

# °C: a fit of eleven readings is off by about one inside of what it was trained on, an MLP far outside by tens.
ERROR_BOUNDS: Final = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100)

MIN_REFERENCE_ROWS: Final = 100
"""Training rows without which a histogram of them says nothing about drift."""
MIN_WINDOW_ROWS: Final = 500
"""Rows that a window must hold; docs/metrics.md says how often chance alone passes 0.25 then."""

METHOD_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")
VERSION_LABELS: Final = ("model", "version")

STARTED: Final = "grpc_server_started"
HANDLED: Final = "grpc_server_handled"
HANDLING: Final = "grpc_server_handling_seconds"
ERROR: Final = "quicksilver_error_against_exact_law_celsius"
DRIFT: Final = "quicksilver_drift_psi"
DRIFT_ROWS: Final = "quicksilver_drift_window_rows"

Labels: TypeAlias = tuple[str, ...]
"""The values of a family's labels, in the order of their names."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram holds: how many values lie between two bounds each, and last above all; and their sum."""

    counts: tuple[int, ...]
    total: float

    def buckets(self, bounds: Sequence[float]) -> list[tuple[str, float]]:
        """The cumulative counts, each with its bound as Prometheus writes it."""
        names = [*(repr(float(bound)) for bound in bounds), "+Inf"]
        return [(name, float(count)) for name, count in zip(names, accumulate(self.counts), strict=True)]


@dataclass(frozen=True, slots=True)
class Window:
    """Inputs of the last while against those of the training: counts by column, and by bin of its reference."""

    expected: tuple[tuple[int, ...], ...]
    found: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        """Rows that were looked at in the last while."""
        return sum(self.found[0])

    @property
    def drift(self) -> float | None:
        """The population stability index of the column where it is largest.

        None where the reference or the window is too small to tell drift from chance.
        """
        if sum(self.expected[0]) < MIN_REFERENCE_ROWS or self.rows < MIN_WINDOW_ROWS:
            return None
        columns = zip(self.expected, self.found, strict=True)
        return max(population_stability_index(expected, found) for expected, found in columns)


class Exemplar(NamedTuple):
    """One value that a bucket counted, and the trace that it came from."""

    trace_id: str
    value: float
    timestamp_seconds: float
    """When it was counted, in Unix time."""


class Counter(NamedTuple):
    """A family of numbers that only grow. Those of several processes are added, or all of them count the same."""

    text: str
    labels: Labels
    together: Literal["sum", "most"] = "sum"


class Histogram(NamedTuple):
    """A family of distributions. Those of several processes are added."""

    text: str
    labels: Labels
    bounds: tuple[float, ...]


class Gauge(NamedTuple):
    """A family of states, and what several processes' states are together."""

    text: str
    labels: Labels
    together: Literal["sum", "least", "most"]


FAMILIES: Final[Mapping[str, Counter | Histogram | Gauge]] = {
    STARTED: Counter("Calls begun.", METHOD_LABELS),
    HANDLED: Counter("Calls ended.", (*METHOD_LABELS, "grpc_code")),
    HANDLING: Histogram("Time from a call's begin to its end.", METHOD_LABELS, SECONDS_BOUNDS),
    "quicksilver_in_flight_calls": Gauge("Calls begun and not ended.", (), "sum"),
    "quicksilver_shed_calls": Counter("Calls refused for load or while draining, or given up for it.", ("reason",)),
    "quicksilver_connections": Gauge("Connections open; not known of grpcio's front.", (), "sum"),
    "quicksilver_connections_opened": Counter("Connections that came, those closed at once included.", ()),
    "quicksilver_connections_closed": Counter("Connections that went.", ("reason",)),
    "quicksilver_rows": Counter("Rows answered.", VERSION_LABELS),
    "quicksilver_batch_rows": Histogram("Rows of a run.", VERSION_LABELS, ROWS_BOUNDS),
    "quicksilver_batch_calls": Histogram("Calls that shared a run.", VERSION_LABELS, ROWS_BOUNDS),
    "quicksilver_queue_seconds": Histogram("Time a call waited before its run.", VERSION_LABELS, SECONDS_BOUNDS),
    "quicksilver_inference_seconds": Histogram(
        "Time of a run in ONNX Runtime.", VERSION_LABELS, INFERENCE_SECONDS_BOUNDS
    ),
    "quicksilver_model_info": Gauge("A loaded version.", (*VERSION_LABELS, "kind", "sha256", "device"), "most"),
    "quicksilver_model_ready": Gauge("Whether a request that names no version is answered.", ("model",), "least"),
    "quicksilver_label_info": Gauge("A label in effect.", ("model", "label", "version"), "most"),
    "quicksilver_device_info": Gauge(
        "A device that versions really run on, and the one asked for.", ("requested", "used"), "most"
    ),
    "quicksilver_golden_deviation_celsius": Gauge(
        "Largest difference of an answer from its golden vector when the version was loaded.", VERSION_LABELS, "most"
    ),
    "quicksilver_version_failed": Gauge("1 for a version that could not be loaded.", VERSION_LABELS, "most"),
    "quicksilver_canary_share": Gauge("The share that a canary answers; 0 in the shadow.", VERSION_LABELS, "most"),
    "quicksilver_canary_calls": Counter("Calls that named no version and were given to a canary.", VERSION_LABELS),
    "quicksilver_canary_fallback_calls": Counter(
        "Calls that a canary could not answer, and the stable version did.", VERSION_LABELS
    ),
    "quicksilver_shadow_rows": Counter("Rows that a canary ran in the shadow.", VERSION_LABELS),
    "quicksilver_shadow_failed_rows": Counter("Of them, those without a finite answer.", VERSION_LABELS),
    "quicksilver_shadow_dropped_rows": Counter("Rows not run in the shadow, for lack of time.", ("model",)),
    "quicksilver_shadow_difference_celsius": Histogram(
        "How far a canary's answer in the shadow lies from the one given.", VERSION_LABELS, DIFFERENCE_CELSIUS_BOUNDS
    ),
    "quicksilver_promotions": Counter("Moves of stable to another version.", ("model",), "most"),
    "quicksilver_rollbacks": Counter("Moves of stable back to the version before.", ("model",), "most"),
    "quicksilver_load_failures": Counter("Attempts to load a version that failed.", ("model",)),
    "quicksilver_observations": Counter("Observations reported, by what became of them.", ("result",)),
    # Every worker measures against the same store, so that theirs differ by no more than when they looked.
    "quicksilver_sampled_rows": Counter("Answered rows that were looked at.", VERSION_LABELS),
    "quicksilver_outside_domain_rows": Counter("Those of them outside the training domain.", VERSION_LABELS),
    ERROR: Histogram("Absolute difference of sampled answers from the exact law.", VERSION_LABELS, ERROR_BOUNDS),
    DRIFT: Gauge("Population stability index of sampled inputs against those of the training.", VERSION_LABELS, "most"),
    DRIFT_ROWS: Gauge("Sampled rows in the sliding window of the drift.", VERSION_LABELS, "sum"),
    "quicksilver_live_observations": Gauge(
        "Latest observations that a version is measured on.", VERSION_LABELS, "most"
    ),
    "quicksilver_live_mae_celsius": Gauge("Mean absolute error against observations.", VERSION_LABELS, "most"),
    "quicksilver_live_mae_lower_celsius": Gauge("Its lower 95 % bound.", VERSION_LABELS, "most"),
    "quicksilver_live_mae_upper_celsius": Gauge("Its upper 95 % bound.", VERSION_LABELS, "most"),
    "quicksilver_live_mse_celsius2": Gauge("Mean squared error against observations.", VERSION_LABELS, "most"),
    "quicksilver_live_mse_lower_celsius2": Gauge("Its lower 95 % bound.", VERSION_LABELS, "most"),
    "quicksilver_live_mse_upper_celsius2": Gauge("Its upper 95 % bound.", VERSION_LABELS, "most"),
    "quicksilver_live_coverage_ratio": Gauge(
        "Share of observations within the prediction interval.", VERSION_LABELS, "most"
    ),
    "quicksilver_live_coverage_lower_ratio": Gauge("Its lower 95 % bound.", VERSION_LABELS, "most"),
    "quicksilver_live_coverage_upper_ratio": Gauge("Its upper 95 % bound.", VERSION_LABELS, "most"),
    "quicksilver_live_stated_coverage_ratio": Gauge(
        "The share that the version states for its interval.", VERSION_LABELS, "most"
    ),
    "quicksilver_last_load_timestamp_seconds": Gauge("When a version was last loaded.", ("model",), "most"),
}
"""Every family of ours, in the order in which they are written."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The series of each family at one instant, by family and labels. A family without series may be missing.

    `numbers` holds those of counters and gauges, `distributions` those of histograms. `windows`, by model and version,
    are what the gauges of drift are made of when they are written: counts can be joined, an index cannot. `exemplars`
    are those of the times of calls, by method and by the place of their bucket.
    """

    numbers: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)
    distributions: Mapping[str, Mapping[Labels, Distribution]] = field(default_factory=dict)
    windows: Mapping[Labels, Window] = field(default_factory=dict)
    exemplars: Mapping[Labels, Mapping[int, Exemplar]] = field(default_factory=dict)


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Write a snapshot in Prometheus' terms: every family, those without series too."""
    drift = _drift(snapshot.windows)
    for name, family in FAMILIES.items():
        numbers = {**snapshot.numbers.get(name, {}), **drift.get(name, {})}
        if isinstance(family, Counter):
            yield _counter(name, family, _with_zeros(snapshot) if name == HANDLED else numbers)
        elif isinstance(family, Gauge):
            gauge = GaugeMetricFamily(name, family.text, labels=family.labels)
            for labels, value in numbers.items():
                gauge.add_metric(labels, value)
            yield gauge
        else:
            exemplars = snapshot.exemplars if name == HANDLING else {}
            yield _histogram(name, family, snapshot.distributions.get(name, {}), exemplars)


def _drift(windows: Mapping[Labels, Window]) -> dict[str, dict[Labels, float]]:
    indices = {labels: window.drift for labels, window in windows.items()}
    return {
        DRIFT: {labels: index for labels, index in indices.items() if index is not None},
        DRIFT_ROWS: {labels: window.rows for labels, window in windows.items()},
    }


def _counter(name: str, family: Counter, numbers: Mapping[Labels, float]) -> Metric:
    counter = CounterMetricFamily(name, family.text, labels=family.labels)
    for labels, value in numbers.items():
        counter.add_metric(labels, value)
    return counter


def _histogram(
    name: str,
    family: Histogram,
    distributions: Mapping[Labels, Distribution],
    exemplars: Mapping[Labels, Mapping[int, Exemplar]],
) -> Metric:
    histogram = HistogramMetricFamily(name, family.text, labels=family.labels)
    for labels, distribution in distributions.items():
        known = exemplars.get(labels, {})
        buckets: list[tuple[str, float] | tuple[str, float, PrometheusExemplar]] = [
            (*bucket, _exemplar(known[place])) if place in known else bucket
            for place, bucket in enumerate(distribution.buckets(family.bounds))
        ]
        histogram.add_metric(labels, buckets, distribution.total)
    return histogram


def _exemplar(known: Exemplar) -> PrometheusExemplar:
    return PrometheusExemplar({"trace_id": known.trace_id}, known.value, known.timestamp_seconds)


def _with_zeros(snapshot: Snapshot) -> dict[Labels, float]:
    """The calls that ended, by code; the codes that never came are 0, since a rate needs a beginning."""
    methods = snapshot.numbers.get(STARTED, {})
    zeros = {(*method, code_name(code)): 0.0 for method in methods for code in Code}
    return {**zeros, **snapshot.numbers.get(HANDLED, {})}


def code_name(code: Code) -> str:
    """Name a code as the ecosystem's metrics do: `InvalidArgument`, but `OK`, and `Canceled` with one l."""
    return _SPELT_OTHERWISE.get(code) or code.name.title().replace("_", "")


def to_plain(snapshot: Snapshot) -> dict[str, Any]:
    """Write a snapshot in what JSON knows."""
    return {
        "numbers": {name: [[*item] for item in series.items()] for name, series in snapshot.numbers.items()},
        "distributions": {
            name: [[labels, value.counts, value.total] for labels, value in series.items()]
            for name, series in snapshot.distributions.items()
        },
        "exemplars": [
            [labels, [[place, *exemplar] for place, exemplar in known.items()]]
            for labels, known in snapshot.exemplars.items()
        ],
        "windows": [[labels, window.expected, window.found] for labels, window in snapshot.windows.items()],
    }


def from_plain(plain: Mapping[str, Any]) -> Snapshot:
    """Read what `to_plain` wrote."""
    return Snapshot(
        {name: {tuple(labels): value for labels, value in series} for name, series in plain["numbers"].items()},
        {
            name: {tuple(labels): Distribution(tuple(counts), total) for labels, counts, total in series}
            for name, series in plain["distributions"].items()
        },
        {
            tuple(labels): Window(tuple(map(tuple, expected)), tuple(map(tuple, found)))
            for labels, expected, found in plain["windows"]
        },
        {
            tuple(labels): {place: Exemplar(*exemplar) for place, *exemplar in known}
            for labels, known in plain["exemplars"]
        },
    )
