"""How long runs take, learned from the runs: what decides whether one may hold up the event loop."""

from typing import Final
from weakref import WeakKeyDictionary

from service.models import LoadedVersion

_GROWTH: Final = 1.05
"""How much dearer one slow run can make its size: a run that was interrupted tells nothing of what runs cost."""


class Costs:
    """Seconds that a run of a version takes, by the power of two of its rows.

    What is known of a size is near the least that a run of it took lately. A size that was never run is judged by the
    nearest smaller one, as if cost grew with the rows: too dear at first, until it was run once. A version that was
    never run is free. Called by one thread.
    """

    def __init__(self) -> None:
        self._seconds: WeakKeyDictionary[LoadedVersion, dict[int, float]] = WeakKeyDictionary()

    def expected_seconds(self, version: LoadedVersion, rows: int) -> float:
        """Return how long a run is expected to take."""
        known = self._seconds.get(version)
        if not known:
            return 0.0
        size = rows.bit_length()
        if size in known:
            return known[size]
        smaller = max((other for other in known if other < size), default=min(known))
        return known[smaller] * max(1.0, 2.0 ** (size - smaller))

    def learn(self, version: LoadedVersion, rows: int, seconds: float) -> None:
        """Take a measurement into account."""
        known = self._seconds.setdefault(version, {})
        size = rows.bit_length()
        known[size] = min(seconds, known[size] * _GROWTH) if size in known else seconds
