"""Observations chosen and divided: a flood, a broken source and a jump each get what the rules promise them."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import law
from training.observed import (
    Observed,
    Rules,
    divide,
    judging_sources,
    most_of_one,
    repeated_median_line,
    select,
    shortages,
    stretches,
    within_share,
)

RULES = Rules()


def observe(
    rows: int, sources: tuple[str, ...] = ("a", "b", "c"), *, seed: int = 0, offset: float = 0.0, start: float = 0.0
) -> Observed:
    """Observations of the exact law with a scatter of 0.3 °C, one a second, by the sources in turn."""
    random = np.random.default_rng(seed)
    fahrenheit = random.uniform(20.0, 90.0, rows)
    celsius = law.celsius(fahrenheit) + offset + random.normal(0.0, 0.3, rows)
    source = np.array([sources[place % len(sources)] for place in range(rows)])
    return Observed(fahrenheit, celsius, start + np.arange(rows, dtype=np.float64), source)


def together(*parts: Observed) -> Observed:
    """Observations of several, in the order of time."""
    seconds = np.concatenate([part.seconds for part in parts])
    order = np.argsort(seconds, kind="stable")
    columns = [
        np.concatenate([getattr(part, name) for part in parts])[order] for name in ("fahrenheit", "celsius", "source")
    ]
    return Observed(columns[0], columns[1], seconds[order], columns[2])


# The share ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.floats(0.05, 1.0))
def test_no_source_has_more_than_its_share(counts: list[int], share: float) -> None:
    """Of what is left each source has its share at most, or as many as the next; and one row more would break that."""
    most = most_of_one(counts, share)
    descending = sorted(counts, reverse=True)
    next_one = descending[min(max(1, math.ceil(1 / share) - 2), len(counts) - 1)]
    assert 1 <= most <= max(counts)
    assert most <= max(next_one, share * sum(min(count, most) for count in counts) * (1 + 1e-9))
    if most < max(counts):
        assert most + 1 > max(next_one, share * sum(min(count, most + 1) for count in counts))


@pytest.mark.parametrize(
    ("counts", "share", "most"),
    [
        ((300, 300), 0.4, 300),
        ((300, 300, 5), 0.4, 300),
        ((1000, 300), 0.4, 300),
        ((1000, 300, 5), 0.4, 300),
        ((1000, 300, 300), 0.4, 400),
        ((1000, 1000, *[10] * 10), 0.2, 33),
        ((1000, 5), 0.5, 5),
        ((1000,), 0.4, 1000),
    ],
)
def test_a_small_source_takes_nothing_from_large_ones(counts: tuple[int, ...], share: float, most: int) -> None:
    """Two sources may have half each, also where a third says little; a flood never has more than the next."""
    assert most_of_one(counts, share) == most


def test_rows_over_the_share_are_left_out_evenly() -> None:
    """What is left of a source that reports too much is spread over all of its time."""
    sources = np.array(["loud"] * 900 + ["a", "b"] * 50)
    kept = within_share(sources, 0.4)
    loud = kept[kept < 900]
    assert Counter(sources[kept].tolist()) == {"loud": 66, "a": 50, "b": 50}
    assert np.ptp(np.diff(loud)) <= 1


@given(st.lists(st.sampled_from("abc"), max_size=300), st.floats(0.1, 1.0))
def test_stretches_follow_each_other(sources: list[str], share: float) -> None:
    """They cover all rows once, in order."""
    found = stretches(np.array(sources, dtype=np.str_), share)
    assert [row for start, stop in found for row in range(start, stop)] == list(range(len(sources)))


# Outliers -------------------------------------------------------------------------------------------------------------


@given(st.floats(-3, 3), st.floats(-50, 50), st.integers(0, 2**32))
def test_line_through_a_majority(slope: float, intercept: float, seed: int) -> None:
    """However the lesser half of the rows lies, the line is that of the greater half."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 100, 41)
    y = slope * x + intercept
    y[random.permutation(41)[:18]] += random.uniform(20, 1e6)
    found = repeated_median_line(x, y)
    assert found == pytest.approx((slope, intercept), abs=20)
    assert abs(found[0] - slope) < 0.6


def test_line_through_one_reading() -> None:
    """Where all readings are equal, the line is level, at the median of the truths."""
    assert repeated_median_line(np.full(5, 50.0), np.array([1.0, 2.0, 3.0, 4.0, 90.0])) == (0.0, 3.0)


def test_single_mistakes_are_left_out() -> None:
    """A truth that is far off among others is not used, and counts as an outlier of its source; the others are used."""
    observed = observe(300)
    observed.celsius[[17, 150, 298]] += 25.0
    selection = select(observed, RULES)
    assert sum(counts.outliers for counts in selection.by_source.values()) == 3
    assert len(selection.used) == 297


def test_a_flood_of_wrong_rows_is_left_out() -> None:
    """Ten times as many rows as all others together, all wrong and within seconds: share and outliers remove them."""
    honest = observe(300)
    flood = observe(3000, ("bad",), seed=1, offset=20.0, start=290.0)
    flood = Observed(flood.fahrenheit, flood.celsius, 290.0 + np.arange(3000) / 1000, flood.source)
    selection = select(together(honest, flood), RULES)
    assert selection.by_source["bad"].read == 3000
    assert selection.by_source["bad"].used == 0
    assert selection.by_source["bad"].over_share > 2900
    assert min(selection.by_source[source].used for source in "abc") > 90


def test_a_source_of_outliers_takes_nothing_from_the_others() -> None:
    """Where nearly all rows of one of three sources are left out, those of the others stay."""
    observed = observe(600)
    observed.celsius[observed.source == "c"] += 10.0
    selection = select(observed, RULES)
    assert selection.by_source["c"].used < 20
    assert min(selection.by_source[source].used for source in "ab") > 190


def test_a_jump_of_the_thermometer_is_no_outlier() -> None:
    """Where all sources see a change, the rows after it are used."""
    observed = together(observe(300), observe(100, seed=1, offset=8.0, start=300.0))
    used = select(observed, RULES).used
    assert np.sum(used.seconds >= 340) == 60
    assert len(used) > 360


def test_nothing_is_chosen_from_nothing() -> None:
    """Without observations there is nothing to use, and what is missing is said."""
    nothing = observe(0)
    selection = select(nothing, RULES)
    parts = divide(selection.used, RULES)
    assert len(selection.used) == 0
    assert "0 usable observations" in shortages(selection, parts, RULES)[0]


# Dividing -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), max_size=200), st.none() | st.integers(-1, 60))
def test_parts_are_apart_in_time(times: list[int], champion: int | None) -> None:
    """Every row is in one part, each part is newer than the one before, and the last is newer than the champion."""
    seconds = np.sort(np.array(times, dtype=np.float64))
    rows = np.arange(len(seconds), dtype=np.float64)
    parts = divide(Observed(rows, rows, seconds, np.full(len(rows), "a")), RULES, champion)
    order = np.concatenate([parts.training.fahrenheit, parts.validation.fahrenheit, parts.held_out.fahrenheit])
    assert order.tolist() == rows.tolist()
    for older, newer in ((parts.training, parts.validation), (parts.validation, parts.held_out)):
        assert not len(older) or not len(newer) or older.seconds[-1] < newer.seconds[0]
    if champion is not None and len(parts.held_out):
        assert parts.held_out.seconds[0] > champion
    if len(parts.held_out) and parts.observed_until_seconds is not None:
        assert parts.held_out.seconds[0] > parts.observed_until_seconds


def test_the_newest_rows_are_held_out() -> None:
    """A quarter of the rows, as the rules say, and of the others a fifth validates."""
    parts = divide(observe(400), RULES)
    assert [len(part) for part in (parts.training, parts.validation, parts.held_out)] == [240, 60, 100]
    assert parts.observed_until_seconds == 299.0


@pytest.mark.parametrize(
    ("observed", "champion", "says"),
    [
        (observe(150), None, "150 usable observations"),
        (observe(400), 380.0, "19 of them are newer"),
        (observe(400, ("a",)), None, "1 sources"),
    ],
)
def test_what_is_missing_is_said(observed: Observed, champion: float | None, says: str) -> None:
    """Too few rows, too few newer than the champion's, too few sources: each is named."""
    selection = select(observed, RULES)
    assert says in " ".join(shortages(selection, divide(selection.used, RULES, champion), RULES))


def test_enough_is_enough() -> None:
    """Nothing is missing where the rules are met, and each source with rows enough may judge."""
    selection = select(observe(400), RULES)
    parts = divide(selection.used, RULES)
    assert shortages(selection, parts, RULES) == []
    assert judging_sources(parts.held_out, RULES) == ["a", "b", "c"]


def test_columns_that_do_not_go_together_are_refused() -> None:
    """Columns of different lengths, and times that go back, are errors."""
    three = np.arange(3.0)
    with pytest.raises(ValueError, match="shapes"):
        Observed(three, three[:2], three, np.array(["a"] * 3))
    with pytest.raises(ValueError, match="ascend"):
        Observed(three, three, three[::-1].copy(), np.array(["a"] * 3))


def test_fewer_rows_in_memory_than_must_be_usable_are_refused() -> None:
    """No store could ever be enough."""
    with pytest.raises(ValueError, match="199 observations at most"):
        dataclasses.replace(RULES, most_rows=199)


@pytest.mark.parametrize(
    ("name", "value"),
    [("source_share", 0), ("held_out_share", 1), ("window_seconds", 0), ("outlier_deviations", 0)],
)
def test_rules_that_nothing_can_keep_are_refused(name: str, value: int) -> None:
    """A share of nothing, a part of all, an empty window: errors when the rules are made."""
    with pytest.raises(ValueError, match="above 0"):
        dataclasses.replace(RULES, **{name: value})
