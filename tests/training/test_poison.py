"""A batch of observations that would be accepted is not, once some of its sources lie; or their rows are left out.

A thermometer drifted and jumped, so that the champion is some 5 °C off: whoever lies by less than that makes every
error smaller that is compared with the champion's. First the real job, then many lies through the same rules and gate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.thermometer import Thermometer, observe
from tests.training.place import DAYS, Place
from training import gate, law, verdict
from training.agreement import greatest_disagreement
from training.challengers import RECENT, absolute_errors
from training.champion import answer
from training.gate import Bounds
from training.observed import Observed, Parts, Rules, divide, judging_sources, select, shortages
from training.parity import Engine

THERMOMETER = Thermometer(steady_from_day=10.0, jump_day=8.0, jump_fahrenheit=6.0)
FITS = ("--kinds", "linear", "--seeds", "1", "--epochs", "250")
HONEST = ("attic", "cellar")
CELSIUS = np.linspace(-5.0, 30.0, 200)
TODAY = THERMOMETER.show(CELSIUS, np.full(200, DAYS[1]))


class Batch(NamedTuple):
    """What honest sources say over all days, and what one liar says; rows of each."""

    honest: tuple[str, ...]
    honest_rows: int
    liar_rows: int
    liar_days: tuple[float, float] = DAYS


ONE_OF_THREE = Batch(HONEST, 400, 200)
ONE_OF_TWO = Batch(HONEST[:1], 300, 300)
FLOOD = Batch((*HONEST, "roof"), 600, 3000, (14.0, 20.0))


def report(place: Place, batch: Batch, lie_celsius: float) -> None:
    """Store a batch, whose liar is off by so much."""
    place.observe(THERMOMETER, batch.honest_rows, sources=batch.honest)
    start = place.start_seconds
    lies = {"sources": ("mallory",), "error_celsius": lie_celsius, "seed": 1, "start_seconds": start}
    place.add(observe(THERMOMETER, batch.liar_days, batch.liar_rows, **lies))  # type: ignore[arg-type] # as listed


def error_today(place: Place, version: int) -> float:
    """The mean absolute error of a version in °C, on what the thermometer shows today."""
    answers = answer(Engine(place.repository.model_path("linear", version).read_bytes()), TODAY)
    return float(absolute_errors(answers, CELSIUS).mean())


@pytest.mark.timeout(400)  # a server is started
def test_without_a_lie_the_batch_is_accepted(place: Place) -> None:
    """The batch that is poisoned below, clean: the gate lets its challenger in, which is a good one."""
    report(place, ONE_OF_THREE, 0.0)
    assert place.retrain(*FITS) == verdict.ACCEPTED
    assert error_today(place, 1) > 4.0
    assert error_today(place, 2) < 0.5


@pytest.mark.parametrize(
    ("batch", "lie_celsius"), [(ONE_OF_THREE, 2.0), (ONE_OF_TWO, -3.0)], ids=["one-of-three", "one-of-two"]
)
def test_a_lie_that_hides_behind_the_drift_is_rejected(place: Place, batch: Batch, lie_celsius: float) -> None:
    """Only the comparison of the sources finds it, and names one; nothing is published."""
    report(place, batch, lie_celsius)
    assert place.retrain(*FITS) == verdict.REJECTED
    _, found = place.report()
    assert [check["name"] for check in found["checks"] if not check["passed"]] == ["the sources agree"]
    assert " says " in found["reasons"][0]
    assert place.repository.versions("linear") == [1]
    assert place.repository.labels("linear") == {"stable": 1}


@pytest.mark.timeout(400)  # a server is started
def test_a_flood_of_lies_that_stand_out_is_left_out(place: Place) -> None:
    """Its rows are over the share or outliers; the honest rows make as good a challenger as without it."""
    report(place, FLOOD, 20.0)
    assert place.retrain(*FITS) == verdict.ACCEPTED
    assert error_today(place, 2) < 0.5


# Many lies through the same rules and gate ----------------------------------------------------------------------------


class Judged(NamedTuple):
    """Whether a challenger is accepted, and its mean absolute error in °C on what the thermometer shows today."""

    is_accepted: bool
    error_today: float


def judge(sources: int, liars: int, offset_celsius: float, proportion_celsius: float = 0.0, seed: int = 0) -> Judged:
    """Six hundred rows by sources in turn, of which the first lie; the challenger is the line of least squares.

    What they say is off by a constant, and by so much more at the ends of the range, with either sign.
    """
    seen = observe(
        THERMOMETER, DAYS, 600, start_seconds=0.0, sources=[f"source-{each}" for each in range(sources)], seed=seed
    )
    said = np.array([each.celsius for each in seen])
    lies = np.arange(600) % sources < liars
    said[lies] += offset_celsius + proportion_celsius * (said[lies] - 12.5) / 17.5
    observed = Observed(
        np.array([each.fahrenheit for each in seen]),
        said,
        np.array([each.observed_at_seconds for each in seen]),
        np.array([each.source for each in seen]),
    )
    rules = Rules()
    selection = select(observed, rules)
    parts = divide(selection.used, rules)
    if shortages(selection, parts, rules):
        return Judged(is_accepted=False, error_today=np.nan)
    line = best_line(parts)
    return Judged(passes(line, parts.held_out, rules), float(np.abs(np.polyval(line, TODAY) - CELSIUS).mean()))


def best_line(parts: Parts) -> NDArray[np.float64]:
    """Fitted to the shares of the past that a job fits to, chosen by the validation rows as there."""
    lines = []
    for recent in RECENT:
        rows = int(np.ceil(recent * len(parts.training)))
        lines.append(np.polyfit(parts.training.fahrenheit[-rows:], parts.training.celsius[-rows:], 1))
    errors = [np.abs(np.polyval(line, parts.validation.fahrenheit) - parts.validation.celsius).mean() for line in lines]
    return np.asarray(lines[int(np.argmin(errors))])


def passes(line: Sequence[float] | NDArray[np.float64], held_out: Observed, rules: Rules) -> bool:
    """Whether it meets every condition of the gate that is one on errors."""
    residuals = held_out.celsius - np.polyval(line, held_out.fahrenheit)
    ours, theirs = np.abs(residuals), np.abs(held_out.celsius - law.celsius(held_out.fahrenheit))
    judging = judging_sources(held_out, rules)
    by_source = [each for each in gate.errors_by_source(ours, theirs, held_out.source) if each.source in judging]
    bounds = Bounds()
    disagreement = greatest_disagreement(residuals, held_out.fahrenheit, held_out.source, judging, bounds.significance)
    return all(check.passed for check in gate.judge(ours, theirs, by_source, disagreement, bounds))


LIES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0)
WITHIN_CELSIUS = 0.8
"""What is accepted is no further off. Without the comparison of sources it was up to 1.5 °C."""


@pytest.mark.parametrize("sources", [2, 3, 4, 5])
def test_without_a_lie_any_number_of_sources_is_believed(sources: int) -> None:
    """Clean batches are accepted, under ten seeds."""
    judged = [judge(sources, 0, 0.0, seed=seed) for seed in range(10)]
    assert all(each.is_accepted and each.error_today < 0.2 for each in judged)


@pytest.mark.parametrize(("sources", "liars"), [(2, 1), (3, 1), (4, 1), (5, 1), (5, 2)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_whatever_some_sources_say_nothing_far_off_is_accepted(sources: int, liars: int, sign: float) -> None:
    """Lies of any size, constant and in proportion, as long as more rows are honest, or as many."""
    for lie in LIES:
        for judged in (judge(sources, liars, sign * lie), judge(sources, liars, 0.0, sign * lie)):
            assert not judged.is_accepted or judged.error_today < WITHIN_CELSIUS, (lie, judged)


@pytest.mark.parametrize(("sources", "liars"), [(2, 1), (3, 1), (4, 1)])
@pytest.mark.parametrize("offset", [-2.0, 2.0])
def test_a_lie_of_two_degrees_is_always_found(sources: int, liars: int, offset: float) -> None:
    """Under ten seeds: it is too small for an outlier among so many, and too great to be let pass."""
    assert not any(judge(sources, liars, offset, seed=seed).is_accepted for seed in range(10))


def test_one_source_of_outliers_does_not_stop_the_others() -> None:
    """Whoever lies far off is left out, and takes no rows from the others with it: their challenger is accepted."""
    for lie in (6.0, 10.0, 20.0, -20.0):
        judged = judge(3, 1, lie)
        assert judged.is_accepted
        assert judged.error_today < 0.3


@pytest.mark.parametrize("lie_celsius", [3.0, 10.0])
@pytest.mark.parametrize("rows", [600, 2000])
def test_two_of_five_that_flood_the_newest_rows_do_not_judge_alone(rows: int, lie_celsius: float) -> None:
    """All held-out rows are theirs, and they agree; without the rule that the most must judge they would win."""
    random = np.random.default_rng(0)
    days = [np.sort(random.uniform(0.0, 30.0, 300)), np.sort(random.uniform(30.0 - 1.0 / 24.0, 30.0, 2 * rows))]
    celsius = random.uniform(-5.0, 30.0, 300 + 2 * rows)
    said = celsius + random.normal(0.0, 0.3, len(celsius))
    said[300:] += lie_celsius
    source = [f"honest-{row % 3}" for row in range(300)] + [f"liar-{row % 2}" for row in range(2 * rows)]
    order = np.argsort(np.concatenate(days), kind="stable")
    observed = Observed(
        (celsius * 1.8 + 32.0)[order], said[order], np.concatenate(days)[order] * 86400.0, np.array(source)[order]
    )
    rules = Rules()
    selection = select(observed, rules)
    parts = divide(selection.used, rules)
    assert judging_sources(parts.held_out, rules) == ["liar-0", "liar-1"]
    assert passes(best_line(parts), parts.held_out, rules)
    assert shortages(selection, parts, rules) == ["2 sources have 10 or more of the held-out rows; it takes 3"]
