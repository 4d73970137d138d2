"""Counts of several processes joined: as one process would have counted all of it."""

import json
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from service.open_inference.tables import (
    MAX_BATCH_SIZES,
    Duration,
    Key,
    Steps,
    Table,
    TablesLedger,
    from_plain,
    joined,
    to_plain,
)

# Halves, so that sums are exact in whatever order they are made.
DURATIONS = st.builds(Duration, st.integers(0, 1 << 20), st.integers(0, 1 << 20).map(lambda halves: halves / 2))
STEPS = st.builds(Steps, DURATIONS, DURATIONS, DURATIONS)
COUNTS = st.integers(0, 1 << 30)
TABLES = st.builds(
    Table, DURATIONS, DURATIONS, DURATIONS, STEPS, st.dictionaries(st.integers(1, 8), STEPS), COUNTS, COUNTS, COUNTS
)
KEYS: st.SearchStrategy[Key] = st.tuples(st.sampled_from(["linear", "mlp"]), st.integers(1, 3))
REPORTS = st.dictionaries(KEYS, TABLES)


@given(REPORTS)
def test_tables_travel_as_json(tables: dict[Key, Table]) -> None:
    """What is read is what was written."""
    assert from_plain(json.loads(json.dumps(to_plain(tables)))) == tables


@given(st.lists(REPORTS, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_joining_does_not_matter(reports: list[dict[Key, Table]], chance: Random) -> None:
    """Nor does joining what was joined; and what was given is left as it was."""
    before = json.dumps([to_plain(report) for report in reports])
    total = joined(reports)
    shuffled = reports[:]
    chance.shuffle(shuffled)
    assert joined(shuffled) == total
    assert joined([joined(reports[:2]), joined(reports[2:])]) == total
    assert json.dumps([to_plain(report) for report in reports]) == before
    assert sum(table.inferences for table in total.values()) == sum(
        table.inferences for report in reports for table in report.values()
    )


def test_sizes_are_bounded_whoever_counted_them() -> None:
    """Further sizes count in the totals alone."""
    reports = [{("linear", 1): Table()} for _ in range(2)]
    for start, report in zip((0, MAX_BATCH_SIZES - 1), reports, strict=True):
        for size in range(start, start + MAX_BATCH_SIZES):
            assert report["linear", 1].steps_of(size) is not None
    assert reports[0]["linear", 1].steps_of(MAX_BATCH_SIZES) is None
    assert len(joined(reports)["linear", 1].by_size) == MAX_BATCH_SIZES


def test_counts_outlive_a_worker_as_long_as_somebody_has_the_version() -> None:
    """What a dead worker counted stays; of a version that nobody has any longer, nothing does."""
    ledger = TablesLedger()
    ledger.report(1, {("linear", 1): Table(inferences=5), ("linear", 2): Table(inferences=7)})
    ledger.report(2, {("linear", 1): Table(inferences=3)})
    ledger.leave(1)
    assert ledger.total() == {("linear", 1): Table(inferences=8)}
    ledger.report(2, {("linear", 1): Table(inferences=4)})
    ledger.report(3, {("linear", 1): Table(), ("linear", 2): Table(inferences=1)})
    assert ledger.total() == {("linear", 1): Table(inferences=9), ("linear", 2): Table(inferences=1)}
    ledger.leave(2)
    ledger.leave(3)
    assert ledger.total() == {("linear", 1): Table(inferences=9), ("linear", 2): Table(inferences=1)}
