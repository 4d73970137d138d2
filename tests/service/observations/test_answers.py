"""What was answered is kept within its memory, by the latest requests or a share of them."""

import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

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
