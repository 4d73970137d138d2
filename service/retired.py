"""Versions that answer no more calls, until the last run on them has ended."""

import threading
import weakref
from collections.abc import Sequence

from service.loading import LoadedVersion


class Retired:
    """Knows when versions are freed; does not keep them. What still runs on one keeps it, and nothing else does."""

    def __init__(self, versions: Sequence[LoadedVersion]) -> None:
        self._changed = threading.Condition(threading.RLock())  # a version may be freed by the thread that waits
        self._left = {weakref.ref(version, self._freed) for version in versions}

    @property
    def left(self) -> int:
        """How many are still in use."""
        return len(self._left)

    def wait(self, seconds: float) -> bool:
        """Wait until all are freed, and tell whether they were within the time given."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._left, seconds)

    def _freed(self, reference: weakref.ref[LoadedVersion]) -> None:
        with self._changed:
            self._left.discard(reference)
            self._changed.notify_all()
