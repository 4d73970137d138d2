"""The metrics of several processes as one: what holds for every way to split a workload."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.metrics import Histogram
from service.snapshot import FAMILIES, Gauge, Snapshot, families, from_plain, to_plain
from service.snapshot import Histogram as HistogramFamily
from service.workers.merge import Ledger, lasting, merge, of_known, set_back

METHODS = (("unary", "a.Service", "One"), ("unary", "a.Service", "Two"))
VERSIONS = (("linear", "1"), ("linear", "2"), ("mlp", "1"))
ROWS, BATCH_ROWS, STARTED = "quicksilver_rows", "quicksilver_batch_rows", "grpc_server_started"
IN_FLIGHT, READY, INFO = "quicksilver_in_flight_calls", "quicksilver_model_ready", "quicksilver_model_info"


@dataclass(frozen=True)
class Event:
    """A call of a method that made a run of some rows. Rows are whole, so that sums are exact in any order."""

    method: tuple[str, ...]
    version: tuple[str, ...]
    rows: int


def counted(events: Sequence[Event], versions: Sequence[tuple[str, ...]] = VERSIONS) -> Snapshot:
    """What a process that saw these events has counted; as a server does, it has a series for each version it holds."""
    bounds = FAMILIES[BATCH_ROWS]
    assert isinstance(bounds, HistogramFamily)
    batches = {version: Histogram(bounds.bounds) for version in versions}
    started: dict[tuple[str, ...], float] = dict.fromkeys(METHODS, 0.0)
    rows = dict.fromkeys(versions, 0.0)
    ready: dict[tuple[str, ...], float] = {(name,): 1.0 for name, _ in versions}
    for event in events:
        started[event.method] += 1
        if event.version in rows:
            rows[event.version] += event.rows
            batches[event.version].observe(event.rows)
    return Snapshot(
        {STARTED: started, ROWS: rows, IN_FLIGHT: {(): float(len(events))}, READY: ready},
        {BATCH_ROWS: {version: batch.distribution() for version, batch in batches.items()}},
    )


EVENTS = st.builds(Event, st.sampled_from(METHODS), st.sampled_from(VERSIONS), st.integers(0, 1 << 20))
WORKLOADS = st.lists(st.tuples(EVENTS, st.integers(0, 3)), max_size=40)


def parts(workload: Sequence[tuple[Event, int]], count: int) -> list[list[Event]]:
    """The events of each of several processes."""
    return [[event for event, place in workload if place % count == part] for part in range(count)]


@given(WORKLOADS, st.integers(1, 4))
def test_parts_together_are_the_whole(workload: list[tuple[Event, int]], count: int) -> None:
    """However calls are spread over workers, what they count together is what one process counts of all calls."""
    whole = counted([event for event, _ in workload])
    assert merge(counted(part) for part in parts(workload, count)) == whole


@given(WORKLOADS)
def test_order_and_grouping_do_not_matter(workload: list[tuple[Event, int]]) -> None:
    """Snapshots may be joined in any order and in any groups, and nothing joined is nothing."""
    one, two, three = (counted(part) for part in parts(workload, 3))
    assert merge((one, two, three)) == merge((three, merge((two, one)))) == merge((Snapshot(), one, two, three))
    assert merge(()) == Snapshot()


@given(WORKLOADS)
def test_json_keeps_everything(workload: list[tuple[Event, int]]) -> None:
    """A snapshot that was sent is the same snapshot."""
    snapshot = counted([event for event, _ in workload])
    assert from_plain(to_plain(snapshot)) == snapshot


@pytest.mark.parametrize(
    ("name", "values", "together"), [(IN_FLIGHT, (3, 4), 7), (READY, (1, 0), 0), (INFO, (1, 1), 1)]
)
def test_gauges_go_together_as_they_mean(name: str, values: tuple[float, float], together: float) -> None:
    """Calls in flight are added, a model is ready where it is in all workers, a loaded version is told of once."""
    labels = ("x",) * len(FAMILIES[name].labels)
    joined = merge(Snapshot({name: {labels: value}}) for value in values)
    assert joined.numbers[name] == {labels: together}


def test_every_family_can_be_joined_and_written() -> None:
    """No family is without a rule, and each is written with its labels."""
    numbers = {
        name: {("x",) * len(known.labels): 2.0} for name, known in FAMILIES.items() if hasattr(known, "together")
    }
    joined = merge((Snapshot(numbers), Snapshot(numbers)))
    for family in families(joined):
        known = FAMILIES[family.name]
        if isinstance(known, Gauge):
            (sample,) = family.samples
            assert sample.value == (4.0 if known.together == "sum" else 2.0)
            assert tuple(sample.labels) == known.labels


@given(WORKLOADS, st.lists(st.tuples(st.sampled_from(["report", "die"]), st.integers(0, 3)), max_size=40))
def test_counters_survive_their_workers(workload: list[tuple[Event, int]], steps: list[tuple[str, int]]) -> None:
    """Whoever dies when, the total is what was reported by the living and the dead, and no counter ever goes back."""
    ledger = Ledger()
    seen: dict[int, list[Event]] = {place: [] for place in range(4)}
    numbers = {place: place for place in range(4)}
    reported: list[Event] = []
    last: dict[int, list[Event]] = {place: [] for place in range(4)}
    for place in range(4):
        ledger.report(numbers[place], counted([]))
    before: dict[tuple[str, ...], float] = {}
    for index, (kind, place) in enumerate(steps):
        for event, where in workload[index :: max(1, len(steps))]:
            seen[where].append(event)
        if kind == "report":
            ledger.report(numbers[place], counted(seen[place]))
            last[place] = list(seen[place])
        else:
            ledger.leave(numbers[place])
            reported += last[place]
            seen[place], last[place] = [], []
            numbers[place] += 4
            ledger.report(numbers[place], counted([]))
        total = lasting(ledger.total())
        assert total == lasting(counted([*reported, *(event for events in last.values() for event in events)]))
        assert all(total.numbers[ROWS][version] >= value for version, value in before.items())
        before = dict(total.numbers[ROWS])


def test_a_version_that_is_gone_everywhere_leaves_no_series() -> None:
    """Its series stay while one worker has it, with what all counted, and then vanish, those of the dead too."""
    ledger = Ledger()
    old, new = VERSIONS[0], VERSIONS[1]
    ran = [Event(METHODS[0], old, 5)]
    for worker in (1, 2, 3):
        ledger.report(worker, counted(ran, [old]))
    ledger.leave(3)
    ledger.report(1, counted(ran, [new]))
    assert ledger.total().numbers[ROWS] == {old: 15, new: 0}
    ledger.report(2, counted(ran, [new]))
    assert ledger.total().numbers[ROWS] == {new: 0}
    assert ledger.total().distributions[BATCH_ROWS].keys() == {new}
    assert ledger.total().numbers[STARTED][METHODS[0]] == 3


def test_a_version_that_came_again_goes_on_where_it_was() -> None:
    """A worker whose count of a version began anew between two reports takes nothing away from the total."""
    before, after = counted([Event(METHODS[0], VERSIONS[0], 9)]), counted([Event(METHODS[0], VERSIONS[0], 2)])
    ledger = Ledger()
    ledger.report(1, before)
    ledger.report(1, after)
    assert ledger.total().numbers[ROWS][VERSIONS[0]] == 11
    assert sum(ledger.total().distributions[BATCH_ROWS][VERSIONS[0]].counts) == 2


def test_nothing_is_dropped_while_nobody_lives() -> None:
    """Between the death of the last worker and the first report of the next, totals stand still."""
    ledger = Ledger()
    ledger.report(1, counted([Event(METHODS[0], VERSIONS[0], 9)]))
    before = lasting(ledger.total())
    ledger.leave(1)
    assert lasting(ledger.total()) == before
    assert IN_FLIGHT not in ledger.total().numbers


@given(WORKLOADS)
def test_what_went_on_growing_was_not_set_back(workload: list[tuple[Event, int]]) -> None:
    """Of a process that only counts on, nothing departs."""
    events = [event for event, _ in workload]
    departed = set_back(counted(events[: len(events) // 2]), counted(events))
    assert not any(departed.numbers.values())
    assert not any(departed.distributions.values())


def test_what_has_no_model_is_always_known() -> None:
    """Calls of methods stay counted whatever models there are."""
    kept = of_known(counted([Event(METHODS[0], VERSIONS[0], 9)]), Snapshot())
    assert kept.numbers[STARTED][METHODS[0]] == 1
    assert kept.numbers[ROWS] == {}
