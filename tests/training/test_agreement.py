"""Sources that say something else than the others are found, and chance is not taken for it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.agreement import Disagreement, greatest_disagreement
from training.gate import Bounds

SOURCES = ("attic", "cellar", "roof")
SIGNIFICANCE = Bounds().significance


def _found(
    wrong: NDArray[np.float64], rows: int = 300, scatter: float = 0.3, seed: int = 0, bias: float = 0.0
) -> Disagreement | None:
    """Of three sources in turn, whose last says so much more at these readings; a model has a bias of its own."""
    random = np.random.default_rng(seed)
    fahrenheit = random.uniform(20.0, 90.0, rows)
    source = np.array([SOURCES[row % 3] for row in range(rows)])
    residuals = random.normal(bias, scatter, rows)
    residuals += np.where(source == "roof", np.interp(fahrenheit, (20.0, 90.0), wrong), 0.0)
    return greatest_disagreement(residuals, fahrenheit, source, SOURCES, SIGNIFICANCE)


@pytest.mark.parametrize("offset", [-2.0, 1.5])
def test_a_constant_error_is_found(offset: float) -> None:
    """With its source, its size, and its sign."""
    found = _found(np.array([offset, offset]))
    assert found is not None
    assert found.source == "roof"
    assert found.celsius == pytest.approx(offset, abs=0.2)
    assert found.shown_celsius > 1.0


def test_an_error_in_proportion_is_found() -> None:
    """Over all readings its mean is 0; over a half of them it is not."""
    found = _found(np.array([-4.0, 4.0]))
    assert found is not None
    assert found.source == "roof"
    assert abs(found.celsius) == pytest.approx(2.0, abs=0.6)
    assert f"roof says {found.celsius:+.2f} °C against the others {found.part}" in found.text()


def test_what_all_say_is_no_disagreement() -> None:
    """A model's bias is common to all sources: the thermometer may have jumped."""
    found = _found(np.zeros(2), bias=5.0)
    assert found is not None
    assert found.shown_celsius < 0.1


def test_chance_is_not_taken_for_it() -> None:
    """Among few rows that scatter widely hardly one comparison in a hundred shows more than a degree."""
    shown = [_found(np.zeros(2), rows=51, scatter=1.7, seed=seed) for seed in range(300)]
    assert sum(each is not None and each.shown_celsius > 1.0 for each in shown) <= 3


def test_what_cannot_be_compared_is_not() -> None:
    """One source alone, sources of few rows, and none at all."""
    rows = np.arange(20.0)
    alone = np.array(["a"] * 20)
    few = np.array(["a"] * 16 + ["b"] * 4)
    assert greatest_disagreement(rows, rows, alone, ["a"], SIGNIFICANCE) is None
    assert greatest_disagreement(rows, rows, few, ["a", "b"], SIGNIFICANCE) is None
    assert greatest_disagreement(rows, rows, alone, [], SIGNIFICANCE) is None
    assert greatest_disagreement(rows[:0], rows[:0], alone[:0], [], SIGNIFICANCE) is None


def test_rows_of_sources_that_do_not_judge_are_left_out() -> None:
    """A source with too few rows to be judged by says nothing here either."""
    rows = np.linspace(20.0, 90.0, 60)
    source = np.array(["a", "b", "c"] * 20)
    residuals = np.where(source == "c", 9.0, 0.0)
    found = greatest_disagreement(residuals, rows, source, ["a", "b"], SIGNIFICANCE)
    assert found is not None
    assert found.celsius == 0.0


# Both errors, by simulation -------------------------------------------------------------------------------------------


def _share_found(sources: int, rows: int, scatter: float, lie: float, runs: int) -> float:
    """The share of runs in which some of so many sources, with so many rows each, is shown to be over 1 °C off.

    The first one lies by so much; the other sources are equals.
    """
    random = np.random.default_rng(21)
    source = np.array([f"source-{row % sources:02}" for row in range(sources * rows)])
    names = sorted(set(source.tolist()))
    found = 0
    for _ in range(runs):
        residuals = random.normal(0.0, scatter, len(source)) + np.where(source == names[0], lie, 0.0)
        worst = greatest_disagreement(residuals, random.uniform(20.0, 90.0, len(source)), source, names, SIGNIFICANCE)
        found += worst is not None and worst.shown_celsius > 1.0
    return found / runs


@pytest.mark.parametrize(("sources", "rows"), [(3, 17), (20, 10), (50, 10)])
def test_equals_are_not_rejected_however_many_they_are(sources: int, rows: int) -> None:
    """Of noisy sources with few rows each, two standard errors would find one off in up to a quarter of the runs."""
    assert _share_found(sources, rows, 1.7, 0.0, 150) <= SIGNIFICANCE


@pytest.mark.parametrize(("sources", "rows", "least"), [(3, 17, 0.9), (3, 50, 0.99), (20, 20, 0.9), (20, 10, 0.2)])
def test_a_lie_of_a_degree_and_a_half_is_found(sources: int, rows: int, least: float) -> None:
    """As far as the rows can tell: of one in twenty sources with ten rows, which moves nothing, now and then."""
    assert _share_found(sources, rows, 0.3, 1.5, 100) >= least
