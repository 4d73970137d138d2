"""Errors of a fitted converter, in numbers: on its readings, and against the exact law. Pure functions of a fit."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proto.artefact import ABSOLUTE_ZERO_FAHRENHEIT
from training import law
from training.fit import Fitted

WIDE_RANGE_FAHRENHEIT: Final = (-40.0, 220.0)
"""Where a converter is looked at beyond its readings: the weather's coldest to past boiling water."""

_LAW_SAMPLES: Final = 2001


@dataclass(frozen=True, slots=True)
class Errors:
    """Of answers against truths: mean squared error in °C², mean absolute and worst absolute error in °C."""

    mean_squared_error: float
    mean_absolute_error: float
    worst_error: float

    @classmethod
    def of(cls, residuals: NDArray[np.float64]) -> "Errors":
        """Of residuals [n] in °C."""
        absolute = np.abs(residuals)
        return cls(float(np.mean(residuals**2)), float(np.mean(absolute)), float(np.max(absolute)))


@dataclass(frozen=True, slots=True)
class LawErrors:
    """Of answers against the exact law, in °C, over inputs spread evenly between `low` and `high` °F."""

    low_fahrenheit: float
    high_fahrenheit: float
    mean_absolute_error: float
    worst_error: float


@dataclass(frozen=True, slots=True)
class LawReport:
    """The true error of a converter of °F: over its training range, over all readings, and outside the training range.

    `outside` spans at least -40 … 220 °F, the training range cut out of it.
    """

    training_range: LawErrors
    readings_range: LawErrors
    outside: LawErrors


def errors(fitted: Fitted, rows: NDArray[np.int64]) -> Errors:
    """Errors on some rows of the readings."""
    return Errors.of(fitted.model.predict(fitted.dataset.features[rows]) - fitted.dataset.celsius[rows])


def law_report(fitted: Fitted) -> LawReport | None:
    """The true error against C = (F - 32) · 5/9; None where the only column is not in °F, and so no law is known."""
    readings = fitted.dataset.fahrenheit
    if readings is None:
        return None
    trained = readings[fitted.split.training]
    low, high = float(trained.min()), float(trained.max())
    wide_low, wide_high = wide_range(low, high)
    wide = np.linspace(wide_low, wide_high, _LAW_SAMPLES)
    return LawReport(
        training_range=_law_errors(fitted, np.linspace(low, high, _LAW_SAMPLES)),
        readings_range=_law_errors(fitted, np.linspace(readings.min(), readings.max(), _LAW_SAMPLES)),
        outside=_law_errors(fitted, wide[(wide < low) | (wide > high)]),
    )


def wide_range(low: float, high: float) -> tuple[float, float]:
    """-40 … 220 °F, or further: a width of the training range on either side, though never below absolute zero."""
    width = high - low
    lowest = max(ABSOLUTE_ZERO_FAHRENHEIT, min(WIDE_RANGE_FAHRENHEIT[0], low - width))
    return lowest, max(WIDE_RANGE_FAHRENHEIT[1], high + width)


def _law_errors(fitted: Fitted, fahrenheit: NDArray[np.float64]) -> LawErrors:
    absolute = np.abs(fitted.model.predict(fahrenheit[:, None]) - law.celsius(fahrenheit))
    return LawErrors(
        float(fahrenheit.min()), float(fahrenheit.max()), float(np.mean(absolute)), float(np.max(absolute))
    )
