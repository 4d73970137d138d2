"""What was answered to requests that had an id, for as long as memory allows: what observations are joined to."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from time import monotonic
from typing import Final, NamedTuple

import numpy as np

from service.query import Answer, ConvertQuery

MAX_ROWS: Final = 1024
"""Rows of an answer that is kept; larger ones are not."""
SOUGHT_SECONDS: Final = 3600.0
"""How long an answer should be kept: rather a share of them for so long than all of them for less."""
REVIEW_SECONDS: Final = SOUGHT_SECONDS / 60
"""Where a share is kept, it is asked so often at most whether a greater one would fit."""

_ENTRY_BYTES: Final = 400
"""What an entry costs beside its id and its rows, measured and rounded up."""


class Given(NamedTuple):
    """What a version answered for one row."""

    model: str
    version: int
    celsius: float


class _Entry(NamedTuple):
    model: str
    version: int
    fahrenheit: bytes
    celsius: bytes
    kept_seconds: float
    hash: int

    @property
    def size_bytes(self) -> int:
        return len(self.fahrenheit) + len(self.celsius)


class Answers:
    """Keeps answers by their requests' ids. Any thread may call it.

    Guarantees: never more than `max_bytes`, give or take what Python's own tables take. Where that would not hold
    all answers of the last hour, it holds those whose id's hash falls into a share that is halved as often as needed,
    and doubled again once the last hour fills no more than a quarter; within the share the oldest go first, and what is
    older than an hour goes before a share does. The hash is keyed by a secret of its own, so that nobody can choose ids
    that are always kept, or never. Of two requests with one id, the later counts.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        self.max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._key = secrets.token_bytes(16)
        self._mask = 0
        """Answers are kept whose hash has none of these bits."""
        self._next_review_seconds = clock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def share(self) -> float:
        """The share of requests whose answers are kept, as it stood after the last of them."""
        return 1.0 / (self._mask + 1)

    @property
    def size_bytes(self) -> int:
        """What is kept, in bytes."""
        return self._bytes

    def keep(self, query: ConvertQuery, answer: Answer) -> None:
        """Keep an answer, or not; it is the codec that calls this, between a run and its answers."""
        now = self._clock()
        if self._mask and now >= self._next_review_seconds:
            self._review(now)
        hashed = self._hash(query.request_id)
        if hashed & self._mask:
            return
        entry = None
        if len(query.rows) <= MAX_ROWS:
            celsius = answer.outputs[0].tobytes()
            version = answer.version
            entry = _Entry(version.name, version.version, query.rows.tobytes(), celsius, now, hashed)
        with self._lock:
            self._drop(query.request_id)
            if entry is not None and _size(query.request_id, entry) <= self.max_bytes:
                self._entries[query.request_id] = entry
                self._bytes += _size(query.request_id, entry)
                if self._bytes > self.max_bytes:
                    self._make_room(now)

    def find(self, request_id: str, row: int, fahrenheit: float) -> Given | None:
        """What was answered for a row of a request; None where it is not known, or another reading was asked for."""
        with self._lock:
            entry = self._entries.get(request_id)
        if entry is None or not 0 <= row < len(entry.fahrenheit) // 4:
            return None
        asked = np.frombuffer(entry.fahrenheit, np.float32, 1, row * 4)[0]
        if asked != np.float32(fahrenheit):
            return None
        return Given(entry.model, entry.version, float(np.frombuffer(entry.celsius, np.float32, 1, row * 4)[0]))

    def _hash(self, request_id: str) -> int:
        return int.from_bytes(blake2b(request_id.encode(), digest_size=8, key=self._key).digest())

    def _make_room(self, now: float) -> None:
        """Let the oldest go; where they are young, every second one of all, and from then on too."""
        oldest = next(iter(self._entries.values()))
        if now - oldest.kept_seconds < SOUGHT_SECONDS:
            self._mask = self._mask << 1 | 1
            for request_id in [known for known, entry in self._entries.items() if entry.hash & self._mask]:
                self._drop(request_id)
        while self._bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def _review(self, now: float) -> None:
        """Double the share where the answers of the last hour would still fill no more than half."""
        with self._lock:
            self._next_review_seconds = now + REVIEW_SECONDS
            young = 0
            for request_id, entry in reversed(self._entries.items()):
                if now - entry.kept_seconds > SOUGHT_SECONDS:
                    break
                young += _size(request_id, entry)
            if young <= self.max_bytes / 4:
                self._mask >>= 1

    def _drop(self, request_id: str) -> None:
        entry = self._entries.pop(request_id, None)
        if entry is not None:
            self._bytes -= _size(request_id, entry)


def _size(request_id: str, entry: _Entry) -> int:
    return _ENTRY_BYTES + len(request_id) + entry.size_bytes
