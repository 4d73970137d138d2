"""Whether a champion needs another look: its inputs have moved, or its errors have grown. A pure decision."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proto.artefact import Histogram
from proto.drift import count, expected_by_chance, population_stability_index
from training.gate import GROUPS, Mean, check_significance, mean_over_time

MINIMUM_REFERENCE_ROWS: Final = 100
"""With fewer training rows a reference histogram says too little to compare anything with."""
_DEVIATIONS_OF_CHANCE: Final = 4.0


@dataclass(frozen=True, slots=True)
class DriftRules:
    """What counts as drift."""

    minimum_rows: int = 50
    """So many observations newer than all that the champion was fitted to; with fewer nothing is decided."""
    recent_rows: int = 200
    """The newest so many of them are looked at: what was well before is no comfort."""
    stability_index: float = 0.25
    """A population stability index of the readings from here on, where chance does not explain it."""
    error_ratio: float = 1.5
    """A mean squared error that is shown to exceed so many times the champion's own validation loss."""
    significance: float = 0.025
    """Probability with which chance alone may show that."""

    def __post_init__(self) -> None:
        """Raise ValueError for a rule that means nothing, or rows too few for the test."""
        fewest = min(self.minimum_rows, self.recent_rows)
        if fewest < 2 * GROUPS:
            raise ValueError(f"drift is decided from {2 * GROUPS} observations or more, not {fewest}")
        if not (self.stability_index > 0 and self.error_ratio > 0):
            raise ValueError("a threshold of drift must be above 0")
        check_significance(self.significance)


@dataclass(frozen=True, slots=True)
class Drift:
    """The decision, and what it was made from. A figure is None where there was too little to have it."""

    is_drift: bool
    reasons: tuple[str, ...]
    rows: int
    stability_index: float | None = None
    mean_squared_error: float | None = None


def decide(
    reference: Histogram,
    validation_loss: float,
    fahrenheit: NDArray[np.float64],
    errors: NDArray[np.float64],
    rules: DriftRules,
) -> Drift:
    """Decide from observations that the champion was not fitted to, the oldest first.

    Args:
        reference: how the champion's training readings lay.
        validation_loss: its mean squared error in °C² when it was made.
        fahrenheit: the readings observed since [N].
        errors: its errors on them [N] in °C.
        rules: what counts as drift.
    """
    if len(errors) < rules.minimum_rows:
        return Drift(
            is_drift=False,
            reasons=(f"{len(errors)} new observations; it takes {rules.minimum_rows}",),
            rows=len(errors),
        )
    fahrenheit, errors = fahrenheit[-rules.recent_rows :], errors[-rules.recent_rows :]
    index, moved = _moved(reference, fahrenheit, rules)
    squared = mean_over_time(errors**2)
    grown = _grown(squared, validation_loss, rules)
    reasons = tuple(reason for reason in (moved, grown) if reason)
    return Drift(bool(reasons), reasons or ("no drift",), len(errors), index, squared.value)


def _moved(reference: Histogram, fahrenheit: NDArray[np.float64], rules: DriftRules) -> tuple[float | None, str | None]:
    if sum(reference.counts) < MINIMUM_REFERENCE_ROWS:
        return None, None
    found = count(reference, fahrenheit)
    index = population_stability_index(reference.counts, found)
    mean, deviation = expected_by_chance(reference.counts, found)
    threshold = max(rules.stability_index, mean + _DEVIATIONS_OF_CHANCE * deviation)
    if index < threshold:
        return index, None
    return index, f"the readings have moved: stability index {index:.2f}, from {threshold:.2f} on it is drift"


def _grown(squared: Mean, validation_loss: float, rules: DriftRules) -> str | None:
    limit = rules.error_ratio * validation_loss
    lower = squared.confidence(rules.significance)[0]
    if lower <= limit:
        return None
    return (
        f"the errors have grown: mean squared error {squared.value:.3f} °C², lower bound {lower:.3f}, against "
        f"{rules.error_ratio:g} times the validation loss of {validation_loss:.3f}"
    )
