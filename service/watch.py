"""Notices that a repository changed: the system tells where it can, and a look at an interval where it cannot.

Notifications come through `watchfiles`. They are taken as hints alone: what changed is found by looking, so that one
that is lost costs time and nothing else. Network file systems tell of no other machine's changes: there the interval
decides, or `poll`, which asks for no notifications at all.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import structlog
from watchfiles import Change, watch

log = structlog.get_logger(__name__)

_QUIET_MILLISECONDS: Final = 100
"""Changes are told once it was quiet for so long, so that a copy of many files is one look."""
_GATHER_MILLISECONDS: Final = 1000
"""And after this at the latest."""


class Watcher:
    """Calls `look` on a thread of its own whenever the repository may have changed, and at every interval.

    `look` returns the seconds after which it wants to be called again, or None. What it raises is logged, and the
    watching goes on. `start` and `stop` are called once each; after `stop` nothing is left of it.
    """

    def __init__(
        self, root: Path, look: Callable[[], float | None], how: Literal["auto", "poll"], interval_seconds: float
    ) -> None:
        self._root = root
        self._look = look
        self._how: str = how
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch, with a look at once: something may have changed since the models were loaded."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more, and return when a look that was under way is over."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        due = -float("inf")
        for told in self._hints():
            now = time.monotonic()
            if told or now >= due:
                wanted = self._looked()
                due = time.monotonic() + min(self._interval_seconds, wanted or self._interval_seconds)

    def _looked(self) -> float | None:
        try:
            return self._look()
        except Exception:
            log.exception("a look at the repository failed; it is repeated at the next interval")
            return None

    def _hints(self) -> Iterator[bool]:
        """Yield True when something changed, and False now and then; end when stopping."""
        while not self._stopping.is_set():
            if self._how == "auto" and self._root.is_dir():
                yield from self._notifications()
            else:
                yield False
                self._stopping.wait(self._pause_seconds)

    @property
    def _pause_seconds(self) -> float:
        return min(self._interval_seconds, 0.5)

    def _notifications(self) -> Iterator[bool]:
        """Hints from the system; they end where the directory is no longer the one that is watched."""
        try:
            watched = self._root.stat()
            for changes in watch(
                self._root,
                watch_filter=_matters,
                debounce=_GATHER_MILLISECONDS,
                step=_QUIET_MILLISECONDS,
                stop_event=self._stopping,
                rust_timeout=int(self._pause_seconds * 1000),
                yield_on_timeout=True,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                yield bool(changes)
                if not changes and not self._is_still(watched):
                    return
        except OSError as error:
            self._how = "poll"
            log.warning("changes are not told here; the repository is looked at by the clock", reason=str(error))

    def _is_still(self, watched: os.stat_result) -> bool:
        try:
            now = self._root.stat()
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == (watched.st_dev, watched.st_ino)


def _matters(_change: Change, path: str) -> bool:
    """Whether a change can be of a model: what is hidden is a writer's workplace, or its lock."""
    return not Path(path).name.startswith(".")
