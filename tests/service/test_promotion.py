"""The decision about a canary: what decides it, what never does, and how often it is wrong."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from benchmarks.looks import BETTER, EQUAL, first_by_betting, first_by_looking, gains
from service.observations.figures import share
from service.promotion import MAX_SOURCES, Rule, Trial, Verdict, losses

RULE = Rule()
ERRORS = arrays.arrays(np.float64, st.integers(0, 80), elements=st.floats(-30, 30))


def two_sources(rows: int) -> list[str]:
    """As many sources as the rule asks for."""
    return ["kitchen" if row % 2 else "cellar" for row in range(rows)]


def dealt(
    present: np.ndarray,
    candidate: np.ndarray,
    sources: Sequence[str],
    rule: Rule = RULE,
    bound_celsius: float | None = None,
) -> Trial:
    """All rows, dealt at once."""
    return Trial.begin(rule, bound_celsius).after(present, candidate, sources)


@given(ERRORS, st.data())
def test_a_trial_that_goes_on_is_that_of_all_rows_at_once(present: np.ndarray, data: st.DataObject) -> None:
    """However rows are parted into looks, each says what a reading of all so far says, to the bit."""
    rule = Rule(block_rows=data.draw(st.integers(1, 9)), least_rows=1, rate=0.5)
    candidate = data.draw(arrays.arrays(np.float64, len(present), elements=st.floats(-30, 30)))
    sources = data.draw(st.lists(st.sampled_from("abc"), min_size=len(present), max_size=len(present)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(present)), max_size=5)))
    trial = Trial.begin(rule, 2.5)
    for start, stop in pairwise([0, *cuts, len(present)]):
        trial = trial.after(present[start:stop], candidate[start:stop], sources[start:stop])
        whole = dealt(present[:stop], candidate[:stop], sources[:stop], rule, 2.5)
        assert (repr(trial.evidence), trial.exceeds) == (repr(whole.evidence), whole.exceeds)
        full = stop // rule.block_rows * rule.block_rows
        assert (trial.evidence.rows, trial.evidence.sources) == (full, len(set(sources[:full])))
        if full:
            assert trial.evidence.mean_celsius == pytest.approx(losses(present[:full], 5.0).mean())
            assert trial.evidence.candidate_mean_celsius == pytest.approx(losses(candidate[:full], 5.0).mean())


def test_what_is_kept_of_many_rows_is_small() -> None:
    """Of 200,000 rows, each from a source of its own, no more than of 20,000; and so many sources."""

    def held(trial: Trial) -> int:
        arrays_held = [each.logarithms for each in (trial.better, trial.worse, trial.above)]
        arrays_held += [trial.left_celsius, trial.sums_celsius]
        return sum(array.nbytes for array in arrays_held) + len(trial.seen_sources) + len(trial.left_sources)

    trial, sizes = Trial.begin(RULE, 2.5), []
    for start in range(0, 200_000, 4000):
        trial = trial.after(np.ones(4000), np.zeros(4000), [f"{start + row}" for row in range(4000)])
        sizes.append(held(trial))
    assert (trial.evidence.rows, trial.evidence.sources) == (200_000, MAX_SOURCES)
    assert sizes[-1] == sizes[4]
    assert sizes[-1] < 50_000


@given(ERRORS, st.floats(-30, 30))
def test_a_loss_is_bounded_whatever_the_error(errors: np.ndarray, extra: float) -> None:
    """Between nothing and the cap; what is no number counts as the worst there is."""
    capped = losses(np.array([*errors, extra, math.nan, math.inf]), 5.0)
    assert ((capped >= 0) & (capped <= 5)).all()
    assert capped[-2:].tolist() == [5.0, 5.0]


@given(ERRORS, st.data())
def test_both_ways_of_asking_agree(present: np.ndarray, data: st.DataObject) -> None:
    """Exchanged, two versions get the opposite figures, and never are both of them better."""
    candidate = data.draw(arrays.arrays(np.float64, len(present), elements=st.floats(-30, 30)))
    one = dealt(present, candidate, two_sources(len(present))).evidence
    other = dealt(candidate, present, two_sources(len(present))).evidence
    assert one.log_evidence_better == pytest.approx(other.log_evidence_worse)
    assert one.verdict is Verdict.OPEN or one.verdict is not other.verdict
    assert len(present) - RULE.block_rows < one.rows <= len(present)
    if one.rows:
        assert one.gain_celsius == pytest.approx(-other.gain_celsius, abs=1e-9)
        assert one.gain_lower_celsius == pytest.approx(-other.gain_upper_celsius, abs=1e-6)
        assert one.gain_lower_celsius - 1e-5 <= one.gain_celsius <= one.gain_upper_celsius + 1e-5


def test_a_canary_that_is_plainly_better_is_better_and_the_other_way_worse() -> None:
    """Two degrees less error on four hundred rows decide."""
    noise = np.random.default_rng(1).normal(0, 1, 400)
    assert dealt(noise + 3, noise, two_sources(400)).evidence.verdict is Verdict.BETTER
    assert dealt(noise, noise + 3, two_sources(400)).evidence.verdict is Verdict.WORSE
    assert dealt(noise, noise, two_sources(400)).evidence.verdict is Verdict.OPEN


@pytest.mark.parametrize(
    ("rows", "sources", "decides"),
    [(29, 2, False), (19, 2, False), (159, 2, False), (400, 1, False), (400, 2, True), (180, 2, True)],
)
def test_few_rows_or_sources_decide_nothing(rows: int, sources: int, *, decides: bool) -> None:
    """However great the difference is: one source may be wrong, and rows next to each other are like one."""
    named = [str(row % sources) for row in range(rows)]
    verdict = dealt(np.full(rows, 4.5), np.zeros(rows), named).evidence.verdict
    assert (verdict is Verdict.BETTER) == decides


def test_a_gain_below_the_margin_is_refused_in_the_end() -> None:
    """Better, and not by as much as was asked for: that is decided too."""
    noise = np.random.default_rng(2).normal(0, 0.5, 2000)
    rule = Rule(margin_celsius=0.5)
    evidence = dealt(np.abs(noise) + 1.0, np.abs(noise) + 0.9, two_sources(2000), rule).evidence
    assert evidence.verdict is Verdict.WORSE
    assert evidence.gain_celsius == pytest.approx(0.1)
    assert evidence.gain_lower_celsius < 0.1 < evidence.gain_upper_celsius < 0.5


def test_one_wild_row_decides_nothing() -> None:
    """A loss counts up to the cap: an observation that is off by a million degrees weighs no more than one off by 5."""
    present, candidate = np.full(1600, 1.0), np.full(1600, 1.5)
    present[7] = 1e6
    assert dealt(present, candidate, two_sources(1600)).evidence.verdict is Verdict.WORSE


def test_an_error_above_its_bound_is_told_from_one_below() -> None:
    """With as much evidence as any other decision."""
    noise = np.random.default_rng(3).normal(0, 2, 600)
    assert dealt(noise + 4, noise, two_sources(600), bound_celsius=2.5).exceeds
    assert not dealt(noise, noise + 4, two_sources(600), bound_celsius=2.5).exceeds
    assert not dealt(noise + 4, noise, ["one"] * 600, bound_celsius=2.5).exceeds
    with pytest.raises(ValueError, match="below the cap, 5 °C, not 5"):
        Trial.begin(RULE, 5.0)


def test_equals_are_promoted_as_seldom_as_promised_however_often_one_looks() -> None:
    """In 400 simulated lives of 1,500 rows at most 5 % promote a canary that is no better; by p-values a quarter do."""
    values = gains(EQUAL, runs=400, rows=1500, rule=RULE)
    assert np.isfinite(first_by_betting(values, RULE)).mean() <= RULE.rate
    assert np.isfinite(first_by_looking(values, RULE)).mean() >= 0.25


def test_so_they_are_where_rows_hang_together_and_only_blocks_keep_that() -> None:
    """With noise of which nine tenths last from row to row, a bet on each row would promote every third time.

    Of the 400 no more are promoted in 5,000 rows than leave no doubt that the rate is below what is promised.
    """
    values = gains(EQUAL, runs=400, rows=5000, rule=RULE, lasting=0.9)
    promoted = share(int(np.isfinite(first_by_betting(values, RULE)).sum()), 400)
    assert promoted.upper is not None
    assert promoted.upper <= RULE.rate
    assert np.isfinite(first_by_betting(values, replace(RULE, block_rows=1))).mean() >= 0.3


def test_a_better_canary_is_promoted_and_the_sooner_the_better_it_is() -> None:
    """In 40 simulated lives each: where stable is off by two degrees within 1,500 rows, and by four within 500."""
    _, _, two, four = [first_by_betting(gains(pair, runs=40, rows=1500, rule=RULE), RULE) for pair in BETTER]
    assert np.isfinite(two).all()
    assert four.max() < 500
    assert (four % RULE.block_rows == 0).all()
    assert np.median(four) < np.median(two)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rate": 0.0}, "the rate is between 0 and 1, not 0"),
        ({"rate": 1.0}, "the rate"),
        ({"cap_celsius": 0.0}, "the cap is a number of °C above 0"),
        ({"cap_celsius": math.nan}, "the cap"),
        ({"margin_celsius": 5.0}, "the margin is from 0 to below the cap, 5 °C"),
        ({"margin_celsius": math.nan}, "the margin"),
        ({"least_rows": 0}, "at least one row"),
        ({"least_sources": 0}, "at least one row, one source"),
        ({"block_rows": 0}, "a block of one row"),
        ({"least_sources": 1001}, "no more than 1000 sources"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(values: dict[str, float], reason: str) -> None:
    """Before anything is decided by it."""
    with pytest.raises(ValueError, match=reason):
        Rule(**values)  # type: ignore[arg-type] # wrong on purpose
