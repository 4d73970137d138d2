"""The gate's test keeps its level and has power, and each condition alone keeps a challenger out."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from training.agreement import Disagreement
from training.gate import (
    GROUPS,
    Bounds,
    SourceErrors,
    errors_by_source,
    judge,
    mean_over_time,
)
from training.student_t import student_t_quantile

BOUNDS = Bounds()
RUNS = 4000
_CONDITIONS = ("absolute bound", "better than the champion", "worse for no source", "the sources agree")
Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]


# Size and power, by simulation ----------------------------------------------------------------------------------------


def _shown(gains: NDArray[np.float64]) -> float:
    """The share of runs [runs, rows] in which the test shows a gain above the margin."""
    p_values = np.array([mean_over_time(run).above(BOUNDS.margin_celsius) for run in gains])
    return float(np.mean(p_values <= BOUNDS.significance))


def _independent(random: np.random.Generator, rows: int) -> NDArray[np.float64]:
    return random.normal(0.0, 1.0, (RUNS, rows))


def _uneven(random: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """Scatter that grows tenfold over the rows, as when a thermometer comes loose."""
    return random.normal(0.0, 1.0, (RUNS, rows)) * np.geomspace(0.2, 2.0, rows)


def _correlated(random: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """Each row repeats half of what the row before it was."""
    noise = random.normal(0.0, 1.0, (RUNS, rows))
    for row in range(1, rows):
        noise[:, row] += 0.5 * noise[:, row - 1]
    return noise


def _heavy(random: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """Tails in which single rows are far off."""
    return random.standard_t(3, (RUNS, rows))


# Of 4,000 runs at 2.5 % chance makes ± 0.25 %; correlation that reaches from group to group adds a little.
@pytest.mark.parametrize(
    ("noise", "rows", "most"),
    [(_independent, 50, 0.035), (_uneven, 200, 0.035), (_correlated, 300, 0.04), (_heavy, 100, 0.035)],
)
def test_no_gain_beyond_the_margin_is_shown_by_chance_alone(noise: Noise, rows: int, most: float) -> None:
    """Where the true gain is the margin, the test shows more in its stated share of runs, whatever the noise."""
    gains = BOUNDS.margin_celsius + noise(np.random.default_rng(11), rows)
    assert _shown(gains) <= most


def test_rows_that_hang_together_would_deceive_a_plain_test() -> None:
    """The usual t-test, which takes every row as new, shows gains that are not there four times as often as stated."""
    gains = _correlated(np.random.default_rng(11), 300)
    plain = gains.mean(axis=1) / (gains.std(axis=1, ddof=1) / np.sqrt(300))
    assert np.mean(plain > student_t_quantile(BOUNDS.significance, 299)) > 3 * BOUNDS.significance


@pytest.mark.parametrize(("gain", "least"), [(0.2, 0.2), (0.4, 0.9), (0.6, 0.999)])
def test_a_real_gain_is_shown(gain: float, least: float) -> None:
    """Of a gain beyond the margin among 200 rows with a scatter of 1 °C, the power grows to near certainty."""
    gains = gain + _independent(np.random.default_rng(12), 200)
    assert _shown(gains) >= least


def test_confidence_covers() -> None:
    """The true mean lies above the upper bound in the stated share of runs."""
    runs = _uneven(np.random.default_rng(13), 100)
    above = [mean_over_time(run).confidence(BOUNDS.significance)[1] < 0.0 for run in runs]
    assert np.mean(above) <= 0.035


def test_gains_without_scatter_are_what_they_are() -> None:
    """Where every row says the same, there is no doubt left, either way."""
    assert mean_over_time(np.full(50, 0.5)).above(0.1) == 0.0
    assert mean_over_time(np.full(50, 0.05)).above(0.1) == 1.0


def test_too_few_rows_are_an_error() -> None:
    """Fewer than two rows a group make no test."""
    with pytest.raises(ValueError, match="groups"):
        mean_over_time(np.zeros(2 * GROUPS - 1))


# The conditions -------------------------------------------------------------------------------------------------------


def _checks(
    challenger: float, champion: float | None, worse_source: float = 0.0, apart: float = 0.0
) -> dict[str, bool]:
    """What each condition says of two models with these mean errors, from two sources of 100 rows each."""
    random = np.random.default_rng(5)
    source = np.array(["a", "b"] * 100)
    scatter = random.uniform(-0.05, 0.05, 200)
    ours = challenger + scatter + np.where(source == "b", worse_source, -worse_source)
    theirs = None if champion is None else champion + random.uniform(-0.05, 0.05, 200)
    disagreement = Disagreement("b", "at the colder readings", apart, 0.2)
    checks = judge(ours, theirs, errors_by_source(ours, theirs, source), disagreement, BOUNDS)
    return {check.name: check.passed for check in checks}


def test_each_condition_keeps_a_challenger_out() -> None:
    """Better on all counts passes; too great an error, too small a gain, harm to a source, or one apart: each fails."""
    absolute, better, no_harm, agree = _CONDITIONS

    def failed(*names: str) -> dict[str, bool]:
        return {name: name not in names for name in _CONDITIONS}

    assert _checks(0.5, 1.0) == failed()
    assert _checks(2.1, 4.0) == failed(absolute)
    assert _checks(0.95, 1.0) == failed(better)
    assert _checks(0.7, 1.0, worse_source=0.6) == failed(no_harm)
    assert _checks(0.5, 1.0, apart=-1.3) == failed(agree)
    assert _checks(0.5, 1.0, apart=1.1) == failed(), "what chance explains is no disagreement"


def test_without_a_champion_nothing_is_compared_with_it() -> None:
    """The first model of a name has nothing to be better than; the bound holds, and the sources must agree."""
    assert _checks(0.5, None) == {"absolute bound": True, "the sources agree": True}
    assert _checks(2.5, None) == {"absolute bound": False, "the sources agree": True}
    assert _checks(0.5, None, apart=2.0) == {"absolute bound": True, "the sources agree": False}


def test_no_source_at_all_is_no_harm() -> None:
    """Where no source has enough rows, the condition says so."""
    (*_, no_harm, agreeing) = judge(np.zeros(20), np.ones(20), [], None, BOUNDS)
    assert no_harm.passed
    assert "no source" in no_harm.found
    assert agreeing.passed
    assert agreeing.found == "nothing to compare"


def test_errors_stand_by_source() -> None:
    """Each source's rows are averaged for themselves."""
    found = errors_by_source(np.array([1.0, 2.0, 3.0]), np.array([4.0, 4.0, 4.0]), np.array(["b", "a", "b"]))
    assert found == [SourceErrors("a", 1, 2.0, 4.0), SourceErrors("b", 2, 2.0, 4.0)]
    found = errors_by_source(np.arange(40.0), np.zeros(40), np.array(["a"] * 20 + ["b"] * 20))
    assert [each.excess for each in found] == [mean_over_time(np.arange(20.0)), mean_over_time(np.arange(20.0, 40.0))]


def _share_vetoed(sources: int, rows: int, lie: float, scatter: float) -> float:
    """The share of runs in which a source is said to be worse off, by two models of equal error over the others' rows.

    The champion answers what the first source says, which is so far off; the challenger tells the truth.
    """
    random = np.random.default_rng(31)
    source = np.array([f"source-{row % sources:02}" for row in range(sources * rows)])
    off = np.where(source == "source-00", lie, 0.0)
    vetoes = 0
    for _ in range(100):
        noise = random.normal(0.0, scatter, len(source))
        challenger = np.abs(noise + off + 0.3)
        champion = np.abs(noise - 0.3)
        checks = judge(challenger, champion, errors_by_source(challenger, champion, source), None, BOUNDS)
        vetoes += not {check.name: check.passed for check in checks}["worse for no source"]
    return vetoes / 100


@pytest.mark.parametrize(("sources", "rows"), [(3, 17), (20, 10), (50, 10)])
@pytest.mark.parametrize("scatter", [0.3, 1.7])
def test_a_few_noisy_rows_are_no_veto(sources: int, rows: int, scatter: float) -> None:
    """Two models that err alike: the plain means would find a source worse off in up to half of the runs and more."""
    assert _share_vetoed(sources, rows, 0.0, scatter) <= 0.05


@pytest.mark.parametrize(("sources", "rows", "least"), [(3, 17, 0.95), (20, 20, 0.95), (20, 10, 0.6)])
def test_a_source_that_is_worse_off_is_a_veto(sources: int, rows: int, least: float) -> None:
    """By a degree and a half over rows that scatter by 0.3 °C; of one of twenty with ten rows not always."""
    assert _share_vetoed(sources, rows, 1.5, 0.3) >= least


def test_so_few_rows_that_nothing_can_be_shown_are_no_veto() -> None:
    """A rule may let a source judge with three rows: they make no groups, and the condition says so."""
    errors = errors_by_source(np.full(3, 9.0), np.zeros(3), np.array(["a"] * 3))
    assert errors == [SourceErrors("a", 3, 9.0, 0.0)]
    assert errors[0].shown_excess(0.01) is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"absolute_celsius": 0.0}, "above 0"),
        ({"agreement_celsius": 0.0}, "above 0"),
        ({"margin_celsius": -1.0}, "above 0"),
        ({"significance": 0.05}, "0.041"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(wrong: dict[str, float], says: str) -> None:
    """So is a level at which the test is not known to hold."""
    with pytest.raises(ValueError, match=says):
        Bounds(**wrong)
