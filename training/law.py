"""The exact law that the readings follow, noise apart: the oracle a converter's true error is measured against."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

ABSOLUTE_ZERO_CELSIUS: Final = -273.15


def celsius(fahrenheit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert °F to °C exactly: C = (F - 32) · 5/9, in float64."""
    return (fahrenheit - 32.0) * 5.0 / 9.0
