"""What was answered is kept within its memory, by the latest requests or a share of them."""

import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.observations.answers import MAX_ROWS, SOUGHT_SECONDS, Answers, Given
from service.query import Answer, ConvertQuery

VERSION: Any = SimpleNamespace(name="linear", version=3)


def _keep(answers: Answers, request_id: str, *fahrenheit: float) -> None:
    rows = np.array(fahrenheit, np.float32)
    outputs = [rows.reshape(-1, 1) + np.float32(1)]
    answers.keep(ConvertQuery("", None, rows, request_id=request_id), Answer(VERSION, outputs, None, inside=True))


def _clock() -> tuple[dict[str, float], Callable[[], float]]:
    state = {"now": 0.0}
    return state, lambda: state["now"]


def test_an_answer_is_found_by_request_and_row() -> None:
    """With the reading that was asked for, and no other."""
    answers = Answers(1 << 20)
    _keep(answers, "r", 50.1, 60.2)
    assert answers.find("r", 1, 60.2) == Given("linear", 3, float(np.float32(60.2) + np.float32(1)))
    assert answers.find("r", 0, 60.2) is None
    assert answers.find("r", 2, 60.2) is None
    assert answers.find("s", 0, 50.1) is None
    _keep(answers, "r", 70.0)
    assert answers.find("r", 1, 60.2) is None


def test_large_answers_are_not_kept() -> None:
    """One request cannot take the place of thousands."""
    answers = Answers(1 << 30)
    _keep(answers, "r", *range(MAX_ROWS + 1))
    assert len(answers) == 0
    assert answers.size_bytes == 0


def test_a_flood_of_answers_leaves_a_share_of_them() -> None:
    """The bytes stay bounded, and what is kept comes from the whole hour and not from its last second."""
    state, clock = _clock()
    answers = Answers(200_000, clock)
    for number in range(20_000):
        state["now"] = number / 100
        _keep(answers, f"r{number}", 50.0)
        assert answers.size_bytes <= 200_000
    kept = [number for number in range(20_000) if answers.find(f"r{number}", 0, 50.0)]
    assert len(kept) == len(answers) > 100
    assert answers.share < 0.1
    assert min(kept) < 2_000
    assert max(kept) > 18_000


def test_the_share_grows_again_when_there_is_room() -> None:
    """After a flood, slow traffic is kept whole, and the oldest answers go first."""
    state, clock = _clock()
    answers = Answers(50_000, clock)
    for number in range(2_000):
        _keep(answers, f"flood{number}", 50.0)
    assert answers.share < 1
    for number in range(3_000):
        state["now"] += SOUGHT_SECONDS / 20
        _keep(answers, f"calm{number}", 50.0)
    assert answers.share == 1
    assert answers.find("calm2999", 0, 50.0) is not None
    assert answers.find("calm0", 0, 50.0) is None


@given(
    bursts=st.lists(st.integers(0, 400), min_size=1, max_size=4),
    gap_seconds=st.floats(0, 2 * SOUGHT_SECONDS),
    every_seconds=st.floats(SOUGHT_SECONDS / 10, SOUGHT_SECONDS / 4),
)
def test_after_any_bursts_calm_traffic_is_kept_whole_again(
    bursts: list[int], gap_seconds: float, every_seconds: float
) -> None:
    """Once an hour is over, and as many reviews as the share was halved: though the memory is never full again."""
    state, clock = _clock()
    answers = Answers(20_000, clock)
    for number, burst in enumerate(bursts):
        for each in range(burst):
            _keep(answers, f"burst{number}-{each}", 50.0)
            assert answers.size_bytes <= answers.max_bytes
        state["now"] += gap_seconds
    calm_until = state["now"] + 1.5 * SOUGHT_SECONDS + 12 * every_seconds
    number = 0
    while state["now"] < calm_until:
        state["now"] += every_seconds
        _keep(answers, f"calm{number}", 50.0)
        number += 1
    assert answers.share == 1
    assert answers.find(f"calm{number - 1}", 0, 50.0) is not None


def test_a_steady_flood_does_not_make_the_share_swing() -> None:
    """For three hours as much comes as a tenth of which fits: the share stays where it came to, give or take a half."""
    state, clock = _clock()
    answers = Answers(100_000, clock)
    shares = []
    for number in range(6_000):
        state["now"] += 3 * SOUGHT_SECONDS / 6_000
        _keep(answers, f"r{number}", 50.0)
        shares.append(answers.share)
    assert max(shares[2_000:]) <= 2 * min(shares[2_000:]) <= 0.5
    assert len(answers) > 50


@settings(max_examples=10)
@given(st.sets(st.text(min_size=1, max_size=8), min_size=200, max_size=250))
def test_nobody_can_tell_which_ids_are_kept(chosen: set[str]) -> None:
    """Whatever the ids, each server keeps others of them: not all, and some, as chance has it."""
    kept = []
    for _ in range(2):
        answers = Answers(20_000)
        for request_id in chosen:
            _keep(answers, request_id, 50.0)
        assert 0 < len(answers) < len(chosen)
        kept.append({request_id for request_id in chosen if answers.find(request_id, 0, 50.0)})
    assert kept[0] != kept[1]


def test_of_two_requests_with_one_id_the_later_counts_also_where_it_is_not_kept() -> None:
    """Nothing is joined to an answer that another one has followed."""
    answers = Answers(1 << 20)
    _keep(answers, "r", 50.0)
    _keep(answers, "r", *[50.0] * (MAX_ROWS + 1))
    assert answers.find("r", 0, 50.0) is None
    assert (len(answers), answers.size_bytes) == (0, 0)


def test_what_does_not_fit_at_all_costs_the_others_nothing() -> None:
    """An answer larger than all the memory is not kept, and no share is given up for it."""
    answers = Answers(1_000)
    _keep(answers, "small", 50.0)
    for _ in range(100):
        _keep(answers, "large", *[50.0] * MAX_ROWS)
    assert answers.share == 1
    assert answers.find("small", 0, 50.0) is not None


def test_what_is_kept_takes_no_more_memory_than_it_counts() -> None:
    """The count of bytes holds against what Python really allocated."""
    tracemalloc.start()
    try:
        answers = Answers(1 << 30)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(5_000):
            _keep(answers, f"{number:036d}", 50.0, 60.0)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(answers) == 5_000
    assert taken < answers.size_bytes * 1.1
