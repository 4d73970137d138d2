"""Drift is seen where it is, and not in the chance of samples."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from proto.artefact import Histogram
from training.describe import histogram
from training.drift import DriftRules, decide

RULES = DriftRules()
LOSS = 0.25


def _reference(rows: int = 400, seed: int = 0) -> Histogram:
    return histogram(np.random.default_rng(seed).uniform(20.0, 90.0, rows))


def _decide(
    *, low: float = 20.0, high: float = 90.0, error: float = 0.5, rows: int = 200, seed: int = 1, reference: int = 400
) -> tuple[bool, str]:
    random = np.random.default_rng(seed)
    fahrenheit, errors = random.uniform(low, high, rows), random.normal(0.0, error, rows)
    found = decide(_reference(reference), LOSS, fahrenheit, errors, RULES)
    return found.is_drift, " ".join(found.reasons)


def test_nothing_happened() -> None:
    """Readings and errors as in training are no drift, in 300 samples of 200."""
    assert sum(_decide(seed=seed)[0] for seed in range(300)) <= 1


def test_readings_that_move_are_drift() -> None:
    """Readings from another part of the scale are told."""
    is_drift, reasons = _decide(low=60.0, high=110.0)
    assert is_drift
    assert "readings have moved" in reasons


def test_errors_that_grow_are_drift() -> None:
    """An error of twice what it was is told, with its figures."""
    is_drift, reasons = _decide(error=1.0)
    assert is_drift
    assert "errors have grown" in reasons


def test_level_of_the_test_decides_what_is_shown() -> None:
    """An error that has grown a little is drift at one level, and chance at a stricter one."""
    errors = np.random.default_rng(3).normal(0.0, 0.72, 200)
    fahrenheit = np.random.default_rng(4).uniform(20.0, 90.0, 200)
    found = [
        decide(_reference(), LOSS, fahrenheit, errors, dataclasses.replace(RULES, significance=level)).is_drift
        for level in (0.04, 0.00001)
    ]
    assert found == [True, False]


def test_only_the_newest_rows_are_looked_at() -> None:
    """A long calm before it hides no drift."""
    random = np.random.default_rng(2)
    fahrenheit = random.uniform(20.0, 90.0, 2200)
    errors = np.concatenate([random.normal(0.0, 0.1, 2000), random.normal(0.0, 1.0, 200)])
    found = decide(_reference(), LOSS, fahrenheit, errors, RULES)
    assert found.is_drift
    assert found.rows == 200


def test_too_few_rows_decide_nothing() -> None:
    """Neither observations nor training rows too few are taken for drift."""
    assert _decide(error=10.0, rows=49) == (False, "49 new observations; it takes 50")
    assert _decide(low=60.0, high=110.0, reference=99) == (False, "no drift")


@pytest.mark.parametrize(
    "wrong",
    [{"minimum_rows": 19}, {"recent_rows": 19}, {"stability_index": 0}, {"error_ratio": 0}, {"significance": 0.05}],
)
def test_rules_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    """Thresholds of nothing, tests of too few rows, and levels at which the test is not known to hold are errors."""
    with pytest.raises(ValueError, match=r"19|above 0"):
        dataclasses.replace(RULES, **wrong)
