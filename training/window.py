"""The window of observations, read row by row into a bounded amount of memory, however many there are.

What is over the bound is left out evenly over time, from the sources that reported most: a flood from one of them costs
the others nothing.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from proto.observations import Observation, ObservationStore
from training.observed import Observed, Rules

_AFTER_THINNING: Final = 0.75
"""So much of the bound is left full by a thinning, so that the next one is some way off."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What was kept, the oldest first, and how many rows each of its sources had."""

    observed: Observed
    read: Mapping[str, int]


def read_window(url: str, rules: Rules, now_seconds: float) -> Window:
    """Read the observations of the window, which ends now: what claims to be of later is not read.

    Raises:
        ObservationError: there is no store, or it cannot be read.
    """
    with ObservationStore.open(url, create=False) as store:
        return keep(store.observations(now_seconds - rules.window_seconds, now_seconds), rules.most_rows)


def keep(observations: Iterable[Observation], most_rows: int) -> Window:
    """Keep at most so many of the observations, which come in the order of their time."""
    kept: dict[str, _Source] = {}
    rows = 0
    for observation in observations:
        source = kept.setdefault(observation.source, _Source())
        rows += source.take(observation)
        if rows > most_rows:
            _thin(kept, int(_AFTER_THINNING * most_rows))
            rows = sum(len(each) for each in kept.values())
    return Window(_columns(kept), {name: source.read for name, source in kept.items()})


@dataclass(slots=True)
class _Source:
    """Every so many-th row of one source."""

    stride: int = 1
    read: int = 0
    fahrenheit: "array[float]" = field(default_factory=lambda: array("d"))
    celsius: "array[float]" = field(default_factory=lambda: array("d"))
    seconds: "array[float]" = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.seconds)

    def take(self, observation: Observation) -> bool:
        """Take a row, or leave it out; whether it was taken."""
        is_taken = self.read % self.stride == 0
        self.read += 1
        if is_taken:
            self.fahrenheit.append(observation.fahrenheit)
            self.celsius.append(observation.celsius)
            self.seconds.append(observation.observed_at_seconds)
        return is_taken

    def thin(self, most: int) -> None:
        """Leave out every second row until there are at most so many, of which one is the least."""
        while len(self) > most:
            self.stride *= 2
            self.fahrenheit, self.celsius, self.seconds = self.fahrenheit[::2], self.celsius[::2], self.seconds[::2]


def _thin(kept: dict[str, _Source], most_rows: int) -> None:
    """Thin the sources with most rows; where there are more sources than rows may be, forget those that came first."""
    for name in list(kept)[: max(0, len(kept) - most_rows)]:
        del kept[name]
    most = level([len(source) for source in kept.values()], most_rows)
    for source in kept.values():
        source.thin(most)


def level(counts: Iterable[int], most_rows: int) -> int:
    """How many rows each source may keep so that all have at most so many; 1 at least.

    >>> level([5, 100, 1000], 65)
    30
    >>> level([5, 5], 65)
    5
    """
    left, ascending = most_rows, sorted(counts)
    for place, count in enumerate(ascending):
        sharing = len(ascending) - place
        if count * sharing > left:
            return max(1, left // sharing)
        left -= count
    return max(ascending, default=1)


def _columns(kept: Mapping[str, _Source]) -> Observed:
    sources = list(kept.values())
    columns = [
        np.concatenate([np.frombuffer(getattr(source, name)) for source in sources]) if sources else np.zeros(0)
        for name in ("fahrenheit", "celsius", "seconds")
    ]
    names = np.repeat(np.array(list(kept), dtype=np.str_), np.array([len(source) for source in sources], np.int64))
    order = np.argsort(columns[2], kind="stable")
    return Observed(columns[0][order], columns[1][order], columns[2][order], names[order])
