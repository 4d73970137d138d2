"""What a version answers, looked at in samples: how far from the exact law, and from what it was trained on.

A look at every row would cost more than its inference. So each run leaves copies of a few of its rows, as bytes, while
there is room; when somebody asks for the metrics they are looked at, and there is room again.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proto.artefact import Column
from proto.drift import count
from service.models import LoadedVersion
from service.run_observers import Served
from service.snapshot import ERROR_BOUNDS, Distribution, Window

ROWS_OF_A_RUN: Final = 64
"""Rows that one run leaves at most, evenly spaced over its rows."""
ROOM_ROWS: Final = 1024
"""Rows that may lie there unlooked at."""
REFILL_SECONDS: Final = 1.0
"""Room is made no sooner after the last time, so that at most `ROOM_ROWS` a second are looked at."""
WINDOW_SECONDS: Final = 600.0
"""How far back the window reaches whose inputs are compared with the reference."""
SLICES: Final = 10
"""Parts of the window; the oldest leaves as a whole."""

Rows = NDArray[np.float32]


class SlidingCounts:
    """How often inputs lay in each bin of each column's reference, over the last `WINDOW_SECONDS`."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._slices: deque[tuple[int, list[NDArray[np.int64]]]] = deque()

    def add(self, rows: Rows, now: float) -> None:
        """Count rows `[N, columns]` that were served about now, in seconds of a monotonic clock."""
        found = [
            count(column.histogram, values.astype(np.float64))
            for column, values in zip(self._columns, rows.T, strict=True)
        ]
        place = int(now // (WINDOW_SECONDS / SLICES))
        if self._slices and self._slices[-1][0] == place:
            found = [one + other for one, other in zip(self._slices.pop()[1], found, strict=True)]
        self._slices.append((place, found))

    def window(self, now: float) -> Window:
        """What was counted, beside the reference."""
        oldest = int(now // (WINDOW_SECONDS / SLICES)) - SLICES
        while self._slices and self._slices[0][0] <= oldest:
            self._slices.popleft()
        expected = tuple(column.histogram.counts for column in self._columns)
        found = [np.zeros(len(counts), np.int64) for counts in expected]
        for _, counted in self._slices:
            found = [one + other for one, other in zip(found, counted, strict=True)]
        return Window(expected, tuple(tuple(counts.tolist()) for counts in found))


class Sample:
    """The sample of one version whose file states what it was trained on. Not locked: the owner does that.

    `offer` and `take` are for the owner's lock; `look` is for one thread at a time, and so is what it leaves.
    """

    def __init__(self, version: LoadedVersion, columns: Sequence[Column]) -> None:
        self.room = ROOM_ROWS
        self.rows = 0
        """Rows that were looked at, since the version was first run here."""
        self.outside = 0
        """Those of them that lay outside the training domain."""
        self._version = version
        self._width = len(columns)
        self._pending: list[tuple[bytes, bytes]] = []
        self._refilled = -REFILL_SECONDS
        self._error_counts = np.zeros(len(ERROR_BOUNDS) + 1, np.int64)
        self._error_total = 0.0
        self._counts = SlidingCounts(columns)

    def offer(self, served: Served) -> None:
        """Copy some rows of a run. Cheap: nothing is looked at, and nothing of the run is held."""
        (rows, *_), (answers, *_) = served
        if rows.ndim != 2 or rows.shape[1] != self._width:  # noqa: PLR2004 - rows of columns
            return
        step = -(-len(rows) // ROWS_OF_A_RUN)
        if step > 1:
            rows, answers = rows[::step], answers[::step]
        self._pending.append((rows.tobytes(), answers.tobytes()))
        self.room -= len(rows)

    def take(self, now: float) -> list[tuple[bytes, bytes]]:
        """Take what was copied, and make room where it is time."""
        taken, self._pending = self._pending, []
        if now >= self._refilled + REFILL_SECONDS:
            self._refilled, self.room = now, ROOM_ROWS
        return taken

    def look(self, taken: Sequence[tuple[bytes, bytes]], now: float) -> None:
        """Look at rows that were taken."""
        if not taken:
            return
        rows = np.frombuffer(b"".join([row for row, _ in taken]), np.float32).reshape(-1, self._width)
        outside = self._version.outside(rows)
        self.rows += len(rows)
        self.outside += 0 if outside is None else int(outside.sum())
        finite = np.isfinite(rows).all(axis=1)
        self._counts.add(rows[finite], now)
        if self._version.converts:  # one answer a row
            answers = np.frombuffer(b"".join([answer for _, answer in taken]), np.float32)
            self._count_errors(rows[finite, 0], answers[finite])

    def _count_errors(self, fahrenheit: Rows, celsius: Rows) -> None:
        errors = np.abs(celsius.astype(np.float64) - exact_celsius(fahrenheit.astype(np.float64)))
        errors = errors[np.isfinite(errors)]
        places = np.searchsorted(ERROR_BOUNDS, errors)
        self._error_counts += np.bincount(places, minlength=len(self._error_counts))
        self._error_total += float(errors.sum())

    @property
    def errors(self) -> Distribution | None:
        """Absolute differences from the exact law in °C; None of a model that is no converter."""
        if not self._version.converts:
            return None
        return Distribution(tuple(self._error_counts.tolist()), self._error_total)

    def window(self, now: float) -> Window:
        """The inputs of the last while, beside those of the training."""
        return self._counts.window(now)


def exact_celsius(fahrenheit: NDArray[np.float64]) -> NDArray[np.float64]:
    """The exact law."""
    return (fahrenheit - 32.0) * 5.0 / 9.0
