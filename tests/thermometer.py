"""A thermometer that drifts: its gain and offset change slowly, and at one moment its offset jumps. Seeded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proto.observations import Observation

DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Thermometer:
    """What it shows in °F for a true temperature, by the days since it was new."""

    gain_per_day: float = 0.002
    offset_per_day_fahrenheit: float = 0.1
    steady_from_day: float = np.inf
    """From here on gain and offset stay as they are."""
    jump_day: float = np.inf
    jump_fahrenheit: float = 0.0

    def show(self, celsius: NDArray[np.float64], days: NDArray[np.float64]) -> NDArray[np.float64]:
        """Readings in °F [N] for true temperatures [N] at days [N]."""
        true = celsius * 9.0 / 5.0 + 32.0
        jump = np.where(days >= self.jump_day, self.jump_fahrenheit, 0.0)
        drifted = np.minimum(days, self.steady_from_day)
        return true * (1.0 + self.gain_per_day * drifted) + self.offset_per_day_fahrenheit * drifted + jump


def observe(
    thermometer: Thermometer,
    days: tuple[float, float],
    rows: int,
    *,
    start_seconds: float,
    sources: Sequence[str] = ("attic", "cellar", "roof"),
    scatter_celsius: float = 0.3,
    error_celsius: float = 0.0,
    seed: int = 0,
) -> list[Observation]:
    """Observations at even times between two days, by the sources in turn; day 0 is at `start_seconds`.

    The truths scatter, and have an error where one is given, as those of a broken or a malicious source have.
    """
    random = np.random.default_rng(seed)
    when = np.linspace(*days, rows, endpoint=False)
    celsius = random.uniform(-5.0, 30.0, rows)
    readings = thermometer.show(celsius, when)
    said = celsius + random.normal(0.0, scatter_celsius, rows) + error_celsius
    return [
        Observation(
            id=f"{'-'.join(sources)}-{seed}-{row}",
            fahrenheit=float(readings[row]),
            celsius=float(said[row]),
            observed_at_seconds=start_seconds + float(when[row]) * DAY_SECONDS,
            source=sources[row % len(sources)],
        )
        for row in range(rows)
    ]
