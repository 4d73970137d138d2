"""Which place a run goes to, decided from times that are given."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.placement import WORTH, Measured, Placement, decide

SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
SECONDS = st.floats(1e-6, 1.0)


@st.composite
def measurements(draw: st.DrawFn, least_places: int = 1) -> tuple[list[str], list[Measured]]:
    """Names of places, and times of each at some sizes."""
    count = draw(st.integers(least_places, 4))
    sizes = draw(st.lists(st.sampled_from(SIZES), unique=True, max_size=len(SIZES)))
    times = st.tuples(*[SECONDS | st.just(math.inf)] * (count - 1))
    return [f"place {number}" for number in range(count)], [
        Measured(rows, (draw(SECONDS), *draw(times))) for rows in sizes
    ]


def cost(measured: list[Measured], chosen: list[int]) -> float:
    """What a choice costs: each run's time, of the quickest place's, and the part that a later place must save."""
    return sum(
        each.seconds[place] / min(each.seconds) / (1.0 - WORTH if place else 1.0)
        for each, place in zip(measured, chosen, strict=True)
    )


def cpu_and_cuda(*pairs: tuple[int, float, float], same_bits: bool = True, together: int = 0) -> Placement:
    """A decision between two, from rows and the seconds of each."""
    measured = [Measured(rows, (cpu, cuda)) for rows, cpu, cuda in pairs]
    return decide(["cpu", "cuda"], measured, same_bits=same_bits, together_up_to_rows=together)


@given(measurements(), st.booleans(), st.integers(0, 1 << 17))
def test_every_run_has_one_place_and_later_ones_only_as_runs_grow(
    given_: tuple[list[str], list[Measured]],
    same_bits: bool,  # noqa: FBT001 - drawn
    together: int,
) -> None:
    """Ranges begin at 0, ascend, and never go back to a place before."""
    places, measured = given_
    placement = decide(places, measured, same_bits=same_bits, together_up_to_rows=together)
    assert placement.starts[0] == 0
    assert all(before < after for before, after in pairwise(placement.starts))
    assert all(before < after for before, after in pairwise(placement.chosen))
    for (start, name), (after, _) in pairwise([*placement.ranges(), (1 << 40, "")]):
        for rows in (start, after - 1):
            assert places[placement.place(rows)] == name


@given(measurements())
def test_no_other_choice_that_never_goes_back_costs_less(given_: tuple[list[str], list[Measured]]) -> None:
    """Every way of letting places take over one after the other is tried beside it."""
    places, measured = given_
    ordered = sorted(measured, key=lambda each: each.rows)
    placement = decide(places, measured, same_bits=True, together_up_to_rows=0)
    mine = cost(ordered, [placement.place(each.rows) for each in ordered])

    def ways(length: int, least: int) -> list[list[int]]:
        if not length:
            return [[]]
        return [[first, *rest] for first in range(least, len(places)) for rest in ways(length - 1, first)]

    if ordered:
        assert mine == pytest.approx(min(cost(ordered, way) for way in ways(len(ordered), 0)))


@given(st.integers(1, len(SIZES) - 1), SECONDS, st.floats(1.3, 100.0))
def test_where_times_cross_once_each_size_goes_to_the_faster(crossing: int, base: float, ratio: float) -> None:
    """Below the crossing the one, from it on the other."""
    slow = base * ratio
    pairs = [(rows, *((base, slow) if number < crossing else (slow, base))) for number, rows in enumerate(SIZES)]
    placement = cpu_and_cuda(*pairs)
    assert list(placement.ranges()) == [(0, "cpu"), (SIZES[crossing], "cuda")]


@given(st.lists(st.sampled_from(SIZES), unique=True, min_size=1), SECONDS)
def test_a_tie_is_no_reason_to_leave_the_first(sizes: list[int], seconds: float) -> None:
    """Nor is a gain that is less than what counts."""
    for gain in (1.0, 1.0 - WORTH / 2):
        assert cpu_and_cuda(*((rows, seconds, seconds * gain) for rows in sizes)).chosen == (0,)
    assert cpu_and_cuda(*((rows, seconds, seconds * (1.0 - 2 * WORTH)) for rows in sizes)).chosen[-1] == 1


def test_one_size_that_was_disturbed_does_not_turn_the_choice_back() -> None:
    """A slow moment of the better place among large runs is outvoted by the sizes around it."""
    placement = cpu_and_cuda((1, 1, 9), (4, 1, 9), (16, 9, 1), (64, 9, 12), (256, 9, 1), (1024, 9, 1))
    assert list(placement.ranges()) == [(0, "cpu"), (16, "cuda")]


def test_a_place_that_fails_gets_no_run_where_it_failed() -> None:
    """Infinite times are never chosen while another place has a finite one."""
    placement = cpu_and_cuda((1, 1, 0.5), (4, 1, math.inf), (16, 1, math.inf))
    assert placement.chosen == (0,)


@given(measurements(least_places=2), st.sampled_from(SIZES))
def test_where_bits_differ_runs_that_calls_may_share_have_one_place(
    given_: tuple[list[str], list[Measured]], together: int
) -> None:
    """So an answer never depends on who else was in the batch; larger runs, of one call each, go where they like."""
    places, measured = given_
    placement = decide(places, measured, same_bits=False, together_up_to_rows=together)
    assert len({placement.place(rows) for rows in (0, 1, together // 2, together)}) == 1


def test_shared_runs_have_the_place_that_is_best_over_all_their_sizes() -> None:
    """One size that is much faster elsewhere does not outweigh the others, and those above are free."""
    pairs = [(1, 1.0, 8.0), (16, 1.0, 4.0), (1024, 4.0, 2.0), (65536, 9.0, 1.0)]
    held = cpu_and_cuda(*pairs, same_bits=False, together=16384)
    assert list(held.ranges()) == [(0, "cpu"), (65536, "cuda")]
    assert list(cpu_and_cuda(*pairs).ranges()) == [(0, "cpu"), (1024, "cuda")]


def test_nothing_measured_is_the_first_place() -> None:
    """However many there are."""
    placement = decide(["cpu", "cuda"], [], same_bits=True, together_up_to_rows=16384)
    assert list(placement.ranges()) == [(0, "cpu")]
