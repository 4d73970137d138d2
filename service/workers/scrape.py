"""What Prometheus reads of a server with several workers: their metrics as one, and those of each process by itself.

Metrics of calls, runs and models are joined, and look as those of a single process do. Those that only mean something
of one process (`process_*`, `python_gc_*`) have the label `worker`: the number of a worker's place, or `parent`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.closed import Closed
from service.snapshot import Labels, Snapshot, families

PARENT: Final = "parent"
_WORKER: Final = "worker"

_GARBAGE: Final = (
    ("python_gc_objects_collected", "collected", "Objects collected during gc"),
    ("python_gc_objects_uncollectable", "uncollectable", "Uncollectable objects found during GC"),
    ("python_gc_collections", "collections", "Number of times this generation was collected"),
)
"""Families under the names of prometheus-client, each with its key in `gc.get_stats()`."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place for a worker, and who holds it now."""

    slot: int
    up: bool
    connections: int
    replacements: int
    report_age_seconds: float | None
    """Since it last reported what it counted."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its number, its name in the metrics, and what Python's collector did there, by generation."""

    pid: int
    name: str
    garbage: list[dict[str, int]]


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a scrape tells."""

    joined: Snapshot
    places: list[Place]
    processes: list[Process]


def refused_by_parent(refused: Mapping[Closed, int]) -> Snapshot:
    """What the parent adds to the workers' counts: connections that it closed as they came."""
    closed: dict[Labels, float] = {(reason.value,): count for reason, count in refused.items()}
    opened: dict[Labels, float] = {(): sum(refused.values())}
    return Snapshot({"quicksilver_connections_opened": opened, "quicksilver_connections_closed": closed})


class WorkersCollector(Collector):
    """Asks the workers when somebody scrapes, and tells what they say as one."""

    def __init__(self, ask: Callable[[], State]) -> None:
        self._ask = ask

    def register(self, registry: CollectorRegistry) -> None:
        """Expose these metrics, and the platform's, in a registry."""
        registry.register(self)
        PlatformCollector(registry=registry)

    def describe(self) -> Iterator[Metric]:
        """Name our families without their samples, so that a registry can refuse what collides."""
        yield from families(Snapshot())
        yield from place_families(())

    def collect(self) -> Iterator[Metric]:
        """Yield every family as it stands at this instant."""
        state = self._ask()
        yield from families(state.joined)
        yield from place_families(state.places)
        yield from _garbage_families(state.processes)
        yield from by_worker({process.name: _process_families(process.pid) for process in state.processes})


def place_families(places: Iterable[Place]) -> Iterator[Metric]:
    """Write what is known of the workers themselves."""
    up = GaugeMetricFamily("quicksilver_worker_up", "1 for a worker that takes connections.", labels=(_WORKER,))
    connections = GaugeMetricFamily("quicksilver_worker_connections", "Connections it has.", labels=(_WORKER,))
    replacements = CounterMetricFamily(
        "quicksilver_worker_restarts", "Times that another took the place of one that ended.", labels=(_WORKER,)
    )
    age = GaugeMetricFamily(
        "quicksilver_worker_report_age_seconds", "Time since it reported what it counted.", labels=(_WORKER,)
    )
    for place in places:
        labels = (str(place.slot),)
        up.add_metric(labels, float(place.up))
        connections.add_metric(labels, place.connections)
        replacements.add_metric(labels, place.replacements)
        if place.report_age_seconds is not None:
            age.add_metric(labels, place.report_age_seconds)
    yield from (up, connections, replacements, age)


def _garbage_families(processes: Iterable[Process]) -> Iterator[Metric]:
    known = list(processes)
    for name, key, text in _GARBAGE:
        family = CounterMetricFamily(name, text, labels=(_WORKER, "generation"))
        for process in known:
            for generation, counts in enumerate(process.garbage):
                family.add_metric((process.name, str(generation)), counts[key])
        yield family


def _process_families(pid: int) -> list[Metric]:
    return list(ProcessCollector(pid=lambda: pid, registry=None).collect())


def by_worker(collected: Mapping[str, Iterable[Metric]]) -> list[Metric]:
    """Put the families of several processes together, each sample labelled with the process it is of."""
    together: dict[str, Metric] = {}
    for worker, metrics in collected.items():
        for metric in metrics:
            family = together.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                family.add_sample(sample.name, {_WORKER: worker, **sample.labels}, sample.value)
    return list(together.values())
