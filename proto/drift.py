"""How far inputs have moved from those a model was trained on: the population stability index, as a pure function.

NumPy is needed where values are counted alone: the parent of several workers, which has none, joins their counts.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from proto.artefact import Histogram

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def count(reference: Histogram, values: "NDArray[np.float64]") -> "NDArray[np.int64]":
    """Count values [N] in the bins of a reference, of which the first and the last take what lies beyond them too."""
    import numpy as np  # noqa: PLC0415 - see the top of the file

    inner = np.asarray(reference.edges[1:-1])
    places = np.searchsorted(inner, values, side="right")
    return np.bincount(places, minlength=len(reference.counts)).astype(np.int64)


def population_stability_index(expected: Sequence[int], found: Iterable[int]) -> float:
    """Σ (q - p) · ln(q / p) over bins, p being the expected shares and q those found; 0 where they are the same.

    Half a count stands in every bin beforehand, so that an empty one makes the index large and not infinite. Between
    samples of one distribution it is not 0 but about (bins - 1) · (1/n + 1/m), n and m being their sizes (Yurdakul,
    "Statistical Properties of Population Stability Index", 2018): see `expected_by_chance`.
    """
    pairs = list(zip(_shares(expected), _shares(found), strict=True))
    return math.fsum((q - p) * math.log(q / p) for p, q in pairs)


def _shares(counts: Iterable[int]) -> list[float]:
    smoothed = [each + 0.5 for each in counts]
    total = math.fsum(smoothed)
    return [each / total for each in smoothed]


def expected_by_chance(expected: Sequence[int], found: Iterable[int]) -> tuple[float, float]:
    """Mean and standard deviation of the index between two samples of these sizes from one distribution.

    The index is then near (1/n + 1/m) times a chi-square of bins - 1 degrees of freedom.
    """
    degrees = len(expected) - 1
    rate = 1 / max(1, sum(expected)) + 1 / max(1, sum(found))
    return degrees * rate, math.sqrt(2 * degrees) * rate
