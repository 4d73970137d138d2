"""A window of any size is read into bounded memory, and a flood in it costs nobody else a row."""

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from proto.observations import Observation, ObservationStore
from training.observed import Rules
from training.window import Window, keep, level, read_window


def said(sources: list[str]) -> Iterator[Observation]:
    """One observation a second by these sources; the reading is the place."""
    for place, source in enumerate(sources):
        yield Observation(f"o-{place}", float(place), float(-place), float(place), source)


def kept(window: Window) -> Counter[str]:
    """How many rows of each source were kept."""
    return Counter(window.observed.source.tolist())


@given(st.lists(st.sampled_from("aaaaaaaabbbcd"), max_size=400), st.integers(4, 60))
def test_so_many_are_kept_at_most(sources: list[str], most: int) -> None:
    """What is kept ascends in time with its columns together; all are counted, and whoever said little keeps all."""
    window = keep(said(sources), most)
    observed = window.observed
    assert len(observed) <= most
    assert window.read == Counter(sources)
    assert np.array_equal(observed.fahrenheit, observed.seconds)
    assert np.array_equal(observed.celsius, -observed.seconds)
    assert [sources[int(second)] for second in observed.seconds] == observed.source.tolist()
    if len(sources) <= most:
        assert len(observed) == len(sources)
    for source, count in Counter(sources).items():
        assert kept(window)[source] == count or count > most * 3 // 4 // 4


def test_a_flood_costs_the_others_nothing() -> None:
    """Of a source that says nearly all there is, rows are left out, evenly over its time; of the others none."""
    sources = ["a", "b"] * 100 + ["loud"] * 50_000 + ["a", "b"] * 100
    window = keep(said(sources), 1000)
    assert window.read == {"a": 200, "b": 200, "loud": 50_000}
    assert (kept(window)["a"], kept(window)["b"]) == (200, 200)
    assert 300 <= kept(window)["loud"] <= 600
    seconds = window.observed.seconds[window.observed.source == "loud"]
    assert len({later - earlier for earlier, later in pairwise(seconds.tolist())}) == 1


def test_more_sources_than_rows_are_bounded_too() -> None:
    """Names that are made up for each row fill no memory: those that came first are forgotten."""
    window = keep(said([f"made-up-{place}" for place in range(5000)]), 100)
    assert len(window.observed) <= 100
    assert len(window.read) <= 100
    assert "made-up-4999" in window.read


def test_nothing_is_kept_of_nothing() -> None:
    """An empty window has columns of no rows."""
    assert len(keep(said([]), 10).observed) == 0


@given(st.lists(st.integers(1, 100), min_size=1, max_size=20), st.integers(20, 500))
def test_level_fills_the_room(counts: list[int], most: int) -> None:
    """Cut to it, all have at most so many together; cut one higher, they have more, or all."""
    found = level(counts, most)
    assert sum(min(count, found) for count in counts) <= most
    assert found >= max(counts) or sum(min(count, found + 1) for count in counts) > most


def test_a_store_of_any_size_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """Reading four times the rows takes no more memory: neither of the store nor of what is kept."""
    url = f"sqlite:///{tmp_path}/observations.db"
    rows = 40_000
    with ObservationStore.open(url) as store:
        store.add(list(said(["a", "b"] * (rows // 2))))
    rules = Rules(window_seconds=1e6, most_rows=1000)

    def peak_bytes(until_seconds: float) -> int:
        tracemalloc.start()
        window = read_window(url, rules, until_seconds)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(window.read.values()) == until_seconds
        assert len(window.observed) <= 1000
        return peak

    peak_bytes(100)
    small, all_rows = peak_bytes(rows / 4), peak_bytes(rows)
    assert all_rows < 1.5 * small
    assert all_rows < rows * 200, "a row in memory takes more than that"
